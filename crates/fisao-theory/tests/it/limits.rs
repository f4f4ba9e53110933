//! Closed forms at their limits, and identities between them.

use fisao_theory::credit::{Estimator, GaussianBandit};
use fisao_theory::rewards::{Binormal, Form, censored, silence_auc};
use fisao_theory::softmax_credit::SoftmaxPolicy;
use fisao_theory::{deletion, feedback, kl_estimators, normal, tilt};

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-7 * (1.0 + b.abs()), "{a} is not {b}");
}

#[test]
fn auc_of_a_coin_and_of_a_perfect_verifier() {
    close(normal::auc(0.0), 0.5);
    close(normal::auc(12.0), 1.0);
    close(normal::auc(normal::d_prime(0.8)), 0.8);
    close(feedback::removable_fraction(0.5), 0.0);
    close(feedback::removable_fraction(1.0), 1.0);
    close(feedback::direction_auc(0.0), 0.5);
    close(feedback::direction_auc(1.0), 1.0);
    close(feedback::direction_auc(-1.0), 0.0);
    close(feedback::correlation(feedback::direction_auc(0.37)), 0.37);
    close(feedback::correlation(0.8).powi(2), feedback::removable_fraction(0.8));
}

#[test]
fn feedback_changes_sign_at_the_break_even_and_at_a_right_angle() {
    use feedback::{FeedbackModel, FeedbackSetting, break_even_under_use};
    let with = |under_use: f64, angle: f64| {
        let setting = FeedbackSetting { under_use, angle, ..FeedbackSetting::default() };
        FeedbackModel::example(setting)
    };
    let threshold = break_even_under_use(FeedbackSetting::default().vision_noise);
    assert!(with(threshold + 0.01, 0.0).slope() < 0.0);
    assert!(with(threshold - 0.01, 0.0).slope() > 0.0);
    let right_angle = std::f64::consts::FRAC_PI_2;
    assert!(with(0.5, right_angle - 0.01).best_step() > 0.0);
    assert!(with(0.5, right_angle + 0.01).best_step() < 0.0);
    assert!(break_even_under_use(0.0).abs() < f64::EPSILON);
}

#[test]
fn one_token_makes_no_difference_to_credit() {
    let bandit = GaussianBandit { tokens: 1, ..GaussianBandit::default() };
    close(bandit.ratio(), 1.0);
    for lambda in [0.0, 0.5, 1.0] {
        assert_eq!(
            bandit.moments(Estimator::sentence(1.0)),
            bandit.moments(Estimator::token(lambda, 1.0))
        );
    }
    close(SoftmaxPolicy { tokens: 1, spacing: 1, auc: 0.8 }.ratio(), 1.0);
}

#[test]
fn ratio_of_variances_follows_from_the_moments() {
    for (tokens, spacing, noise) in [(2, 1, 0.0), (16, 4, 1.0), (31, 7, 3.0)] {
        let bandit =
            GaussianBandit { tokens, spacing, verifier_noise: noise, ..GaussianBandit::default() };
        let of = |estimator| bandit.moments(estimator).variance;
        close(of(Estimator::sentence(1.0)) / of(Estimator::token(0.0, 1.0)), bandit.ratio());
        // The mean of the estimate is the same: granularity changes the variance alone.
        assert_eq!(
            bandit.moments(Estimator::sentence(1.0)).mean,
            bandit.moments(Estimator::token(0.0, 0.0)).mean
        );
    }
    let silent = GaussianBandit { verifier_noise: 1e6, ..GaussianBandit::default() };
    assert!((silent.ratio() - 16.0).abs() < 1e-6);
    let perfect = GaussianBandit { verifier_noise: 0.0, ..GaussianBandit::default() };
    close(perfect.ratio(), 8.5);
}

#[test]
fn corrected_rewards_have_the_intended_means_at_any_auc() {
    for auc in [0.55, 0.7, 0.9, 0.999] {
        let model = Binormal::with_auc(auc, 0.8);
        for form in [
            Form::CorrectedScore { break_even: 0.3 },
            Form::CorrectedLabel { threshold: 0.2, break_even: 0.3 },
            Form::CorrectedPosterior { break_even: 0.3 },
        ] {
            let moments = model.moments(form);
            close(moments.correct.mean, 0.7);
            close(moments.hallucinated.mean, -0.3);
            close(moments.break_even(), 0.3);
        }
    }
}

