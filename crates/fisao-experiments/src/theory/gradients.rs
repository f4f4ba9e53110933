//! Variance of the policy gradient of a built-in model at fixed weights, over resampled responses.

use fisao_align::captions::caption;
use fisao_align::encoding::{EncodedImages, encode};
use fisao_align::mentions::ScoredResponse;
use fisao_align::sampling::Request;
use fisao_align::tasks::Task;
use fisao_align::update::Learner;
use fisao_align::{AlignConfig, RunControl};
use fisao_models::generation::Sampling;
use fisao_models::parallel::parallel_chunks;
use fisao_models::parameters::{Parameters as _, collect_all_gradients, from_floats};
use fisao_models::sequences::Example;
use fisao_runs::Reporter;
use fisao_runs::world::DemoSetup;
use fisao_scenes::Split;
use fisao_theory::credit::{Credit, Estimator, GaussianBandit, advantages};
use fisao_theory::estimate::VectorMoments;
use fisao_verifier::calibration::{Calibration, Correctness, Statistic};

/// Scenes whose responses are resampled.
const SCENES: usize = 8;
/// Responses to each.
const RESPONSES: usize = 16;

pub(super) use fisao_theory::credit::Credit as Granularity;

/// What the variance is measured under, in order.
const MEASURED: [Credit; 4] = [
    Credit::Sentence,
    Credit::Token { lambda: 0.0 },
    Credit::Token { lambda: 0.8 },
    Credit::Token { lambda: 1.0 },
];

/// Variances at fixed weights, and what predicts their ratios.
#[derive(Clone, Debug)]
pub(super) struct GradientStudy {
    /// Trace of the gradient's covariance over responses to one image, mean over images; as [`MEASURED`].
    variances: [f64; 4],
    /// Mean tokens of a response.
    pub(super) mean_tokens: f64,
    /// Mean scored mentions of a response.
    pub(super) mean_mentions: f64,
    /// Variance of the truth about a mention, π(1 − π).
    signal: f64,
    /// Variance that the verifier's errors add to it.
    noise: f64,
}

impl GradientStudy {
    /// Samples responses of the base model with a fresh adapter, and differentiates each under every granularity. Rewards are the
    /// estimated correctness of mentions less its mean, on the last token of each.
    pub(super) fn run(
        setup: &DemoSetup,
        calibration: &Calibration,
        config: &AlignConfig,
        sampling: &Sampling,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let mut policy = setup.policy.model.clone();
        policy.add_lora(&config.lora, config.seed)?;
        let mut scorer = setup.calibrated_scorer(calibration)?;
        let (tasks, _) = setup.tasks(Split::Train, sampling.seed, SCENES).labelled()?;
        let encoded = encode(&policy, &scorer.verifier, &tasks)?;
        let streams: Vec<u64> = (0..SCENES as u64).collect();
        let request = Request {
            tasks: &tasks,
            encoded: &encoded,
            streams: &streams,
            samples: RESPONSES,
            sampling,
            control: RunControl::new(&|_| {}),
        };
        let responses = caption(&policy, &mut scorer, &request)?;
        let correctness = Correctness::new(calibration, Statistic::Posterior)?;
        let rewards = centred_rewards(&responses, &correctness);
        let learner = Learner { policy, value_head: None };
        let progress = reporter.phase("differentiate responses", responses.len() as u64);
        let groups: Vec<usize> = (0..SCENES).collect();
        let workers = learner.policy.scoring_workers();
        let found = parallel_chunks(&groups, workers, |chunk| {
            let of_group = |&group: &usize| -> anyhow::Result<[f64; 4]> {
                let range = group * RESPONSES..(group + 1) * RESPONSES;
                let data = (&tasks[group], &encoded, group);
                let group = (&responses[range.clone()], &rewards[range]);
                let variances = group_variances(&learner, data, group, sampling.temperature)?;
                progress.advance(RESPONSES as u64);
                Ok(variances)
            };
            chunk.iter().map(of_group).collect::<anyhow::Result<Vec<_>>>()
        });
        progress.finish();
        let mut variances = [0.0; 4];
        for group in found {
            for of_group in group? {
                for (sum, value) in variances.iter_mut().zip(of_group) {
                    *sum += value / SCENES as f64;
                }
            }
        }
        let count = responses.len() as f64;
        let mean = |of: &dyn Fn(&ScoredResponse) -> usize| {
            responses.iter().map(of).sum::<usize>() as f64 / count
        };
        let correct = calibration.prior_correct;
        Ok(Self {
            variances,
            mean_tokens: mean(&|response| response.tokens.len()),
            mean_mentions: mean(&|response| response.mentions.len()),
            signal: correct * (1.0 - correct),
            noise: correctness.noise().powi(2),
        })
    }

