//! What holds of rewards whatever the calibration, the settings and the response.

use std::fmt;

use fisao_verifier::calibration::{
    Calibration, Histogram, Histograms, Logistic, ProbabilityModel, SentenceCalibration,
};
use fisao_verifier::rewards::{
    PenaltyWeight, Placement, Response, RewardConfig, RewardForm, RewardRule, ScoredMention,
    thresholds,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::calibration::gaussians;

/// Tokens of the responses below.
const TOKENS: usize = 16;

/// A rule, with what it was made from.
#[derive(Clone)]
struct Bound {
    config: RewardConfig,
    calibration: Calibration,
    rule: RewardRule,
}

/// The rule repeats the other two.
impl fmt::Debug for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, calibration, rule } = self;
        write!(formatter, "{config:?} {calibration:?} κ₋ {}", rule.penalty_weight())
    }
}

/// A response, its scores given in pooled spreads above the middle of the two means.
#[derive(Clone, Debug)]
struct Answer {
    mentions: Vec<ScoredMention>,
    truncated: bool,
    sentence: f64,
}

impl Bound {
    fn new(config: RewardConfig, calibration: Calibration) -> Option<Self> {
        let rule = RewardRule::new(&config, &calibration).ok()?;
        Some(Self { config, calibration, rule })
    }

    /// `r_max`.
    fn most(&self) -> f64 {
        match self.config.form {
            RewardForm::Threshold { max, .. }
            | RewardForm::LogOdds { max, .. }
            | RewardForm::Sentence { max } => max,
            RewardForm::Corrected { .. } => unreachable!("tests of its own: corrected.rs"),
        }
    }

    /// The score so many pooled spreads above the middle of the two means.
    fn score(&self, spreads: f64) -> f64 {
        let c = &self.calibration;
        f64::midpoint(c.mu_correct, c.mu_hallucinated) + spreads * c.sigma
    }

    /// Scores where a formula may bend or turn around, and one anywhere.
    fn knots(&self, spreads: f64) -> Vec<f64> {
        let c = &self.calibration;
        let (plus, minus) = (c.sigma_correct.powi(-2), c.sigma_hallucinated.powi(-2));
        let turn = (c.mu_hallucinated * minus - c.mu_correct * plus) / (minus - plus);
        let mut knots = vec![self.score(spreads), c.mu_correct, c.mu_hallucinated];
        // Where the spreads hardly differ the turn lies too far out for any number to bend there.
        knots.extend(Some(turn).filter(|turn| (turn - self.score(0.0)).abs() < 50.0 * c.sigma));
        match self.config.form {
            RewardForm::Threshold { margin, .. } => {
                let (plus, minus) = thresholds(c, margin).expect("the rule has them");
                knots.extend([plus, minus]);
            }
            RewardForm::LogOdds { target_precision, probability, .. } => {
                knots.extend(c.score_at(target_precision, probability));
            }
            RewardForm::Corrected { .. } | RewardForm::Sentence { .. } => {}
        }
        knots
    }

