//! What scoring costs beside writing.

use std::time::Instant;

use fisao_align::RunControl;
use fisao_align::encoding::{encode, image_batch};
use fisao_align::mentions::ScoredResponse;
use fisao_align::objective::Data;
use fisao_align::sampling::generate;
use fisao_align::tasks::{Task, TaskList};
use fisao_align::trainer::Trainer;
use fisao_models::generation::Generated;
use fisao_models::parallel::{parallel_chunks, workers_on};
use fisao_models::parameters::floats;
use fisao_models::scoring::CudaError;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_runs::demo_config::demo_config;
use fisao_runs::world::SceneTasks;
use fisao_scenes::{Split, World};
use fisao_verifier::calibration::Calibration;

use super::document::Cost;
use super::sample::Sample;
use super::seed::StudyRunner;
use super::source::{Part, Source};

/// Images that are captioned and encoded to time it.
const IMAGES: usize = 128;
/// Images encoded at once by one core, as captioning does it.
const BATCH: usize = 32;
/// Times it is done; the quickest one counts, as others share the machine.
const ROUNDS: usize = 3;
/// Bytes of captions searched for mentions to time it.
const TEXT: usize = 1 << 25;
/// Iterations of training that are timed; the first one warms up.
const ITERATIONS: usize = 3;

/// Milliseconds and fractions.
pub(super) fn measure(
    runner: &StudyRunner<'_>,
    sample: &Sample,
    calibration: Option<&Calibration>,
    seed: u64,
) -> anyhow::Result<Cost> {
    let tasks = runner.source.tasks(Part::Test, seed, runner.views);
    let count = IMAGES.min(tasks.count());
    let tasks = (0..count).map(|index| tasks.task(index)).collect::<Result<Vec<_>, _>>()?;
    // In memory, so that opening and preparing images is no part of what is timed.
    let tasks = TaskList(&tasks);
    let length = runner.source.longest_prompt()? + runner.sampling.max_new_tokens;
    let model = &runner.policy.model;
    let (mut scorer, captions) = (runner.scorer(), &sample.captions[..count]);
    if let Some(calibration) = calibration {
        scorer.verifier.apply_calibration(calibration);
    }
    let encoding = scorer.verifier.clone();
    let seen = encode(model, &encoding, tasks.0)?.embeddings;
    let [write, features, both, words, sentences, decoder] = best([
        &mut || {
            generate(
                model,
                &tasks,
                0..count,
                1,
                length,
                &runner.sampling,
                RunControl::new(&|_| {}),
            )?;
            Ok(())
        },
        &mut || {
            image_features(model, tasks.0)?;
            Ok(())
        },
        &mut || {
            encode(model, &encoding, tasks.0)?;
            Ok(())
        },
        &mut || {
            for caption in captions {
                let ScoredResponse { task, tokens, logprobs, finish, .. } = caption.clone();
                scorer.read(task, Generated { tokens, logprobs, finish }, &seen[task])?;
            }
            Ok(())
        },
        &mut || {
            for caption in captions {
                runner.verifier.embed_text(std::slice::from_ref(&caption.text))?;
            }
            Ok(())
        },
        &mut || runner.decoder_pass(&tasks, sample),
    ])?
    .map(|seconds| seconds / count as f64);
    // What the verifier adds to the features that the model takes in any case.
    let encode = (both - features).max(0.0);
    let fraction_of_iteration = match (runner.source, calibration) {
        (Source::World { world, .. }, Some(calibration)) => {
            Some(fraction_of_iteration(runner, world, calibration, encode, words)?)
        }
        _ => None,
    };
    Ok(Cost {
        generate_ms: 1000.0 * write,
        encode_ms: 1000.0 * encode,
        words_ms: 1000.0 * words,
        sentence_ms: 1000.0 * sentences,
        decoder_ms: 1000.0 * decoder,
        fraction_of_rollout: (encode + words) / write,
        sentence_fraction_of_rollout: (encode + sentences) / write,
        fraction_of_iteration,
        mentions_mb_per_second: mention_speed(runner, sample),
    })
}

/// Least seconds of each of several kinds of work, which take turns.
fn best<const N: usize>(
    mut work: [&mut dyn FnMut() -> anyhow::Result<()>; N],
) -> anyhow::Result<[f64; N]> {
    let mut seconds = [f64::INFINITY; N];
    for _ in 0..ROUNDS {
        for (seconds, work) in seconds.iter_mut().zip(&mut work) {
            let started = Instant::now();
            work()?;
            *seconds = seconds.min(started.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}

/// The model's own image features, as captioning takes them.
fn image_features(model: &VisionLanguageModel, tasks: &[Task]) -> Result<(), CudaError> {
    let chunks = parallel_chunks(tasks, workers_on(&model.device()), |chunk| {
        for batch in chunk.chunks(BATCH) {
            let features = model.image_features(image_batch(batch, &model.device()))?;
            // Another device may not have computed anything before its result is read.
            floats(&features.tokens().clone().slice([0..1, 0..1]));
        }
        Ok(())
    });
    chunks.into_iter().collect()
}

/// Megabytes of captions in which words are found in a second, on one core.
fn mention_speed(runner: &StudyRunner<'_>, sample: &Sample) -> f64 {
    let once: usize = sample.captions.iter().map(|caption| caption.text.len()).sum();
    let rounds = TEXT.div_ceil(once.max(1));
    let started = Instant::now();
    let mut found = 0;
    for _ in 0..rounds {
        for caption in &sample.captions {
            found += runner.vocabulary.mentions(&caption.text).count();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    tracing::debug!(found, seconds, "mentions found");
    (rounds * once) as f64 / 1e6 / seconds
}

/// Fraction of an iteration of training, with the demo's settings, that encoding and scoring take.
fn fraction_of_iteration(
    runner: &StudyRunner<'_>,
    world: &World,
    calibration: &Calibration,
    encode_seconds: f64,
    words_seconds: f64,
) -> anyhow::Result<f64> {
    let policy = runner.policy;
    let mut config = demo_config(runner.sampling.seed, false);
    config.align.iterations = ITERATIONS;
    let tasks = SceneTasks {
        world,
        split: Split::Train,
        seed: 0,
        count: ITERATIONS * config.align.images_per_iteration,
        policy,
        views: runner.views,
        all_prompts: true,
        answers: Data::Sampled,
    };
    let (images, responses) = (config.align.images_per_iteration, config.responses_per_iteration());
    let model = policy.model.clone();
    let mut trainer = Trainer::new(config, model, runner.scorer(), calibration, &tasks, None)?;
    let mut total = 0.0;
    let progress = runner.reporter.phase("time iterations", ITERATIONS as u64);
    for iteration in 0..ITERATIONS {
        let seconds = trainer.iterate(&mut |_| {})?.seconds.total();
        if iteration > 0 {
            total += seconds;
        }
        progress.advance(1);
    }
    progress.finish();
    let scoring = encode_seconds * images as f64 + words_seconds * responses as f64;
    Ok(scoring * (ITERATIONS - 1) as f64 / total)
}
