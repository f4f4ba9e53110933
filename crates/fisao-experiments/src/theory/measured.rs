//! The same quantities measured on the built-in synthetic datasets, beside what the closed forms predict for them.
//!
//! Nothing here has to agree: real scores are not normal, and tokens share parameters. The deviation says how far the theory carries.

use fisao_align::StopFlag;
use fisao_models::generation::Sampling;
use fisao_runs::Reporter;
use fisao_runs::demo_config::demo_config;
use fisao_runs::device::OpenDevice;
use fisao_runs::world::DemoSetup;
use fisao_scenes::{Split, WorldKind};
use fisao_theory::normal::d_prime;
use fisao_theory::rewards::Binormal;
use fisao_theory::{deletion, rewards};
use fisao_verifier::calibration::{Calibration, Correctness, Labels, Statistic};
use fisao_verifier::regions::Regions;
use serde::Serialize;

use super::gradients::{GradientStudy, Granularity};

/// Scenes that a dataset's calibration captions, by sampling.
const SCENES: usize = 192;

/// A quantity of a built-in dataset.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measurement {
    /// Name of the dataset, and of what the verifier scores where that is not its default.
    pub(super) dataset: &'static str,
    /// Name of the check whose formula predicts it.
    pub(super) check: &'static str,
    /// What it is.
    pub(super) what: String,
    /// By the closed form, from the AUC and counts measured here.
    pub(super) predicted: f64,
    /// What was found.
    pub(super) measured: f64,
    /// Measured/predicted − 1.
    pub(super) deviation: f64,
}

/// Calibrates on both datasets, and compares.
pub(super) fn measure(seed: u64, reporter: &Reporter) -> anyhow::Result<Vec<Measurement>> {
    let mut found = Vec::new();
    // The last is the weakest verifier that the built-in encoders give: it does not look for words in parts of the image.
    for (kind, regions, dataset) in [
        (WorldKind::Clear, Regions::default(), "clear"),
        (WorldKind::Hard, Regions::default(), "hard"),
        (WorldKind::Hard, Regions::Whole, "hard, whole image"),
    ] {
        let mut config = demo_config(seed, true);
        config.score.regions = regions;
        config.align.temperature = 1.0;
        let setup = DemoSetup::open(&config, kind, &OpenDevice::cpu(), reporter)?;
        let (tasks, truth) = setup.tasks(Split::Calibration, seed, SCENES).labelled()?;
        let known = (&tasks[..], &truth[..]);
        let control = (None, &StopFlag::default());
        let calibration =
            setup.calibrate(&config, Labels::Annotations, known, control, reporter)?;
        let mut add = |check, what: String, predicted: f64, measured: f64| {
            let deviation = measured / predicted - 1.0;
            found.push(Measurement { dataset, check, what, predicted, measured, deviation });
        };
        of_scores(&calibration, &mut add)?;
        let sampling = Sampling {
            max_new_tokens: config.max_new_tokens,
            temperature: config.align.temperature,
            seed,
        };
        let study = GradientStudy::run(&setup, &calibration, &config, &sampling, reporter)?;
        of_gradients(&study, &mut add);
    }
    Ok(found)
}

/// Variance of the estimated correctness, and what deletion removes.
fn of_scores(
    calibration: &Calibration,
    add: &mut dyn FnMut(&'static str, String, f64, f64),
) -> anyhow::Result<()> {
    let (auc, correct) = (calibration.auc, calibration.prior_correct);
    let mentions = calibration.correct + calibration.hallucinated;
    let model = Binormal::with_auc(auc.min(1.0 - 1e-6), correct);
    let form = rewards::Form::CorrectedPosterior { break_even: 0.5 };
    add(
        "corrected-posterior-variance",
        format!("variance of the estimated correctness, AUC {auc:.3}, {mentions} mentions"),
        model.moments(form).relative_variance(correct),
        Correctness::new(calibration, Statistic::Posterior)?.noise().powi(2),
    );
    for point in calibration.prospects(Statistic::Posterior)?.frontier {
        // A few mentions are no frontier.
        if point.correct_lost * calibration.correct as f64 >= 3.0 {
            add(
                "deletion-removed",
                format!(
                    "hallucinated mentions removed at {:.1} % of the correct ones lost, AUC {auc:.3}",
                    100.0 * point.correct_lost
                ),
                deletion::removed(d_prime(auc.min(1.0 - 1e-6)), point.correct_lost),
                point.hallucinated_removed,
            );
        }
    }
    Ok(())
}

/// Variance of the gradient under one reward per response over that under rewards per token.
fn of_gradients(study: &GradientStudy, add: &mut dyn FnMut(&'static str, String, f64, f64)) {
    let sentence = study.variance(Granularity::Sentence);
    for (check, granularity, name) in [
        ("credit-length", Granularity::Token { lambda: 0.0 }, "credited to their own tokens"),
        ("credit-gae", Granularity::Token { lambda: 0.8 }, "GAE 0.8"),
        ("credit-rewards-to-go", Granularity::Token { lambda: 1.0 }, "rewards to go"),
    ] {
        add(
            check,
            format!(
                "gradient variance, one reward per response over rewards per token, {name}; {:.0} tokens, {:.1} mentions",
                study.mean_tokens, study.mean_mentions
            ),
            study.predicted_ratio(granularity),
            sentence / study.variance(granularity),
        );
    }
}