    /// The steepest r(s) gets. κ₋ acts on the negative side alone, so it steepens nothing below 1.
    ///
    /// * threshold: both branches rise by 1/σ.
    /// * log-odds, logistic: logit p rises by its slope.
    /// * log-odds, two Gaussians: ℓ is a parabola, ℓ″ = c = 1/σ₋² − 1/σ₊², so that ℓ′² − 2cℓ is the
    ///   same everywhere: its derivative is 2ℓ′(ℓ″ − c). At μ₋ both terms are known, ℓ′ = Δ/σ₊² and
    ///   ℓ = log π/(1−π) + log σ₋/σ₊ − Δ²/2σ₊² with Δ = μ₊ − μ₋. r is cut where ℓ leaves
    ///   logit p* ± `r_max`, and up to there ℓ′ is largest at the upper end if c > 0, at the lower
    ///   if c < 0. Where ℓ′² comes out negative the parabola turns before that end: r is constant.
    /// * sentence: mentions earn nothing.
    fn steepest(&self) -> f64 {
        let c = &self.calibration;
        let slope = match self.config.form {
            RewardForm::Threshold { .. } => 1.0 / c.sigma,
            RewardForm::LogOdds { probability: ProbabilityModel::Logistic, .. } => c.logistic.slope,
            RewardForm::LogOdds { target_precision, max, .. } => {
                let curvature = c.sigma_hallucinated.powi(-2) - c.sigma_correct.powi(-2);
                let logit = |p: f64| (p / (1.0 - p)).ln();
                let end = logit(target_precision) + max.copysign(curvature);
                let gap = (c.mu_correct - c.mu_hallucinated) / c.sigma_correct;
                let at_mu_minus = logit(c.prior_correct)
                    + (c.sigma_hallucinated / c.sigma_correct).ln()
                    - gap * gap / 2.0;
                let square =
                    (gap / c.sigma_correct).powi(2) + 2.0 * curvature * (end - at_mu_minus);
                square.max(0.0).sqrt()
            }
            RewardForm::Corrected { .. } | RewardForm::Sentence { .. } => 0.0,
        };
        slope * self.rule.penalty_weight().max(1.0)
    }

    /// Rounding of r(s) in f64: of squares that nearly cancel, mostly.
    fn rounding(&self, score: f64) -> f64 {
        let c = &self.calibration;
        let z = |mean: f64, deviation: f64| (score - mean) / deviation;
        let square = z(c.mu_correct, c.sigma_correct).powi(2)
            + z(c.mu_hallucinated, c.sigma_hallucinated).powi(2);
        let logistic = (c.logistic.slope * score).abs() + c.logistic.intercept.abs();
        1e-14 * self.rule.penalty_weight().max(1.0) * (10.0 + square + logistic)
    }

    fn rewards(&self, answer: &Answer, token_count: usize) -> Vec<f32> {
        self.rule.token_rewards(&Response {
            mentions: &answer.mentions,
            token_count,
            truncated: answer.truncated,
            sentence_score: Some(answer.sentence),
        })
    }

    /// The answer's scores on this calibration's scale.
    fn scaled(&self, answer: &Answer) -> Answer {
        let mut answer = answer.clone();
        for mention in &mut answer.mentions {
            mention.score = self.score(mention.score);
        }
        let scale = self.calibration.sentence.expect("every calibration here has one");
        answer.sentence = scale.mean + answer.sentence * scale.deviation;
        answer
    }
}

/// Calibrations of every shape: either class the wider, the means close or far apart, hallucinations
/// rare or frequent, scores as small as cosines or as large as logits.
fn any_calibration() -> impl Strategy<Value = Calibration> {
    let shape = (-2.0..1.0f64, -3.0..3.0f64, 0.2..3.0f64, 0.2..3.0f64, 0.03..0.97f64);
    let rest = (0.0..1.0f64, 0.2..10.0f64, -1.0..2.0f64);
    (shape, rest).prop_map(
        |((magnitude, place, plus, minus, prior), (fraction, steepness, middle))| {
            let gap = 10.0_f64.powf(magnitude);
            let (mu_minus, plus, minus) = (place * gap, plus * gap, minus * gap);
            let slope = steepness / gap;
            let mean = mu_minus + middle * gap;
            Calibration {
                sigma: (fraction * plus.powi(2) + (1.0 - fraction) * minus.powi(2)).sqrt(),
                logistic: Logistic { slope, intercept: -slope * mean },
                sentence: Some(SentenceCalibration { mean, deviation: plus, responses: 50 }),
                histograms: no_histograms(),
                ..gaussians((mu_minus + gap, plus), (mu_minus, minus), prior)
            }
        },
    )
}

