//! Integration tests of `fisao-align`.

mod additional_rewards;
mod advantages;
mod config;
mod divergence;
mod gradients;
mod guards;
mod guided;
mod objectives;
mod paper_step;
mod phrases;
mod region_weights;
mod shared_prompts;
mod signals;
mod statistics;
mod team;
mod tokens;
mod trainer;

/// Relative tolerance of arithmetic carried out or stored in f32.
const F32_TOLERANCE: f64 = 1e-6;

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs();
    assert!(
        error <= tolerance * expected.abs().max(1.0),
        "found {found}, expected {expected}, off by {error}"
    );
}

#[track_caller]
fn assert_all_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "lengths differ");
    for (&found, &expected) in found.iter().zip(expected) {
        assert_close(found.into(), expected, tolerance);
    }
}
