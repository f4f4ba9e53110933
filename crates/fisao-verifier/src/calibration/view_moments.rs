//! Cross moments of three views: where their fit starts, and whether it may be believed.

use super::CalibrationError;
use super::levels::Levels;
use super::weighted::Captions;

/// Standard errors by which every covariance has to exceed 0.
const COVARIANCE_ERRORS: f64 = 2.0;
/// Standard errors by which the covariance of two squared views may miss what the fit foretells. Of 1,835 simulated worlds
/// with independent views none missed by more; a correlation of 0.3 within the classes does in every world of 2,000 mentions.
const DEPENDENCE_ERRORS: f64 = 3.0;
/// Fractions between which a start may lie; T is noisy.
const INITIAL_FRACTIONS: (f64, f64) = (0.55, 0.95);

pub(super) const NAMES: [&str; 3] = ["score", "second view", "third view"];
const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

/// Fraction of correct mentions and gaps between the class means of three views, by the method of moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    /// π, kept within [`INITIAL_FRACTIONS`].
    fraction: f64,
    /// `Δ_j`, in normal scores.
    gaps: [f64; 3],
}

impl Moments {
    /// Of normal scores.
    ///
    /// # Errors
    /// [`CalibrationError::Opposed`] and [`CalibrationError::Unrelated`] for a pair that varies in opposite directions or
    /// not beyond its sampling error.
    pub(super) fn of(views: &[Levels; 3], captions: &Captions) -> Result<Self, CalibrationError> {
        let centred = views.each_ref().map(|view| centred(&view.values(), 1));
        let mut covariances = [0.0; 3];
        for (covariance, (j, k)) in covariances.iter_mut().zip(PAIRS) {
            let error;
            (*covariance, error) = covariance_and_error(&centred[j], &centred[k], captions);
            let (first, second, covariance) = (NAMES[j], NAMES[k], *covariance);
            if covariance < -COVARIANCE_ERRORS * error {
                return Err(CalibrationError::Opposed { first, second, covariance, error });
            }
            if covariance <= COVARIANCE_ERRORS * error {
                return Err(CalibrationError::Unrelated { first, second, covariance, error });
            }
        }
        let [c12, c13, c23] = covariances;
        let count = centred[0].len();
        let third: f64 = (0..count).map(|i| centred.iter().map(|x| x[i]).product::<f64>()).sum();
        let skew = third / count as f64 / (c12 * c13 * c23).sqrt();
        // (1 − 2π)/√(π(1 − π)) = u  ⇔  π = (1 − u/√(4 + u²))/2
        let fraction = (f64::midpoint(1.0, -skew / skew.hypot(2.0)))
            .clamp(INITIAL_FRACTIONS.0, INITIAL_FRACTIONS.1);
        let variance = fraction * (1.0 - fraction);
        let gap = |own: f64, opposite: f64| (own / (opposite * variance)).sqrt();
        let gaps = [gap(c12 * c13, c23), gap(c12 * c23, c13), gap(c13 * c23, c12)];
        Ok(Self { fraction, gaps })
    }

    /// P(correct) of every mention, by Bayes' rule with Gaussian classes of equal spread.
    pub(super) fn responsibilities(&self, views: &[Levels; 3]) -> Vec<f64> {
        let (fraction, count) = (self.fraction, views[0].of.len());
        let mut odds = vec![(fraction / (1.0 - fraction)).ln(); count];
        for (view, gap) in views.iter().zip(self.gaps) {
            let values = view.values();
            let mean = values.iter().sum::<f64>() / count as f64;
            let variance = centred(&values, 1).iter().map(|x| x * x).sum::<f64>() / count as f64;
            // What the gap leaves of the variance; a gap that is too large for it by chance leaves some.
            let within = (variance - fraction * (1.0 - fraction) * gap * gap).max(0.2 * variance);
            let middle = mean + (0.5 - fraction) * gap;
            for (odds, value) in odds.iter_mut().zip(values) {
                *odds += gap * (value - middle) / within;
            }
        }
        odds.into_iter().map(|odds| 1.0 / (1.0 + (-odds).exp())).collect()
    }
}

