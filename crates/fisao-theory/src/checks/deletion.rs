//! Checks of [`crate::deletion`].

use super::rewards::facts;
use crate::comparison::{Check, Facts};
use crate::deletion::{self, chair_after};
use crate::normal::d_prime;
use crate::random::{Noise, Stream};

/// Mentions per class and batch.
const MENTIONS: usize = 40_000;
/// d′ of the check.
pub(super) const D_PRIME: f64 = 1.1;
/// Fraction of correct mentions that is given up.
pub(super) const LOST: f64 = 0.01;
/// `CHAIR_I` before.
const CHAIR: f64 = 0.2;

/// Fraction of hallucinated mentions below the score that a fraction `lost` of the correct ones is below.
pub(super) fn simulated(
    (d_prime, spread): (f64, f64),
    lost: f64,
    noise: Noise,
    stream: &mut Stream,
) -> f64 {
    let mut right: Vec<f64> = (0..MENTIONS).map(|_| d_prime + stream.noise(noise)).collect();
    let at = (lost * MENTIONS as f64) as usize;
    let (_, &mut threshold, _) = right.select_nth_unstable_by(at, f64::total_cmp);
    crate::estimate::mean(MENTIONS, || f64::from(spread * stream.noise(noise) < threshold))
}

pub(super) fn removed(seed: u64) -> Check {
    let facts = Facts {
        parameter: "fraction of correct mentions given up",
        ..facts(
            "deletion-removed",
            "Hallucinated mentions that go when mentions are deleted from the lowest score on, d′ = 1.1 (AUC 0.78)",
            "Φ(Φ⁻¹(lost) + d′)",
        )
    };
    facts.check(
        seed,
        (&[LOST, 0.02, 0.05, 0.1, 0.2], 0),
        |lost| deletion::removed(D_PRIME, lost),
        |lost, stream| simulated((D_PRIME, 1.0), lost, Noise::Gaussian, stream),
    )
}

pub(super) fn chair(seed: u64) -> Check {
    let facts = facts(
        "deletion-chair",
        "CHAIR_I after deleting mentions at the cost of 1 % of recall, 20 % before",
        "(1 − h) C/((1 − h) C + 0.99 (1 − C)), h = Φ(Φ⁻¹(0.01) + d′)",
    );
    let after = |removed: f64| chair_after(CHAIR, LOST, removed);
    facts.check(
        seed,
        (&[0.6, 0.7, 0.8, 0.9, 0.95, 0.99], 2),
        |auc| after(deletion::removed(d_prime(auc), LOST)),
        |auc, stream| after(simulated((d_prime(auc), 1.0), LOST, Noise::Gaussian, stream)),
    )
}
