use fisao_align::guards::{
    Baseline, GuardLimits, SplitHealth, check_iteration, check_recall_bound, check_recall_estimate,
    check_split, unrecoverable,
};
use fisao_align::objective::{DpoConfig, ObjectiveDefinition};
use fisao_align::recall::RecallConfig;
use fisao_align::{AlignEvent, IterationMetrics, WarningCode};

const BASELINE: Baseline =
    Baseline { length_mean: 20.0, eos_rate: 1.0, entropy: 1.0, repeated_fraction: 0.07 };

/// An iteration nothing is wrong with.
fn healthy() -> IterationMetrics {
    IterationMetrics {
        reward_mean: 0.2,
        reward_std: 0.5,
        mentions_per_caption: 3.0,
        rewarded_fraction: Some(0.6),
        penalised_fraction: Some(0.2),
        neutral_fraction: Some(0.2),
        length_mean: 20.0,
        eos_rate: 0.99,
        entropy: 0.9,
        kl: Some(0.4),
        kl_per_token: Some(0.02),
        ratio_max: 1.4,
        sampler_gap: 1e-5,
        ..IterationMetrics::default()
    }
}

fn codes(change: impl FnOnce(&mut IterationMetrics)) -> Vec<WarningCode> {
    let mut metrics = healthy();
    change(&mut metrics);
    let warnings = check_iteration(&metrics, &BASELINE, &GuardLimits::default());
    assert!(warnings.iter().all(|w| !w.message.is_empty() && !w.hint.is_empty()));
    warnings.iter().map(|w| w.code).collect()
}

#[test]
fn each_failure_raises_its_own_warning() {
    assert_eq!(codes(|_| ()), []);
    assert_eq!(codes(|m| m.policy_loss = f64::NAN), [WarningCode::NotFinite]);
    assert_eq!(codes(|m| m.grad_norm = f64::INFINITY), [WarningCode::NotFinite]);
    assert_eq!(codes(|m| m.sampler_gap = 0.1), [WarningCode::SamplerMismatch]);
    // Int8 weights make another sampler, whose single tokens may differ by more.
    let in_int8 = |m: &mut IterationMetrics, kl| (m.sampler_gap, m.sampler_kl) = (0.1, Some(kl));
    assert_eq!(codes(|m| in_int8(m, 1e-4)), []);
    assert_eq!(codes(|m| in_int8(m, 0.01)), [WarningCode::Int8SamplingLeft]);
    assert_eq!(codes(|m| in_int8(m, f64::NAN)), [WarningCode::NotFinite]);
    assert_eq!(codes(|m| m.kl_per_token = Some(0.6)), [WarningCode::KlHigh]);
    assert_eq!(codes(|m| m.ratio_max = 12.26), [WarningCode::RatioHigh]);
    assert_eq!(codes(|m| m.entropy = 0.1), [WarningCode::EntropyCollapsed]);
    assert_eq!(codes(|m| m.length_mean = 16.0), [WarningCode::LengthCollapsed]);
    assert_eq!(codes(|m| m.length_mean = 26.0), [WarningCode::LengthGrown]);
    assert_eq!(codes(|m| m.eos_rate = 0.9), [WarningCode::EndsMissing]);
    assert_eq!(codes(|m| m.repeated_fraction = Some(0.25)), [WarningCode::RepetitionGrown]);
    assert_eq!(codes(|m| m.repeated_fraction = Some(0.15)), []);
    // Of 192 mentions, 23 % lie within two standard errors of the limit of 17 %, 26 % do not.
    let counted = |m: &mut IterationMetrics, repeated: f64| {
        (m.responses, m.repeated_fraction) = (64, Some(repeated));
    };
    assert_eq!(codes(|m| counted(m, 0.23)), []);
    assert_eq!(codes(|m| counted(m, 0.26)), [WarningCode::RepetitionGrown]);
    assert_eq!(codes(|m| m.reward_std = 0.0), [WarningCode::RewardConstant]);
    assert_eq!(codes(|m| m.neutral_fraction = Some(1.0)), [WarningCode::AllNeutral]);
    // Captions without any mention: there is nothing to reward either.
    let silent =
        |m: &mut IterationMetrics| (m.neutral_fraction, m.mentions_per_caption) = (None, 0.0);
    assert_eq!(codes(silent), [WarningCode::AllNeutral]);
    // Rewards of whole responses: there are mentions, but no fraction.
    assert_eq!(codes(|m| m.neutral_fraction = None), []);
}

