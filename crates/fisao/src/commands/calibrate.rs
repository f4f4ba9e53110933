//! `fisao calibrate`: what scores of correct and hallucinated mentions look like for one model.

use std::collections::BTreeSet;
use std::sync::Arc;

use fisao_align::calibrate::{Supervision, calibrate};
use fisao_align::captions::describe_all;
use fisao_align::mentions::MentionScorer;
use fisao_align::run_control::ResponseStore;
use fisao_align::tasks::{Task, TaskSource as _};
use fisao_align::{AlignConfig, AlignError, RunControl, StopFlag};
use fisao_eval::chair::Rules;
use fisao_formats::DataRecord;
use fisao_formats::data_record::{FileDigests, RowDigest};
use fisao_formats::documents::{check_output_file, write_json};
use fisao_models::generation::Sampling;
use fisao_verifier::calibration::{Calibration, UnlabelledFit};
use fisao_verifier::regions::RegionWeights;

use crate::arguments::CalibrateArguments;
use crate::bundle::{Pair, Policy, warn_of_photographs};
use crate::calibrations::{Setting, image_digest, label_free_views};
use crate::ground_truth::{self, Annotations};
use crate::reporter::Reporter;
use crate::response_file::ResponseFile;
use crate::score_settings::ScoreSettings;
use crate::tasks::{ImageTasks, checked_images};
use crate::vocabulary::Vocabulary;
use crate::{interrupt, output, prospects, settings, text_cache};

/// What the captions depend on.
fn record(
    arguments: &CalibrateArguments,
    sampling: &Sampling,
    policy: &Policy,
    source: &ImageTasks<'_>,
    reporter: &Reporter,
) -> anyhow::Result<DataRecord> {
    let mut files = FileDigests::default();
    files.read((0..source.count()).map(|at| source.file(at)))?;
    let rows =
        (0..source.count()).map(|at| RowDigest::new([source.id(at)], files.of(source.file(at))));
    let model = &arguments.pair.model;
    let Sampling { max_new_tokens, temperature, seed } = sampling;
    let adapter =
        policy.adapter_identity(reporter)?.map_or_else(String::new, |adapter| adapter.sha256);
    let precision = format!("{:?}, activations {:?}", model.dtype, model.activation_dtype);
    Ok(DataRecord::new(rows.collect())
        .with_input("version of fisao", env!("CARGO_PKG_VERSION"))
        .with_input("model", policy.identity(reporter)?.sha256)
        .with_input("adapter", adapter)
        .with_input("precision (--dtype, --activation-dtype)", precision)
        .with_input("prompt (--prompt)", &arguments.prompt)
        .with_input("length (--max-new-tokens)", max_new_tokens.to_string())
        .with_input("temperature (--temperature)", temperature.to_string())
        .with_input("seed (--seed)", seed.to_string()))
}

/// Captions the images and scores the mentions; returns the digests of the images, too.
fn score_captions(
    policy: &Policy,
    scorer: &mut MentionScorer,
    source: &ImageTasks<'_>,
    (sampling, truth): (&Sampling, Option<&[BTreeSet<String>]>),
    (kept, stop): (&ResponseFile, &StopFlag),
    reporter: &Reporter,
) -> anyhow::Result<(Calibration, Vec<String>)> {
    let progress = reporter.phase("caption", source.count() as u64);
    let advance = |done| progress.advance(done as u64);
    let control = RunControl { kept: Some(kept), ..RunControl::new(&advance).until(stop) };
    let length = source.longest_prompt() + sampling.max_new_tokens;
    let mut images = Vec::with_capacity(source.count());
    let mut note = |task: &Task| images.push(image_digest(task));
    let model = &policy.model;
    let (captions, seen) =
        describe_all(model, scorer, source, length, sampling, control, &mut note)?;
    progress.finish();
    let views;
    let supervision = if let Some(truth) = truth {
        Supervision::Annotations(truth)
    } else {
        let (how, control) = ((sampling, length), (Some(kept as &dyn ResponseStore), stop));
        views = label_free_views(model, scorer, source, &captions, how, control, reporter)?;
        Supervision::None(&views)
    };
    Ok((calibrate(&captions, &seen, scorer, supervision)?, images))
}

