//! A dry run: one step, and what the whole run would take.

use std::time::Instant;

use fisao_align::AlignConfig;
use fisao_align::events::AlignEvent;
use fisao_align::trainer::Trainer;
use fisao_verifier::calibration::{Calibration, fit_annotated};

use crate::duration::duration;
use crate::memory::peak_rss_mb;
use crate::reporter::Reporter;

/// Copies of everything trainable that a saved state holds: values, first and second moments.
const STATE_COPIES: usize = 3;

/// Makes every check and one iteration, and tells what was measured and what follows from it.
pub(super) fn dry_run(
    trainer: &mut Trainer<'_>,
    config: &AlignConfig,
    reporter: &Reporter,
) -> anyhow::Result<String> {
    let phase = reporter.phase("dry run", 1);
    trainer.check_image_matters()?;
    let mut warnings = Vec::new();
    let metrics = trainer.iterate(&mut |event| {
        if let AlignEvent::Warning(warning) = event {
            warnings.push(warning);
        }
    })?;
    let started = Instant::now();
    trainer.run_validation(&mut |_| {})?;
    let validation = started.elapsed().as_secs_f64();
    phase.advance(1);
    phase.finish();
    for warning in warnings {
        reporter.warn(warning.message, Some(&warning.hint));
    }

    let iterations = config.align.iterations;
    let validations = match config.validation_every {
        0 => 2,
        every => 1 + iterations.div_ceil(every),
    };
    let step = metrics.seconds;
    // Images that come up again are not encoded again.
    let encoded =
        first_looks(trainer.tasks(), config) as f64 / config.align.images_per_iteration as f64;
    let again = (step.total() - step.encode) * iterations as f64;
    let whole = again + step.encode * encoded + validation * validations as f64;
    let state = STATE_COPIES * size_of::<f32>() * trainer.trainable();
    let kept = state * (config.checkpoint.keep + 1) + state / STATE_COPIES;
    let card = trainer.policy().language_model().card_peak().map_or_else(String::new, |peak| {
        format!("\nmemory of the card so far: {:.0} MB at most", peak as f64 / 1e6)
    });
    Ok(format!(
        "all checks passed\n\
         one iteration of {iterations}: {} responses, {} tokens, {} optimiser steps, {:.1} s\n\
         \x20 encode {:.1} s, sample {:.1} s, score {:.1} s, compare with the base model {:.1} s, advantages {:.1} s, update {:.1} s\n\
         \x20 {:.2} mentions per response, reward {:+.3} ± {:.3}, sampler against trainer {:.1e} nats\n\
         one validation: {validation:.1} s, {validations} of them\n\
         the whole run: about {}\n\
         memory so far: {:.0} MB at most; a run needs little more, as its responses may grow longer{card}\n\
         disk: about {:.1} MB",
        metrics.responses,
        metrics.tokens,
        metrics.steps,
        step.total(),
        step.encode,
        step.sample,
        step.score + step.reward,
        step.compare,
        step.advantages,
        step.update,
        metrics.mentions_per_caption,
        metrics.reward_mean,
        metrics.reward_std,
        metrics.sampler_gap,
        duration(whole),
        peak_rss_mb(),
        kept as f64 / 1e6,
    ))
}

/// How many of a run's images are encoded: each of so many tasks once where what was made of it is kept, else whenever it comes up.
pub(super) fn first_looks(tasks: usize, config: &AlignConfig) -> usize {
    let visits = config.align.iterations * config.align.images_per_iteration;
    if config.align.feature_cache_mb > 0 { visits.min(tasks) } else { visits }
}

/// A calibration that stands in for one that is not made yet: a step takes the same time with it. Its classes are as far apart as
/// the Gaussians of an AUC of 0.87.
pub(super) fn stand_in() -> anyhow::Result<Calibration> {
    let spread = |mean: f64| (0..100).map(move |at| mean + 0.05 * (f64::from(at) * 2.4).sin());
    let scores: Vec<f64> = spread(0.3).chain(spread(0.2)).collect();
    let correct: Vec<bool> = (0..scores.len()).map(|at| at < 100).collect();
    Ok(fit_annotated(&scores, &correct)?)
}