#[test]
fn dataset_responses_are_not_checked_against_the_base_model() {
    // What supervised fine-tuning on short answers that all earn the same looks like.
    let given = |m: &mut IterationMetrics| {
        (m.kl, m.kl_per_token) = (None, None);
        (m.length_mean, m.eos_rate, m.entropy) = (3.0, 0.2, 0.01);
        (m.reward_std, m.neutral_fraction, m.repeated_fraction) = (0.0, Some(1.0), Some(0.9));
    };
    assert_eq!(codes(given), []);
    let broken = |m: &mut IterationMetrics| {
        given(m);
        m.grad_norm = f64::NAN;
    };
    assert_eq!(codes(broken), [WarningCode::NotFinite]);
}

#[test]
fn nan_metric_is_named_and_suppresses_other_warnings() {
    let metrics = IterationMetrics { kl: Some(f64::NAN), length_mean: 1.0, ..healthy() };
    let warnings = check_iteration(&metrics, &BASELINE, &GuardLimits::default());
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.ends_with(": kl"), "{}", warnings[0].message);
}

/// A split nothing is wrong with.
fn validation_tasks() -> SplitHealth {
    SplitHealth {
        reward: 1.0,
        recall: Some(0.80),
        base_recall: Some(0.81),
        expected_correct: Some(2.9),
        base_expected_correct: Some(3.0),
        reward_auc: Some(0.95),
        reward_correct: Some(0.5),
        reward_hallucinated: Some(-0.8),
        reward_auc_error: 0.0,
        reward_correct_error: 0.0,
        reward_hallucinated_error: 0.0,
    }
}

fn split(change: impl FnOnce(&mut SplitHealth)) -> Vec<WarningCode> {
    let mut health = validation_tasks();
    change(&mut health);
    check_split(&health, &GuardLimits::default()).iter().map(|w| w.code).collect()
}

#[test]
fn split_check_warns_of_recall_loss_and_lost_separation() {
    assert_eq!(split(|_| ()), []);
    assert_eq!(split(|h| h.recall = Some(0.42)), [WarningCode::RecallDropped]);
    assert_eq!(split(|h| h.reward_auc = Some(0.5)), [WarningCode::SeparationLost]);
    // Thresholds from mismatched pairs: a good detector, but hallucinations are paid for.
    assert_eq!(split(|h| h.reward_hallucinated = Some(0.3)), [WarningCode::SeparationLost]);
    assert_eq!(split(|h| h.reward_correct = Some(-0.1)), [WarningCode::SeparationLost]);
    // A weak verifier's means over a few words are uncertain: two standard errors are no evidence.
    let uncertain = |h: &mut SplitHealth| {
        (h.reward_hallucinated, h.reward_hallucinated_error) = (Some(0.3), 0.2);
        (h.reward_auc, h.reward_auc_error) = (Some(0.5), 0.04);
    };
    assert_eq!(split(uncertain), []);
    // A policy that no longer hallucinates has no AUC, which is no reason to complain.
    let cured = |h: &mut SplitHealth| (h.reward_auc, h.reward_hallucinated) = (None, None);
    assert_eq!(split(cured), []);
}

/// Recall went from 81 to 80 %, −1.2 %; estimated from 3.0 to 2.9 words, −3.3 %.
#[test]
fn recall_misestimation_is_reported() {
    let limits = GuardLimits::default();
    let check = |expected: f64, noise: f64| {
        let health = SplitHealth { expected_correct: Some(expected), ..validation_tasks() };
        check_recall_estimate(&health, &limits, noise)
    };
    assert_eq!(check(2.9, 0.0), None);
    let warning = check(2.6, 0.0).expect("−13.3 % for −1.2 %");
    assert_eq!(warning.code, WarningCode::RecallMisestimated);
    assert!(
        warning.message.contains("-1.2 %") && warning.message.contains("-13.3 %"),
        "{}",
        warning.message
    );
    assert_eq!(check(2.6, 2.0), None, "a weak verifier may be further off");
    let unlabelled =
        SplitHealth { recall: None, expected_correct: Some(2.0), ..validation_tasks() };
    assert_eq!(check_recall_estimate(&unlabelled, &limits, 0.0), None);
}