/// They matter to no reward, and would fill the screen where a property fails.
fn no_histograms() -> Histograms {
    let none = Histogram { low: 0.0, high: 1.0, counts: Vec::new() };
    Histograms { correct: none.clone(), hallucinated: none }
}

fn any_form() -> impl Strategy<Value = RewardForm> {
    prop_oneof![3 => any_threshold(), 4 => any_log_odds(), 1 => any_sentence()]
}

/// The margin is a fraction of the largest that works; [`with_margin`] makes it a score.
fn any_threshold() -> impl Strategy<Value = RewardForm> {
    let margin = prop_oneof![Just(0.0), 0.0..1.0f64, Just(1.0)];
    (margin, 0.1..5.0f64).prop_map(|(margin, max)| RewardForm::Threshold { margin, max })
}

fn any_log_odds() -> impl Strategy<Value = RewardForm> {
    let model = prop_oneof![
        2 => Just(ProbabilityModel::Gaussians),
        1 => Just(ProbabilityModel::Logistic),
    ];
    (0.5..0.99f64, 0.1..5.0f64, model).prop_map(|(target_precision, max, probability)| {
        RewardForm::LogOdds { target_precision, max, probability }
    })
}

fn any_sentence() -> impl Strategy<Value = RewardForm> {
    (0.1..5.0f64).prop_map(|max| RewardForm::Sentence { max })
}

fn any_config(form: impl Strategy<Value = RewardForm>) -> impl Strategy<Value = RewardConfig> {
    let penalty = || prop_oneof![Just(0.0), 0.0..2.0f64];
    let placement = prop_oneof![Just(Placement::Last), Just(Placement::Spread)];
    let weight = prop_oneof![
        1 => Just(PenaltyWeight::Balanced),
        1 => Just(PenaltyWeight::Fixed(0.0)),
        2 => (0.0..4.0f64).prop_map(PenaltyWeight::Fixed),
    ];
    (form, placement, weight, penalty(), penalty()).prop_map(
        |(form, placement, penalty_weight, repetition_penalty, truncated_penalty)| RewardConfig {
            form,
            placement,
            penalty_weight,
            repetition_penalty,
            truncated_penalty,
        },
    )
}

fn with_form(form: impl Strategy<Value = RewardForm>) -> impl Strategy<Value = Bound> {
    (any_config(form), any_calibration())
        .prop_filter_map("a setting that pays for guesses", |(config, calibration)| {
            Bound::new(with_margin(config, &calibration), calibration)
        })
}

/// Takes the margin for a fraction of the largest one.
fn with_margin(mut config: RewardConfig, calibration: &Calibration) -> RewardConfig {
    if let RewardForm::Threshold { margin, .. } = &mut config.form {
        *margin *= (calibration.mu_correct - calibration.mu_hallucinated) / 2.0;
    }
    config
}

fn any_bound() -> impl Strategy<Value = Bound> {
    with_form(any_form())
}

/// Mentions of four categories anywhere in [`TOKENS`] tokens: apart, nested, overlapping or on the very
/// same tokens, as when one token spells two words. Two of one category on the same tokens are left
/// out: nothing says which of them is the first.
fn any_mentions() -> impl Strategy<Value = Vec<ScoredMention>> {
    let mention = (0..4usize, 0..TOKENS - 3, 1..4usize, -6.0..6.0f64).prop_map(
        |(category, start, length, score)| ScoredMention {
            category,
            tokens: start..start + length,
            score,
        },
    );
    prop::collection::vec(mention, 0..10).prop_map(|mentions| {
        let mut kept: Vec<ScoredMention> = Vec::new();
        for mention in mentions {
            let place = |mention: &ScoredMention| (mention.category, mention.tokens.clone());
            if kept.iter().all(|other| place(other) != place(&mention)) {
                kept.push(mention);
            }
        }
        kept
    })
}

fn any_answer() -> impl Strategy<Value = Answer> {
    (any_mentions(), any::<bool>(), -6.0..6.0f64)
        .prop_map(|(mentions, truncated, sentence)| Answer { mentions, truncated, sentence })
}

