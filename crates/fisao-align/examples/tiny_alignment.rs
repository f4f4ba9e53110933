//! A whole alignment run on a small random policy: `cargo run --release -p fisao-align --example tiny_alignment`.
//!
//! Models, tokenizer and tasks come from the test helpers; with a checkpoint they come from `fisao-formats`.
#![allow(clippy::print_stdout, reason = "it is there to print")]

use fisao_align::AlignConfig;
use fisao_align::trainer::Trainer;
use fisao_testkit::tiny_policy::{Noise, calibration, models};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = AlignConfig { max_new_tokens: 12, ..AlignConfig::default() };
    config.align.iterations = 20;
    config.align.images_per_iteration = 12;
    config.align.learning_rate = Some(1e-2);
    config.lora.rank = 4;
    let (policy, scorer) = models();
    let mut trainer = Trainer::new(config, policy, scorer, &calibration(0.0), &Noise, None)?;
    println!("{} trainable parameters", trainer.trainable());
    while !trainer.is_finished() {
        let metrics = trainer.iterate(&mut |_event| {})?;
        println!(
            "iteration {:2}: reward {:+.2}, {:.1} mentions and {:.1} tokens per caption, break-even precision {:.2}",
            metrics.iteration,
            metrics.reward_mean,
            metrics.mentions_per_caption,
            metrics.length_mean,
            metrics.break_even.unwrap_or_default(),
        );
    }
    // What a run saves to go on later; `trainer.policy()` has the adapter.
    let state = trainer.state();
    println!("{} tensors learned in {} iterations", state.parameters.len(), state.iteration);
    Ok(())
}