#[test]
fn constraint_at_bound_is_reported_and_unrecoverable_policy_stopped() {
    let (recall, limits) = (RecallConfig::default(), GuardLimits::default());
    let metrics = |break_even: f64, surplus: f64| IterationMetrics {
        break_even: Some(break_even),
        recall_surplus: Some(surplus),
        recall_surplus_error: Some(0.01),
        ..healthy()
    };
    let code = |m: &IterationMetrics| check_recall_bound(m, &recall, &limits).map(|w| w.code);
    assert_eq!(
        code(&metrics(recall.min_break_even, -0.03)),
        None,
        "within two standard errors of the limit"
    );
    assert_eq!(code(&metrics(0.4, -0.3)), None, "there is room left");
    let (short, lost) =
        (metrics(recall.min_break_even, -0.1), metrics(recall.min_break_even, -0.3));
    assert_eq!(code(&short), Some(WarningCode::BreakEvenAtBound));
    for (metrics, stops) in [(short, false), (lost, true)] {
        let warnings = Vec::from_iter(check_recall_bound(&metrics, &recall, &limits));
        assert_eq!(unrecoverable(&metrics, &BASELINE, &limits, &warnings).is_some(), stops);
    }
}

#[test]
fn metrics_and_events_round_trip_through_json() {
    let events = [
        AlignEvent::IterationFinished { metrics: Box::new(healthy()) },
        AlignEvent::Warning(
            check_iteration(
                &IterationMetrics { ratio_max: 20.0, ..healthy() },
                &BASELINE,
                &GuardLimits::default(),
            )
            .remove(0),
        ),
    ];
    for event in events {
        let text = serde_json::to_string(&event).expect("serialise");
        let back: AlignEvent = serde_json::from_str(&text).expect("deserialise");
        assert_eq!(back, event, "{text}");
    }
}

fn lost(change: impl FnOnce(&mut IterationMetrics)) -> Option<WarningCode> {
    let mut metrics = healthy();
    change(&mut metrics);
    let limits = GuardLimits::default();
    let mut warnings = check_iteration(&metrics, &BASELINE, &limits);
    warnings.extend(DpoConfig::default().warnings(&metrics));
    unrecoverable(&metrics, &BASELINE, &limits, &warnings).map(|warning| warning.code)
}

#[test]
fn only_unrecoverable_warnings_stop_the_run() {
    assert_eq!(lost(|_| ()), None);
    assert_eq!(lost(|m| m.kl_per_token = Some(1.9)), None);
    assert_eq!(lost(|m| m.kl_per_token = Some(2.1)), Some(WarningCode::KlHigh));
    assert_eq!(lost(|m| m.length_mean = 9.0), None);
    assert_eq!(lost(|m| m.length_mean = 7.9), Some(WarningCode::LengthCollapsed));
    assert_eq!(lost(|m| m.length_mean = 51.0), Some(WarningCode::LengthGrown));
    assert_eq!(lost(|m| m.eos_rate = 0.3), None);
    assert_eq!(lost(|m| m.eos_rate = 0.1), Some(WarningCode::EndsMissing));
    assert_eq!(lost(|m| m.repeated_fraction = Some(0.5)), None);
    assert_eq!(lost(|m| m.repeated_fraction = Some(0.6)), Some(WarningCode::RepetitionGrown));
    assert_eq!(lost(|m| m.reward_std = 0.0), Some(WarningCode::RewardConstant));
    assert_eq!(lost(|m| m.pairs = Some(0)), Some(WarningCode::PairsMissing));
    assert_eq!(lost(|m| m.sampler_gap = 0.1), Some(WarningCode::SamplerMismatch));
    assert_eq!(lost(|m| m.entropy = 0.1), None);
}

#[test]
fn critic_warning_starts_after_warmup() {
    let early = |m: &mut IterationMetrics| m.value_explained_variance = Some(-3.0);
    assert_eq!(codes(early), []);
    let at = |iteration: usize| {
        codes(move |m| (m.iteration, m.value_explained_variance) = (iteration, Some(-3.0)))
    };
    assert_eq!(at(10), []);
    assert_eq!(at(11), [WarningCode::CriticWrong]);
    assert_eq!(codes(|m| m.clip_fraction = Some(0.5)), [WarningCode::ClipHigh]);
}
