//! A closed form beside its Monte Carlo estimate.

use serde::Serialize;

use crate::estimate::{Estimate, estimate};
use crate::random::Stream;

/// Largest relative error a check may have.
pub const TOLERANCE: f64 = 0.05;

/// Points of a closed form that is drawn.
const DRAWN: u32 = 80;

/// What a formula is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// When feedback from the image lowers the loss.
    Feedback,
    /// One reward per response or one per token.
    Credit,
    /// Rewards from a verifier of a given AUC.
    WeakVerifier,
    /// What a KL penalty does, and how it is estimated.
    KlPenalty,
}

/// Whose a formula is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The set-up or the claim of arXiv 2410.14148, in the form of this project.
    Paper,
    /// Derived here.
    Ours,
    /// Known before; the source says from where.
    Known,
}

/// What is said of a formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Identifies the check.
    pub name: &'static str,
    /// What it is about.
    pub topic: Topic,
    /// What is compared, in a sentence.
    pub what: &'static str,
    /// The closed form.
    pub formula: &'static str,
    /// Whose it is.
    pub origin: Origin,
    /// Where it comes from.
    pub source: &'static str,
    /// What varies along the curve, with its unit.
    pub parameter: &'static str,
    /// What it takes for granted.
    pub assumptions: &'static [&'static str],
}

/// One point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The parameter.
    pub x: f64,
    /// The closed form there.
    pub closed_form: f64,
    /// The simulation's estimate there.
    pub monte_carlo: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// A closed form beside its Monte Carlo estimate, at one value of the parameter and along a curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What is compared.
    #[serde(flatten)]
    pub facts: Facts,
    /// Value of the parameter.
    pub at: f64,
    /// The closed form there.
    pub closed_form: f64,
    /// The simulation's estimate there.
    pub monte_carlo: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// |Monte Carlo/closed form − 1|.
    pub relative_error: f64,
    /// The same along the parameter.
    pub curve: Vec<CurvePoint>,
    /// The closed form in small steps, to be drawn: x and y.
    #[serde(skip)]
    pub line: Vec<(f64, f64)>,
}

impl Facts {
    /// Compares along `grid`, rising, and takes entry `main` of it as the check's own.
    pub fn check(
        self,
        seed: u64,
        (grid, main): (&[f64], usize),
        closed: impl Fn(f64) -> f64,
        simulate: impl Fn(f64, &mut Stream) -> f64 + Sync,
    ) -> Check {
        let point = |(index, &x): (usize, &f64)| {
            let name = format!("{}/{index}", self.name);
            let Estimate { value, standard_error } =
                estimate(seed, &name, |stream| simulate(x, stream));
            CurvePoint { x, closed_form: closed(x), monte_carlo: value, standard_error }
        };
        let curve: Vec<CurvePoint> = grid.iter().enumerate().map(point).collect();
        let (low, high) = (grid[0], grid[grid.len() - 1]);
        let at = |step| low + (high - low) * f64::from(step) / f64::from(DRAWN);
        let line = (0..=DRAWN).map(at).map(|x| (x, closed(x))).collect();
        let CurvePoint { x, closed_form, monte_carlo, standard_error } = curve[main];
        let relative_error = (monte_carlo / closed_form - 1.0).abs();
        Check {
            facts: self,
            at: x,
            closed_form,
            monte_carlo,
            standard_error,
            relative_error,
            curve,
            line,
        }
    }
}

/// A closed form beside a simulation that violates one of its assumptions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Violation {
    /// Name of the check.
    pub check: &'static str,
    /// What the closed form takes for granted.
    pub assumption: &'static str,
    /// What holds instead.
    pub instead: &'static str,
    /// What the closed form predicts.
    pub closed_form: f64,
    /// What the simulation finds.
    pub monte_carlo: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Monte Carlo/closed form − 1.
    pub deviation: f64,
}

impl Violation {
    /// Simulates what holds `instead`.
    pub fn of(
        seed: u64,
        check: &'static str,
        (assumption, instead): (&'static str, &'static str),
        closed_form: f64,
        simulate: impl Fn(&mut Stream) -> f64 + Sync,
    ) -> Self {
        let found = estimate(seed, &format!("{check}: {instead}"), simulate);
        let Estimate { value: monte_carlo, standard_error } = found;
        let deviation = monte_carlo / closed_form - 1.0;
        Self { check, assumption, instead, closed_form, monte_carlo, standard_error, deviation }
    }
}