#[test]
fn moments_of_every_form_are_integrals_of_its_reward() {
    let model = Binormal::with_auc(0.8, 0.7);
    let half = 0.5 * model.d_prime;
    for form in [
        Form::Plain { threshold: 0.2 },
        Form::Threshold { margin: 0.2, limit: 1.0 },
        Form::LogOdds { target: 0.9 },
        Form::CorrectedScore { break_even: 0.5 },
        Form::CorrectedPosterior { break_even: 0.5 },
    ] {
        let reward = model.reward(form);
        let moments = model.moments(form);
        for (mean, found) in [(half, moments.correct), (-half, moments.hallucinated)] {
            let first = normal::expectation(mean, &reward);
            let second = normal::expectation(mean, |score| reward(score).powi(2));
            // The integrand of a clamped reward has corners.
            assert!((found.mean - first).abs() < 1e-4, "{form:?}: {found:?}");
            assert!(
                (found.variance - (second - first * first)).abs() < 1e-3,
                "{form:?}: {found:?}"
            );
        }
    }
    // A sign is a threshold form's limit; its integrand jumps.
    let sign = model.moments(Form::Sign { threshold: 0.0 });
    close(sign.correct.mean, 2.0 * normal::cumulative(half) - 1.0);
    close(sign.break_even(), 0.5);
}

#[test]
fn posterior_has_the_smallest_variance_of_the_corrected_forms() {
    for auc in [0.6, 0.8, 0.95] {
        let model = Binormal::with_auc(auc, 0.8);
        let of = |form| model.moments(form).relative_variance(0.8);
        let posterior = of(Form::CorrectedPosterior { break_even: 0.5 });
        assert!(posterior < of(Form::CorrectedScore { break_even: 0.5 }));
        assert!(posterior < of(Form::CorrectedLabel { threshold: 0.0, break_even: 0.5 }));
        let (right, wrong) = model.posterior_means();
        close(posterior, 0.16 * (1.0 / (right - wrong) - 1.0));
    }
}

#[test]
fn log_odds_break_even_is_1_at_the_silence_auc() {
    let model = Binormal::with_auc(silence_auc(0.83, 0.9), 0.83);
    close(model.moments(Form::LogOdds { target: 0.9 }).break_even(), 1.0);
    // What was measured: at an AUC of 0.77 the best policy was silence.
    assert!(silence_auc(0.83, 0.9) > 0.77);
    close(silence_auc(0.95, 0.9), 0.5);
}

#[test]
fn deletion_by_a_coin_removes_as_much_as_it_loses() {
    close(deletion::removed(0.0, 0.05), 0.05);
    assert!(deletion::removed(12.0, 0.01) > 0.999_999);
    close(deletion::removed(deletion::d_prime_needed(0.5, 0.01), 0.01), 0.5);
    close(deletion::chair_after(0.2, 0.0, 0.0), 0.2);
    close(deletion::chair_after(0.2, 0.01, 1.0), 0.0);
    // From tables of the normal distribution: Φ(−2.3263 + 1.1) = Φ(−1.2263).
    assert!((deletion::removed(1.1, 0.01) - 0.1100).abs() < 2e-4);
}

#[test]
fn kl_estimators_agree_for_small_divergences() {
    let small = 1e-4;
    assert!(kl_estimators::k2_bias(small) / small < 1e-3);
    assert!(
        (kl_estimators::k3_variance(small) / kl_estimators::k2_variance(small) - 1.0).abs() < 1e-3
    );
    assert!(kl_estimators::k3_variance(0.62) < kl_estimators::k1_variance(0.62));
    assert!(kl_estimators::k3_variance(0.64) > kl_estimators::k1_variance(0.64));
    close(kl_estimators::k3_variance_by_token(0.3, 1.0), kl_estimators::k3_variance(0.3));
    let (true_gradient, of_loss) = (
        kl_estimators::bernoulli_gradient(0.501, 0.5),
        kl_estimators::k3_loss_gradient(0.501, 0.5),
    );
    assert!((of_loss / true_gradient - 1.0).abs() < 1e-3);
}

#[test]
fn tilt_leaves_the_reference_for_a_large_penalty() {
    close(tilt::naming_probability(0.6, (0.8, 0.5), 1e12), 0.6);
    // A mention that is right exactly as often as it must be is named as often as before.
    close(tilt::naming_probability(0.6, (0.5, 0.5), 0.1), 0.6);
    assert!(tilt::gaussian_divergence(1.0, 1e6) < 1e-11);
    close(tilt::gaussian_divergence(1.0, 0.5), 0.5 * tilt::gaussian_gain(1.0, 0.5).powi(2));
    close(tilt::bernoulli_divergence(0.4, 0.4), 0.0);
}

#[test]
fn censored_moments_tend_to_those_of_the_normal_distribution() {
    let (first, second) = censored(10.0, 1e3);
    close(first, 10.0);
    close(second, 101.0);
    let (first, second) = censored(50.0, 2.0);
    close(first, 2.0);
    close(second, 4.0);
}
