//! The recipe for the built-in model, which demo, comparisons, studies and benchmarks share.

use fisao_align::AlignConfig;
use fisao_align::objective::Objective;
use fisao_align::ppo::{KlConfig, PpoConfig};

/// Settings the demo aligns its small model with; `--set` changes them.
pub fn demo_config(seed: u64, quick: bool) -> AlignConfig {
    let mut config = AlignConfig { seed, ..AlignConfig::default() };
    config.align.learning_rate = Some(6e-4);
    config.align.iterations = if quick { 4 } else { 60 };
    config.align.images_per_iteration = 64;
    // The optimiser's first steps are its largest ones.
    config.align.warmup_iterations = if quick { 0 } else { 2 };
    let kl = KlConfig { coefficient: 0.1, ..KlConfig::default() };
    config.objective = Objective::Ppo(PpoConfig {
        value_learning_rate: 5e-3,
        lambda: 0.8,
        kl,
        ..PpoConfig::default()
    });
    config
}