    /// Mean total variance under one of the granularities that are measured.
    pub(super) fn variance(&self, granularity: Granularity) -> f64 {
        let found = MEASURED.iter().position(|measured| *measured == granularity);
        self.variances[found.expect("the granularity is one that is measured")]
    }

    /// What the Gaussian bandit of the same length, number of scored tokens, signal and noise says of the ratio.
    pub(super) fn predicted_ratio(&self, granularity: Granularity) -> f64 {
        let bandit = GaussianBandit {
            tokens: self.mean_tokens.round().max(1.0) as usize,
            spacing: (self.mean_tokens / self.mean_mentions).round().max(1.0) as usize,
            slope: self.signal.sqrt(),
            verifier_noise: self.noise.sqrt(),
            ..GaussianBandit::default()
        };
        let of = |credit| bandit.moments(Estimator { credit, baseline: 1.0 }).variance;
        of(Credit::Sentence) / of(granularity)
    }
}

/// ẑ less its mean over all mentions, on the last token of each mention, `[T]` per response.
fn centred_rewards(responses: &[ScoredResponse], correctness: &Correctness) -> Vec<Vec<f64>> {
    let estimates = responses.iter().flat_map(|response| &response.scores);
    let estimates: Vec<f64> = estimates.map(|&score| correctness.estimate(score)).collect();
    let mean = estimates.iter().sum::<f64>() / estimates.len().max(1) as f64;
    let row = |response: &ScoredResponse| {
        let mut rewards = vec![0.0; response.tokens.len()];
        for (mention, &score) in response.mentions.iter().zip(&response.scores) {
            rewards[mention.tokens.end - 1] += correctness.estimate(score) - mean;
        }
        rewards
    };
    responses.iter().map(row).collect()
}

/// Total variance of the gradient over responses to one image, as [`MEASURED`].
fn group_variances(
    learner: &Learner,
    (task, encoded, group): (&Task, &EncodedImages, usize),
    (responses, rewards): (&[ScoredResponse], &[Vec<f64>]),
    temperature: f64,
) -> anyhow::Result<[f64; 4]> {
    let mut replica = learner.clone();
    replica.train_where(&|_| true);
    let features = &encoded.features[group];
    let mut moments: [Option<VectorMoments>; 4] = [const { None }; 4];
    for (response, rewards) in responses.iter().zip(rewards) {
        let example = Example { prompt: &task.prompt, image: 0, response: &response.tokens };
        for (moments, credit) in moments.iter_mut().zip(MEASURED) {
            let (scores, pass) = replica.policy.training_scores(
                None,
                std::slice::from_ref(&example),
                features,
                temperature,
            )?;
            let weights: Vec<f32> =
                advantages(credit, rewards).iter().map(|&advantage| advantage as f32).collect();
            let count = weights.len();
            let weights = from_floats(weights, [count], &replica.policy.device());
            let loss = (scores.log_probs * weights).sum();
            let parts = replica.policy.backward(pass, &loss)?;
            let gradients = collect_all_gradients(&mut replica, &parts)?;
            let gradient: Vec<f64> = gradients.values().flatten().map(|&g| f64::from(g)).collect();
            moments.get_or_insert_with(|| VectorMoments::new(gradient.len())).add(&gradient);
        }
    }
    Ok(moments.map(|moments| moments.map_or(0.0, |moments| moments.total_variance())))
}