/// Whether squared views covary as the classes `correct` foretell for views that are independent within them.
///
/// ```text
/// Cov(g_j², g_k²) = π(1 − π) Δ(g_j²) Δ(g_k²)         g: normal scores
/// ```
///
/// # Errors
/// [`CalibrationError::Dependent`] names the worst pair.
pub(super) fn check_independence(
    views: &[Levels; 3],
    correct: &[f64],
    captions: &Captions,
) -> Result<(), CalibrationError> {
    let count = correct.len() as f64;
    let squares = views.each_ref().map(|view| centred(&centred(&view.values(), 2), 1));
    let right: f64 = correct.iter().sum();
    let gap = |values: &[f64]| {
        let of_right: f64 = values.iter().zip(correct).map(|(x, q)| x * q).sum();
        // The values sum to 0, so those of the other class to −of_right.
        of_right / right + of_right / (count - right)
    };
    let between = right / count * (1.0 - right / count);
    let mut worst = None;
    for (j, k) in PAIRS {
        let (found, error) = covariance_and_error(&squares[j], &squares[k], captions);
        let deviation = (found - between * gap(&squares[j]) * gap(&squares[k])) / error;
        if deviation.abs() > worst.map_or(DEPENDENCE_ERRORS, |(worst, _, _): (f64, _, _)| worst) {
            worst = Some((deviation.abs(), NAMES[j], NAMES[k]));
        }
    }
    match worst {
        Some((errors, first, second)) => Err(CalibrationError::Dependent { first, second, errors }),
        None => Ok(()),
    }
}

/// Powers of values less their mean.
fn centred(values: &[f64], power: i32) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (value - mean).powi(power)).collect()
}

/// Mean product of centred values and its standard error.
fn covariance_and_error(first: &[f64], second: &[f64], captions: &Captions) -> (f64, f64) {
    let products: Vec<f64> = first.iter().zip(second).map(|(a, b)| a * b).collect();
    captions.mean_and_error(&products)
}

#[cfg(test)]
mod tests {
    use super::super::levels::Levels;
    use super::super::weighted::Captions;
    use super::{Moments, check_independence};

    /// Three signals of two values, high with probability ¾ in one class and ¼ in the other, ¾ of all mentions in the
    /// first: k high ones of 256 mentions, 3 · 3^k + 3^(3 − k) times. The identities then hold without error.
    fn exact() -> ([Levels; 3], Captions) {
        let mut signals: [Vec<f64>; 3] = Default::default();
        for pattern in 0..8_u32 {
            let high = pattern.count_ones();
            for _ in 0..3 * 3_u32.pow(high) + 3_u32.pow(3 - high) {
                for (bit, signal) in signals.iter_mut().enumerate() {
                    signal.push(f64::from(pattern >> bit & 1));
                }
            }
        }
        let captions = Captions::new(signals[0].len(), None);
        assert_eq!(signals[0].len(), 256);
        (signals.map(|signal| Levels::new(&signal, 64)), captions)
    }

    #[test]
    fn view_moments_recover_the_fraction_and_class_gaps() {
        let (views, captions) = exact();
        let found = Moments::of(&views, &captions).unwrap();
        assert!((found.fraction - 0.75).abs() < 1e-9, "{found:?}");
        for (gap, view) in found.gaps.iter().zip(&views) {
            let expected = 0.5 * (view.places[1] - view.places[0]);
            assert!((gap - expected).abs() < 1e-9, "{found:?}, not {expected}");
        }
    }

    #[test]
    fn independent_views_pass_the_independence_check() {
        let (views, captions) = exact();
        // P(correct | pattern) by Bayes' rule with the planted numbers: 3 · 3^k against 3^(3 − k).
        let probability = |mention: usize| {
            let high: i32 = views.iter().map(|view| view.of[mention] as i32).sum();
            let odds = 3.0_f64.powi(1 + high - (3 - high));
            odds / (1.0 + odds)
        };
        let correct: Vec<f64> = (0..256).map(probability).collect();
        assert_eq!(check_independence(&views, &correct, &captions), Ok(()));
    }
}
