//! What verifier-guided decoding costs and gains on a built-in synthetic dataset, without any training:
//!
//! ```text
//! cargo run --release -p fisao-runs --example guided -- hard
//! cargo run --release -p fisao -- demo --world hard --output runs/hard
//! cargo run --release -p fisao-runs --example guided -- hard 0 0 runs/hard/adapter
//! ```
//!
//! Prints a table in Markdown: captions of 300 test scenes by the base model, greedy; with guidance at several precisions; and the best
//! of 4 sampled ones. The dataset may be followed by the seed, by noise that is added to the scores, and by a trained adapter, with which
//! the same is done again.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use fisao_align::captions::{best_of, describe};
use fisao_align::guided::{Guidance, Guide, GuidedConfig, caption_guided};
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::tasks::Task;
use fisao_align::token_rewards::AdditionalRewards;
use fisao_align::{AlignConfig, RunControl, StopFlag};
use fisao_formats::adapter::VisionAdapter;
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_runs::bundle::embedded;
use fisao_runs::demo_config::demo_config;
use fisao_runs::device::{OpenDevice, cpu};
use fisao_runs::reporter::Reporter;
use fisao_runs::world::{DemoSetup, evaluate_captions};
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::{Calibration, Labels};
use fisao_verifier::rewards::RewardRule;

/// Scenes that calibration captions, and scenes that are captioned for the table.
const CALIBRATION: usize = 512;
const TEST: usize = 300;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let world = match arguments.next().as_deref() {
        Some("hard") => WorldKind::Hard,
        _ => WorldKind::Clear,
    };
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse());
    let seed: u64 = seed.context("the seed is a number")?;
    let (mut config, reporter) = (demo_config(seed, false), Reporter::silent());
    if let Some(noise) = arguments.next() {
        config.score.noise = noise.parse().context("the noise is a number")?;
    }
    let setup = DemoSetup::open(&config, world, &OpenDevice::cpu(), &reporter)?;
    let (tasks, truth) = setup.tasks(Split::Calibration, seed, CALIBRATION).labelled()?;
    let (known, control) = ((&tasks[..], &truth[..]), (None, &StopFlag::default()));
    let calibration = setup.calibrate(&config, Labels::Annotations, known, control, &reporter)?;
    let (tasks, truth) = setup.tasks(Split::Test, seed, TEST).labelled()?;
    println!("{world:?}, seed {seed}, AUC {:.3}\n", calibration.auc);
    println!(
        "| model | decoding | CHAIR_I | recall | length | repeated | taken back | let through | extra tokens | tokens/s |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut comparison = Comparison {
        table: Table { tasks: &tasks, truth: &truth },
        scorer: setup.calibrated_scorer(&calibration)?,
        calibration: &calibration,
        config: &config,
    };
    comparison.print("base", &setup.policy.model)?;
    if let Some(adapter) = arguments.next() {
        let adapter = Some((Path::new(&adapter), VisionAdapter::Refuse));
        let tuned = embedded(world)?.policy(adapter, &cpu(), &reporter)?;
        comparison.print("trained", &tuned.model)?;
    }
    Ok(())
}

/// Ways of decoding that are compared.
struct Comparison<'a> {
    table: Table<'a>,
    scorer: MentionScorer,
    calibration: &'a Calibration,
    config: &'a AlignConfig,
}

impl Comparison<'_> {
    /// Prints a row for each way of decoding.
    fn print(&mut self, name: &str, model: &VisionLanguageModel) -> anyhow::Result<()> {
        let Self { table, scorer, calibration, config } = self;
        let sampling = |temperature| Sampling {
            max_new_tokens: config.max_new_tokens,
            temperature,
            seed: config.seed,
        };
        let control = RunControl::new(&|_| {});
        let started = Instant::now();
        let (captions, _) = describe(model, scorer, table.tasks, &sampling(0.0), control)?;
        table.print((name, "greedy"), captions, None, started)?;
        for precision in [0.5, 0.7, 0.8, 0.9, 0.95] {
            let guided = GuidedConfig { precision, ..GuidedConfig::default() };
            let guide = Guide::new(guided, calibration)?;
            let started = Instant::now();
            let (asked, greedy) = ((table.tasks, 0), sampling(0.0));
            let written = caption_guided(model, scorer, &guide, None, asked, &greedy, control)?;
            let (captions, guidance): (Vec<_>, Vec<_>) = written.into_iter().unzip();
            let decoding = format!("guided, {precision}");
            table.print((name, &decoding), captions, Some(&guidance), started)?;
        }
        let rule = RewardRule::new(&config.reward, calibration)?;
        let rewards = (&rule, &AdditionalRewards::default());
        let (started, asked) = (Instant::now(), (table.tasks, 0));
        let (captions, _) = best_of(model, scorer, rewards, asked, 4, &sampling(1.0), control)?;
        table.print((name, "best of 4, temperature 1"), captions, None, started)
    }
}

/// What the captions are measured against.
struct Table<'a> {
    tasks: &'a [Task],
    truth: &'a [BTreeSet<String>],
}

impl Table<'_> {
    /// Prints a row. Tokens per second are of the captions, the images' encoding counted.
    fn print(
        &self,
        (model, decoding): (&str, &str),
        captions: Vec<ScoredResponse>,
        guidance: Option<&[Guidance]>,
        started: Instant,
    ) -> anyhow::Result<()> {
        let seconds = started.elapsed().as_secs_f64();
        let count = captions.len() as f64;
        let repeated: usize = captions.iter().map(ScoredResponse::repeated).sum();
        let tokens: usize = captions.iter().map(|caption| caption.tokens.len()).sum();
        let found = evaluate_captions(captions, self.tasks, self.truth)?;
        let percent = |rate: Option<f64>| format!("{:.1} %", 100.0 * rate.unwrap_or(f64::NAN));
        let per_caption = |count_of: fn(&Guidance) -> usize| match guidance {
            Some(all) => format!("{:.2}", all.iter().map(count_of).sum::<usize>() as f64 / count),
            None => String::new(),
        };
        println!(
            "| {model} | {decoding} | {} | {} | {:.1} | {:.2} | {} | {} | {} | {:.0} |",
            percent(found.chair.chair_i),
            percent(found.chair.recall),
            found.mean_length,
            repeated as f64 / count,
            per_caption(|guidance| guidance.taken_back.len()),
            per_caption(|guidance| guidance.let_through),
            per_caption(|guidance| guidance.extra_tokens),
            tokens as f64 / seconds,
        );
        Ok(())
    }
}
