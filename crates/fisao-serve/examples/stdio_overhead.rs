//! What lines of JSON cost: token rewards of 64 completions, asked of the engine and asked through `serve --stdio`'s loop, in turns.
//!
//! ```sh
//! cargo run --release --workspace --example stdio_overhead -- IMAGES calibration.json
//! ```
//!
//! The built-in verifier, images as base64, a caption of 32 words with one token each for every image of the folder in turn.

#![expect(clippy::print_stdout, reason = "it reports to whoever runs it")]
#![expect(
    clippy::default_trait_access,
    reason = "the type is of a crate that this one does not name"
)]

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fisao_runs::bundle::{ModelSource, PairSource};
use fisao_runs::device::OpenDevice;
use fisao_runs::score_settings::{ScoreChoice, ScoreSettings};
use fisao_runs::{Reporter, calibrations};
use fisao_serve::engine::{Engine, EngineSource, FileAccess};
use fisao_serve::protocol::{TokenRewardsParams, params};
use fisao_serve::stdio;
use fisao_verifier::rewards::RewardConfig;
use serde_json::{Value, json};

/// Completions at once.
const SAMPLES: usize = 64;
/// Turns that are measured.
const TURNS: usize = 15;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (images, calibration) =
        arguments.next().zip(arguments.next()).context("IMAGES and CALIBRATION are needed")?;
    let calibration = calibrations::read(&calibration)?;
    let world = Default::default();
    let source = EngineSource {
        pair: PairSource {
            model: ModelSource::default(),
            verifier: None,
            allow_mismatched_verifier: false,
            world,
        },
        scoring: ScoreSettings::chosen(&ScoreChoice::default(), Some(&calibration)),
        calibration: Some(calibration),
        vocabulary: None,
        rewards: RewardConfig::default(),
        files: FileAccess::None,
    };
    let engine = Engine::open(&source, &OpenDevice::cpu(), &Reporter::silent())?;
    let asked = question(&images)?;
    let line = json!({ "id": 1, "method": "token_rewards", "params": asked }).to_string();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let given: TokenRewardsParams =
            params(asked.clone()).map_err(|failure| anyhow::anyhow!(failure.message))?;
        let started = Instant::now();
        engine.token_rewards(given).map_err(|failure| anyhow::anyhow!(failure.message))?;
        let direct = started.elapsed().as_secs_f64();
        let mut replies = Vec::new();
        let started = Instant::now();
        stdio::serve(&engine, Cursor::new(&line), &mut replies, usize::MAX)?;
        let spoken = started.elapsed().as_secs_f64();
        anyhow::ensure!(
            !String::from_utf8_lossy(&replies).contains("\"error\""),
            "the engine refused"
        );
        // The first turn learns the names.
        if turn > 0 {
            inside.push(direct);
            outside.push(spoken);
        }
    }
    let (inside, outside) = (median(&mut inside), median(&mut outside));
    println!(
        "{SAMPLES} completions: {:.1} ms inside, {:.1} ms by lines of {:.1} MB, ratio {:.3}",
        1e3 * inside,
        1e3 * outside,
        line.len() as f64 / 1e6,
        outside / inside
    );
    Ok(())
}

fn question(folder: &Path) -> anyhow::Result<Value> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} holds no images", folder.display());
    let text = "This image shows a dog and a cat beside a car and it also contains a bear on the left with a zebra and an elephant near a person with one more dog.";
    let mut spans: Vec<[usize; 2]> = Vec::new();
    for word in text.split_inclusive(' ') {
        let start = spans.last().map_or(0, |span| span[1]);
        spans.push([start, start + word.chars().count()]);
    }
    let sample = |file: &PathBuf| {
        let image = STANDARD.encode(std::fs::read(file)?);
        Ok(json!({ "image": { "base64": image }, "text": text, "token_spans": spans }))
    };
    let samples: Vec<Value> =
        files.iter().cycle().take(SAMPLES).map(sample).collect::<anyhow::Result<_>>()?;
    Ok(json!({ "samples": samples }))
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