/// What the user is told after Ctrl-C. Whatever else went wrong would go wrong again with the same responses, but for a full disk.
fn stopped(error: anyhow::Error, kept: ResponseFile) -> anyhow::Error {
    let message = format!(
        "stopped; the responses so far are kept in {}, and the same command resumes",
        kept.path().display()
    );
    if !matches!(error.downcast_ref(), Some(AlignError::Stopped | AlignError::Unkept(_))) {
        kept.finish();
    }
    interrupt::told(error, || message)
}

pub(crate) fn run(arguments: &CalibrateArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let config = settings::resolve(&AlignConfig::default(), &arguments.settings)?;
    let sampling = arguments.sampling.resolve()?;
    check_output_file(&arguments.output)?;
    let folder = std::slice::from_ref(&arguments.images);
    let images = checked_images(folder, &arguments.damaged, reporter)?;
    let device = arguments.pair.model.device.open(reporter)?.device;
    let score = ScoreSettings::of_run(&config);
    let Pair { policy, verifier: loaded, views } =
        Pair::from_arguments(&arguments.pair, score, &device, reporter)?;
    let embedded = policy.is_embedded();
    warn_of_photographs(embedded, images.iter().map(|image| image.size), reporter);
    let words = Vocabulary::from_arguments(&arguments.vocabulary, embedded, None)?;
    let truth = match &arguments.annotations {
        Some(path) => {
            let (files, vocabulary) = (std::slice::from_ref(path), words.for_chair()?);
            let truth = ground_truth::read(files, Rules::Strict, &vocabulary, reporter)?;
            Some(Annotations::new(truth))
        }
        None => None,
    };
    let setting = Setting { verifier: &loaded, vocabulary: &words };
    let vocabulary = words.for_mentions()?;
    let mut verifier = loaded.verifier.clone();
    text_cache::learn(&loaded, &mut verifier, &vocabulary, reporter)?;
    let mut scorer =
        MentionScorer { tokenizer: Arc::clone(&policy.tokenizer), vocabulary, verifier };
    let source = ImageTasks::new(&policy, images, &arguments.prompt)?.with_verifier(views);
    policy.check_length(source.longest_prompt(), sampling.max_new_tokens)?;
    let truth: Option<Vec<BTreeSet<String>>> = truth
        .as_ref()
        .map(|truth| (0..source.count()).map(|at| truth.objects_of(&source.id(at))).collect())
        .transpose()?;
    let stop = StopFlag::new(interrupt::flag()?);
    let record = record(arguments, &sampling, &policy, &source, reporter)?;
    let kept = ResponseFile::open(&arguments.output, record, |at| source.id(at), reporter)?;
    let found = score_captions(
        &policy,
        &mut scorer,
        &source,
        (&sampling, truth.as_deref()),
        (&kept, &stop),
        reporter,
    );
    let (mut calibration, images) = match found {
        Ok(found) => found,
        Err(error) => return Err(stopped(error, kept)),
    };
    setting.sign(&mut calibration, &policy, &images, reporter)?;
    write_json(&arguments.output, &calibration)?;
    kept.finish();
    let auc = if calibration.unlabelled.is_some() { "estimated AUC" } else { "AUC" };
    output::line(format!(
        "{auc} {:.3}; correct {:.3} ± {:.3} ({}), hallucinated {:.3} ± {:.3} ({})",
        calibration.auc,
        calibration.mu_correct,
        calibration.sigma_correct,
        calibration.correct,
        calibration.mu_hallucinated,
        calibration.sigma_hallucinated,
        calibration.hallucinated,
    ))?;
    match calibration.unlabelled {
        Some(UnlabelledFit::TwoGaussians) => {
            output::line("without annotations: two normal distributions under the scores")?;
        }
        Some(UnlabelledFit::ThreeViews) => output::line(
            "without annotations: three views of every mention, its score, its log-probability without the image and how \
             many of four other captions agree",
        )?,
        None => {}
    }
    if let Some(RegionWeights { patches }) = calibration.weights {
        let fractions = if patches > 0.0 {
            format!(
                "{:.0} % whole image, {:.0} % best patch",
                100.0 * (1.0 - patches),
                100.0 * patches
            )
        } else {
            "the whole image alone; patches do not raise the AUC, or cost too much to be tried"
                .to_owned()
        };
        output::line(format!("score.regions = \"auto\": {fractions}"))?;
    }
    match prospects::lines(&calibration, &config.reward, None) {
        Ok(lines) => lines.iter().try_for_each(output::line),
        Err(error) => {
            reporter.warn(error, Some("training with this calibration would be refused"));
            Ok(())
        }
    }
}