/// The same mentions one after the other, so that each has tokens of its own.
fn apart(mentions: &[ScoredMention]) -> (Vec<ScoredMention>, usize) {
    let mut end = 0;
    let moved = mentions.iter().map(|mention| {
        let start = end + 1;
        end = start + mention.tokens.len();
        ScoredMention { tokens: start..end, ..mention.clone() }
    });
    (moved.collect(), end + 1)
}

fn bits(rewards: &[f32]) -> Vec<u32> {
    rewards.iter().map(|reward| reward.to_bits()).collect()
}

fn sum(rewards: &[f32]) -> f64 {
    rewards.iter().map(|reward| f64::from(*reward)).sum()
}

/// Rounding of rewards to f32, summed.
fn rounding(rewards: &[f32]) -> f64 {
    let half_ulp = f64::from(f32::EPSILON) / 2.0;
    rewards.iter().map(|reward| f64::from(reward.abs()) * half_ulp + 1e-12).sum()
}

/// The least and the most that a response's mentions and sentence can sum up to.
///
/// The first mention of each of D categories gives `−κ₋ r_max` … `r_max`, and each of the N − D later
/// ones, which costs ρ at least, −max(κ₋ `r_max`, ρ) … −ρ. Under the sentence form mentions give
/// nothing, and the whole response `±r_max`, which κ₋ does not touch.
fn bounds(bound: &Bound, mentions: &[ScoredMention]) -> (f64, f64) {
    let (most, repetition) = (bound.most(), bound.config.repetition_penalty);
    if bound.rule.needs_sentence_score() {
        return (-most, most);
    }
    let worst = bound.rule.penalty_weight() * most;
    let mut categories: Vec<usize> = mentions.iter().map(|mention| mention.category).collect();
    categories.sort_unstable();
    categories.dedup();
    let first = categories.len() as f64;
    let later = mentions.len() as f64 - first;
    (-first * worst - later * worst.max(repetition), first * most - later * repetition)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Steps of every size, each across a place where a formula may bend.
    #[test]
    fn reward_is_monotone_with_bounded_slope(
        bound in any_bound(),
        knot in any::<Index>(),
        spreads in -6.0..6.0f64,
        before in 0.0..1.0f64,
        magnitude in -6.0..1.0f64,
    ) {
        let step = bound.calibration.sigma * 10.0_f64.powf(magnitude);
        let low = *knot.get(&bound.knots(spreads)) - before * step;
        let high = low + step;
        let rise = bound.rule.mention_reward(high) - bound.rule.mention_reward(low);
        let slack = bound.rounding(low) + bound.rounding(high);
        prop_assert!(rise >= -slack, "r falls by {} from {low} to {high}", -rise);
        let most = bound.steepest() * (high - low);
        prop_assert!(rise <= most + slack, "r rises by {rise} > {most} from {low} to {high}");
    }

    #[test]
    fn reward_stays_within_its_bounds_for_any_score(bound in any_bound(), magnitude in -3.0..6.0f64, up in any::<bool>()) {
        let spreads = 10.0_f64.powf(magnitude);
        let score = bound.score(if up { spreads } else { -spreads });
        let reward = bound.rule.mention_reward(score);
        let least = -bound.rule.penalty_weight() * bound.most();
        prop_assert!((least..=bound.most()).contains(&reward), "r({score}) = {reward}");
    }

    /// "Zero" to the last bit, and on the thresholds themselves too.
    #[test]
    fn reward_is_zero_between_the_thresholds(bound in with_form(any_threshold()), fraction in 0.0..=1.0f64) {
        let RewardForm::Threshold { margin, .. } = bound.config.form else { unreachable!() };
        let (plus, minus) = thresholds(&bound.calibration, margin).unwrap();
        // At the largest margin the two may pass each other by a rounding.
        prop_assume!(minus <= plus);
        for score in [plus, minus, (minus + fraction * (plus - minus)).clamp(minus, plus)] {
            prop_assert_eq!(bound.rule.mention_reward(score).abs().to_bits(), 0, "at {}", score);
        }
        let beyond = bound.calibration.sigma * 1e-3;
        prop_assert!(bound.rule.mention_reward(plus + beyond) > 0.0);
        let falls = bound.rule.mention_reward(minus - beyond) < 0.0;
        prop_assert_eq!(falls, bound.rule.penalty_weight() > 0.0);
    }

    /// The threshold form pays no mention that is more likely wrong than right, the log-odds form none
    /// that is less likely right than the target precision.
    #[test]
    fn positive_rewards_require_the_target_precision(bound in any_bound(), spreads in -6.0..6.0f64) {
        let (model, least) = match bound.config.form {
            RewardForm::LogOdds { target_precision, probability, .. } => {
                (probability, target_precision)
            }
            _ => (ProbabilityModel::Gaussians, 0.5),
        };
        for score in bound.knots(spreads) {
            let probability = bound.calibration.probability(score, model);
            let reward = bound.rule.mention_reward(score);
            prop_assert!(
                reward <= 1e-9 || probability >= least - 1e-9,
                "{reward} for a mention that is right with probability {probability}"
            );
        }
    }

    /// The form is refused exactly if its lowest paid score is more likely wrong than right.
    #[test]
    fn thresholds_are_rejected_only_if_they_would_reward_guesses(
        config in any_config(any_threshold()),
        calibration in any_calibration(),
    ) {
        let config = with_margin(config, &calibration);
        let RewardForm::Threshold { margin, .. } = config.form else { unreachable!() };
        let (plus, _) = thresholds(&calibration, margin).unwrap();
        let probability = calibration.probability(plus, ProbabilityModel::Gaussians);
        match RewardRule::new(&config, &calibration) {
            Ok(_) => prop_assert!(probability >= 0.5 - 1e-9, "pays from {probability} on"),
            Err(error) => prop_assert!(probability < 0.5 + 1e-9, "{probability}: {error}"),
        }
    }

    /// Equal spreads and fractions put even odds midway between the means, where the thresholds meet at
    /// the largest margin: nothing unlikely is paid there, so rounding must not refuse it.
    #[test]
    fn largest_margin_is_accepted_for_symmetric_calibrations(
        (mean, gap, sigma) in (-0.5..0.5f64, 0.01..0.5f64, 0.01..0.5f64),
    ) {
        let calibration = gaussians((mean + gap, sigma), (mean, sigma), 0.5);
        let largest = (calibration.mu_correct - calibration.mu_hallucinated) / 2.0;
        let form = RewardForm::Threshold { margin: largest, max: 3.0 };
        let made = RewardRule::new(&RewardConfig { form, ..RewardConfig::default() }, &calibration);
        prop_assert!(made.is_ok(), "{}", made.unwrap_err());
    }

    /// Twice the scores, twice the calibration: the same rewards, to the last bit.
    #[test]
    fn rewards_do_not_depend_on_the_scale_of_scores(
        bound in any_bound(),
        spreads in -6.0..6.0f64,
        doublings in -8..8i32,
    ) {
        let factor = 2.0_f64.powi(doublings);
        let mut config = bound.config;
        if let RewardForm::Threshold { margin, .. } = &mut config.form {
            *margin *= factor;
        }
        let c = &bound.calibration;
        let calibration = Calibration {
            mu_correct: factor * c.mu_correct,
            sigma_correct: factor * c.sigma_correct,
            mu_hallucinated: factor * c.mu_hallucinated,
            sigma_hallucinated: factor * c.sigma_hallucinated,
            sigma: factor * c.sigma,
            logistic: Logistic { slope: c.logistic.slope / factor, ..c.logistic },
            ..c.clone()
        };
        let scaled = Bound::new(config, calibration).expect("as good as the one it came from");
        prop_assert_eq!(
            scaled.rule.penalty_weight().to_bits(),
            bound.rule.penalty_weight().to_bits()
        );
        for score in bound.knots(spreads) {
            let (found, expected) =
                (scaled.rule.mention_reward(factor * score), bound.rule.mention_reward(score));
            prop_assert_eq!(found.to_bits(), expected.to_bits(), "at {}", score);
        }
    }

    /// One reward per response: S rises by at most its step over the spread of responses, stays
    /// within `±r_max`, and no weight of penalties touches it.
    #[test]
    fn sentence_reward_is_bounded_and_monotone_in_its_score(
        bound in with_form(any_sentence()),
        answer in any_answer(),
        step in 0.0..3.0f64,
    ) {
        let mut answer = Answer { truncated: false, ..bound.scaled(&answer) };
        let low = sum(&bound.rewards(&answer, TOKENS));
        answer.sentence += step * bound.calibration.sentence.unwrap().deviation;
        let high = sum(&bound.rewards(&answer, TOKENS));
        let most = bound.most() * (1.0 + f64::from(f32::EPSILON));
        prop_assert!((-most..=most).contains(&low) && (-most..=most).contains(&high));
        prop_assert!((-1e-6..=step + 1e-6).contains(&(high - low)), "{low} to {high} by {step}");
    }

    #[test]
    fn summed_rewards_stay_within_bounds(bound in any_bound(), answer in any_answer()) {
        let answer = bound.scaled(&answer);
        let rewards = bound.rewards(&answer, TOKENS);
        let (least, most) = bounds(&bound, &answer.mentions);
        let penalty = if answer.truncated { bound.config.truncated_penalty } else { 0.0 };
        let (total, slack) = (sum(&rewards) + penalty, rounding(&rewards));
        prop_assert!(
            (least - slack..=most + slack).contains(&total),
            "{total} is not in {least}..={most}"
        );
    }

    /// The bounds above are no looser than they must be.
    #[test]
    fn summed_rewards_reach_their_bounds(bound in with_form(any_threshold()), answer in any_answer()) {
        for (spreads, take) in [(1e3, 1), (-1e3, 0)] {
            let mut answer = bound.scaled(&Answer { truncated: false, ..answer.clone() });
            answer.mentions.iter_mut().for_each(|mention| mention.score = bound.score(spreads));
            let (least, most) = bounds(&bound, &answer.mentions);
            let rewards = bound.rewards(&answer, TOKENS);
            let missed = sum(&rewards) - [least, most][take];
            prop_assert!(missed.abs() <= rounding(&rewards), "missed by {missed}");
        }
    }

    /// Everything but the tokens that carry a reward holds +0, to the last bit.
    #[test]
    fn only_tokens_that_carry_rewards_are_nonzero(bound in any_bound(), answer in any_answer()) {
        let answer = bound.scaled(&answer);
        let rewards = bound.rewards(&answer, TOKENS);
        let sentence = bound.rule.needs_sentence_score();
        let carries = |token: usize| match bound.config.placement {
            _ if token == TOKENS - 1 && (answer.truncated || sentence) => true,
            _ if sentence => false,
            Placement::Last => answer.mentions.iter().any(|mention| mention.tokens.end == token + 1),
            Placement::Spread => answer.mentions.iter().any(|mention| mention.tokens.contains(&token)),
        };
        for (token, reward) in rewards.iter().enumerate() {
            prop_assert!(carries(token) || reward.to_bits() == 0, "token {token} holds {reward}");
        }
    }

    /// Padding earns nothing and changes nothing, unless the end of the response itself counts.
    #[test]
    fn rewards_do_not_depend_on_padding(bound in any_bound(), answer in any_answer(), padding in 1..20usize) {
        prop_assume!(!bound.rule.needs_sentence_score());
        let answer = Answer { truncated: false, ..bound.scaled(&answer) };
        let padded = bound.rewards(&answer, TOKENS + padding);
        prop_assert_eq!(bits(&padded[..TOKENS]), bits(&bound.rewards(&answer, TOKENS)));
        prop_assert_eq!(bits(&padded[TOKENS..]), vec![0; padding]);
    }

    #[test]
    fn rewards_do_not_depend_on_the_order_of_mentions(
        bound in any_bound(),
        (answer, shuffled) in any_answer()
            .prop_flat_map(|answer| (Just(answer.clone()), Just(answer.mentions).prop_shuffle())),
    ) {
        let shuffled = Answer { mentions: shuffled, ..answer.clone() };
        let (answer, shuffled) = (bound.scaled(&answer), bound.scaled(&shuffled));
        let expected = bits(&bound.rewards(&answer, TOKENS));
        prop_assert_eq!(bits(&bound.rewards(&shuffled, TOKENS)), expected);
    }

    /// A rule remembers nothing: whatever came before a response, its rewards are the same.
    #[test]
    fn rewards_do_not_depend_on_other_responses(
        bound in any_bound(),
        answers in prop::collection::vec(any_answer(), 1..6),
        order in prop::collection::vec(any::<Index>(), 1..12),
    ) {
        let answers: Vec<Answer> = answers.iter().map(|answer| bound.scaled(answer)).collect();
        let alone = |answer: &Answer| {
            let fresh = Bound::new(bound.config, bound.calibration.clone()).unwrap();
            bits(&fresh.rewards(answer, TOKENS))
        };
        let expected: Vec<Vec<u32>> = answers.iter().map(alone).collect();
        for place in order {
            let at = place.index(answers.len());
            prop_assert_eq!(&bits(&bound.rewards(&answers[at], TOKENS)), &expected[at]);
        }
    }

    #[test]
    fn last_and_spread_placement_give_the_same_sum(bound in any_bound(), answer in any_answer()) {
        let answer = bound.scaled(&answer);
        let placed = |placement: Placement| {
            let config = RewardConfig { placement, ..bound.config };
            let other = Bound::new(config, bound.calibration.clone()).unwrap();
            other.rewards(&answer, TOKENS)
        };
        let (last, spread) = (placed(Placement::Last), placed(Placement::Spread));
        // Beside the rounding to f32, that of f64 where mentions share a token and cancel.
        let (least, most) = bounds(&bound, &answer.mentions);
        let slack = rounding(&last) + rounding(&spread) + 1e-14 * (most - least);
        let difference = sum(&last) - sum(&spread);
        prop_assert!(difference.abs() <= slack, "{last:?} and {spread:?} differ by {difference}");
    }

    /// What the tokens of a mention hold is r(s) for the first of its category; a later one costs the
    /// penalty of repetition at least, and more only if the score alone costs more.
    #[test]
    fn only_the_first_mention_of_a_category_is_rewarded(bound in any_bound(), mentions in any_mentions()) {
        prop_assume!(!bound.rule.needs_sentence_score());
        let (mentions, token_count) = apart(&mentions);
        let answer = bound.scaled(&Answer { mentions, truncated: false, sentence: 0.0 });
        let rewards = bound.rewards(&answer, token_count);
        for (index, mention) in answer.mentions.iter().enumerate() {
            let own = &rewards[mention.tokens.clone()];
            let (found, alone) = (sum(own), bound.rule.mention_reward(mention.score));
            let slack = rounding(own);
            let later = answer.mentions[..index].iter().any(|other| other.category == mention.category);
            if later {
                let cost = -bound.config.repetition_penalty;
                prop_assert!(found <= cost + slack, "a later mention gets {found}");
                prop_assert!(found >= cost.min(alone) - slack, "{found} is too much to pay");
            } else {
                prop_assert!((found - alone).abs() <= slack, "{found} is not {alone}");
            }
        }
    }
}
