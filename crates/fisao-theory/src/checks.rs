//! What is compared with what: every closed form with its simulation, and with simulations that violate its assumptions.

mod credit;
mod deletion;
mod feedback;
mod kl_estimators;
mod rewards;
mod tilt;
mod violations;

use crate::comparison::{Check, Violation};

/// All comparisons that must agree; each takes a seed.
pub const CHECKS: &[fn(u64) -> Check] = &[
    feedback::slope,
    feedback::break_even,
    feedback::best_step,
    feedback::best_reduction,
    feedback::tilted_mean,
    feedback::direction_auc,
    feedback::reduction_by_auc,
    credit::ratio_by_length,
    credit::ratio_by_noise,
    credit::ratio_without_baseline,
    credit::ratio_of_rewards_to_go,
    credit::ratio_of_gae,
    credit::ratio_of_softmax,
    credit::softmax_by_auc,
    credit::break_even_batch,
    rewards::auc_of_scores,
    rewards::break_even_of_threshold,
    rewards::break_even_of_log_odds,
    rewards::silence,
    rewards::variance_of_corrected_score,
    rewards::variance_of_corrected_label,
    rewards::variance_of_corrected_posterior,
    deletion::removed,
    deletion::chair,
    tilt::divergence,
    tilt::gain,
    tilt::naming,
    tilt::trained_divergence,
    kl_estimators::k1_variance,
    kl_estimators::k2_bias,
    kl_estimators::k3_variance,
    kl_estimators::k3_by_token,
    kl_estimators::k3_gradient,
];

/// All comparisons under violated assumptions; each takes a seed.
pub const VIOLATIONS: &[fn(u64) -> Violation] = &[
    violations::feedback_laplace,
    violations::feedback_student,
    violations::feedback_off_centre,
    violations::credit_common_noise,
    violations::credit_shared_parameter,
    violations::credit_coupled,
    violations::credit_half_a_critic,
    violations::threshold_laplace,
    violations::threshold_student,
    violations::corrected_score_student,
    violations::corrected_posterior_student,
    violations::corrected_drift,
    violations::corrected_correlated,
    violations::deletion_laplace,
    violations::deletion_student,
    violations::deletion_wider,
    violations::tilt_laplace,
    violations::tilt_skewed,
    violations::k3_laplace,
    violations::k2_laplace,
];
