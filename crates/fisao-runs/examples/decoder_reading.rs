//! How well the built-in model's own decoder tells its correct from its hallucinated mentions, by the layers that are read.
//!
//! ```text
//! cargo run --release -p fisao-runs --example decoder_reading -- hard
//! ```
//!
//! Prints a line of Markdown for each: AUC and Brier score of 512 labelled captions sampled at temperature 1.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::sync::Arc;

use fisao_align::RunControl;
use fisao_align::calibrate::{Supervision, calibrate};
use fisao_align::captions::describe;
use fisao_align::centring::correct_mentions;
use fisao_align::encoding::encode;
use fisao_align::mentions::MentionScorer;
use fisao_models::generation::Sampling;
use fisao_runs::bundle::LoadedVerifier;
use fisao_runs::demo_config::demo_config;
use fisao_runs::device::OpenDevice;
use fisao_runs::reporter::Reporter;
use fisao_runs::score_settings::ScoreSettings;
use fisao_runs::world::DemoSetup;
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::ProbabilityModel;
use fisao_verifier::regions::{ImageEmbedding, ScoreConfig};
use fisao_verifier::scorer::VerifierError;
use fisao_verifier::templates::Templates;

/// Images that are captioned.
const IMAGES: usize = 512;

fn main() -> anyhow::Result<()> {
    let hard = std::env::args().nth(1).is_some_and(|world| world == "hard");
    let world = if hard { WorldKind::Hard } else { WorldKind::Clear };
    let (config, reporter) = (demo_config(0, false), Reporter::silent());
    let setup = DemoSetup::open(&config, world, &OpenDevice::cpu(), &reporter)?;
    let (tasks, truth) = setup.tasks(Split::Calibration, 0, IMAGES).labelled()?;
    let vocabulary = setup.words.for_mentions()?;
    let mut known: Option<Vec<_>> = None;
    println!("| layers | scores | centred | AUC | Brier |\n|---:|---|---|---:|---:|");
    for reading_layers in [0.01, 0.5, 1.0] {
        for centred in [false, true] {
            let score = ScoreConfig { reading_layers, centred, ..ScoreConfig::default() };
            let settings = ScoreSettings { templates: Templates::default(), score };
            let loaded = LoadedVerifier::of_decoder(&setup.policy, settings)?;
            let model = &setup.policy.model;
            let images = encode(model, &loaded.verifier, &tasks)?.embeddings;
            let of = |image: &ImageEmbedding| ImageEmbedding {
                whole: image.whole.iter().map(|reading| reading.exp()).collect(),
                parts: Vec::new(),
            };
            let probabilities: Vec<ImageEmbedding> = images.iter().map(of).collect();
            let scorer = MentionScorer {
                tokenizer: Arc::clone(&setup.policy.tokenizer) as _,
                vocabulary: vocabulary.clone(),
                verifier: loaded.verifier.clone(),
            };
            if known.is_none() {
                let (max_new_tokens, seed) = (config.max_new_tokens, 0);
                let sampling = Sampling { max_new_tokens, temperature: 1.0, seed };
                let control = RunControl::new(&|_| {});
                let scorer = &mut scorer.clone();
                known = Some(describe(model, scorer, &tasks, &sampling, control)?.0);
            }
            let captions = known.as_deref().unwrap_or_default();
            for (scores, images) in [("log", &images), ("probability", &probabilities)] {
                let mut scorer = scorer.clone();
                let names = vocabulary.forms().map(|(form, _)| form);
                scorer.verifier.embed_names(names)?;
                let supervision = Supervision::Annotations(&truth);
                let calibration = calibrate(captions, images, &mut scorer, supervision)?;
                let correct = correct_mentions(captions, &vocabulary, &truth);
                let mentions = captions.iter().flat_map(|caption| {
                    let image = &images[caption.task];
                    caption.mentions.iter().map(move |mention| (image, mention))
                });
                let squares = mentions.zip(&correct).map(|((image, mention), &correct)| {
                    let score = scorer.verifier.score(image, &mention.form)?;
                    let probability = calibration.probability(score, ProbabilityModel::default());
                    Ok::<_, VerifierError>((probability - f64::from(u8::from(correct))).powi(2))
                });
                let squares = squares.collect::<Result<Vec<f64>, _>>()?;
                let brier = squares.iter().sum::<f64>() / correct.len() as f64;
                let auc = calibration.auc;
                println!("| {reading_layers} | {scores} | {centred} | {auc:.3} | {brier:.4} |");
            }
        }
    }
    Ok(())
}
