//! What an iteration reports.

use fisao_models::generation::FinishReason;

use super::Trainer;
use crate::events::{IterationMetrics, PhaseSeconds};
use crate::mentions::ScoredResponse;
use crate::ppo::{KlController, KlEstimator, explained_variance};
use crate::recall::RecallController;
use crate::rollout::Rollout;
use crate::token_rewards::response_reward;
use crate::update::UpdateReport;

impl Trainer<'_> {
    pub(super) fn measure(
        &self,
        rollout: &Rollout,
        report: &UpdateReport,
        seconds: PhaseSeconds,
    ) -> IterationMetrics {
        let responses = rollout.captions.len();
        let tokens: usize = rollout.captions.iter().map(|caption| caption.tokens.len()).sum();
        let per_response = |total: f64| total / responses.max(1) as f64;
        let per_token = |total: f64| total / tokens.max(1) as f64;
        let sums: Vec<f64> = rollout.rewards.iter().map(|row| response_reward(row)).collect();
        let mean = per_response(sums.iter().sum());
        let variance = per_response(sums.iter().map(|sum| (sum - mean).powi(2)).sum());
        let scores: Vec<f64> =
            rollout.captions.iter().flat_map(|caption| caption.scores.iter().copied()).collect();
        // One reward for the whole response says nothing about single words.
        let of_words = !self.rule.needs_sentence_score();
        let fraction = |test: fn(f64) -> bool| {
            let hits =
                scores.iter().filter(|&&score| test(self.rule.mention_reward(score))).count();
            (of_words && !scores.is_empty()).then(|| hits as f64 / scores.len() as f64)
        };
        let repeated: usize = rollout.captions.iter().map(ScoredResponse::repeated).sum();
        let stopped = rollout.captions.iter().filter(|c| c.finish == FinishReason::Stop).count();
        let rates = self.config.learning_rates(self.iteration);
        let credit = rollout.credit.as_ref();
        let critic = credit.and_then(|credit| credit.critic.as_ref());
        let own = |value: f64| rollout.sampled.then_some(value);
        let correct = rollout.correct.as_ref();
        let surplus = correct.and(self.recall.as_ref()).map(RecallController::estimate);
        IterationMetrics {
            iteration: self.iteration + 1,
            responses,
            tokens,
            reward_mean: mean,
            reward_std: variance.sqrt(),
            mentions_per_caption: per_response(scores.len() as f64),
            rewarded_fraction: fraction(|reward| reward > 0.0),
            penalised_fraction: fraction(|reward| reward < 0.0),
            neutral_fraction: fraction(|reward| reward == 0.0),
            repeated_fraction: (!scores.is_empty()).then(|| repeated as f64 / scores.len() as f64),
            break_even: of_words.then(|| self.rule.break_even()),
            expected_correct: correct.map(|counts| counts.policy),
            expected_correct_base: correct.map(|counts| counts.base),
            recall_surplus: surplus.map(|estimate| estimate.surplus),
            recall_surplus_error: surplus.map(|estimate| estimate.error),
            length_ratio: correct.and(self.length).and_then(|controller| controller.ratio()),
            length_bonus: rollout.length_bonus,
            length_mean: per_response(tokens as f64),
            eos_rate: per_response(stopped as f64),
            entropy: rollout.entropy,
            kl: own(per_response(rollout.divergence(KlEstimator::K1))),
            kl_per_token: own(per_token(rollout.divergence(KlEstimator::K3))),
            kl_coefficient: self.kl.as_ref().map(KlController::coefficient),
            advantage_mean: credit.map(|credit| credit.whitening.mean),
            advantage_std: credit.map(|credit| credit.whitening.standard_deviation),
            value_explained_variance: critic.and_then(|critic| {
                explained_variance(&critic.values.concat(), &critic.returns.concat())
            }),
            pairs: rollout.items.pairs(),
            objective: report.means.means(),
            policy_loss: report.policy_loss,
            value_loss: report.value_loss,
            clip_fraction: credit.map(|_| report.policy.clip_fraction()),
            approx_kl: report.policy.approx_kl(),
            ratio_max: report.policy.ratio_max(),
            sampler_gap: rollout.sampler_gap(),
            sampler_kl: rollout.sampler_divergence(KlEstimator::K3).map(per_token),
            epochs_done: report.epochs,
            steps: report.steps,
            grad_norm: report.grad_norm,
            learning_rate: rates.policy,
            value_learning_rate: critic.map(|_| rates.value),
            images_encoded: rollout.images_encoded,
            seconds,
        }
    }
}
