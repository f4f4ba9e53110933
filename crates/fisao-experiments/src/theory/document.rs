//! What `theory.json` holds.

use fisao_report::html::{number, signed};
use fisao_report::table::Table;
use fisao_theory::comparison::{Check, TOLERANCE, Violation};
use serde::Serialize;

use super::measured::Measurement;

/// All comparisons with one seed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Theory {
    schema: u32,
    fisao: &'static str,
    /// Seed of every simulation.
    pub(super) seed: u64,
    /// Largest relative error of a check that is allowed.
    tolerance: f64,
    /// Largest relative error of the checks.
    pub(super) largest_relative_error: f64,
    /// Closed forms beside their simulations.
    pub(super) checks: Vec<Check>,
    /// Closed forms beside simulations that violate an assumption.
    pub(super) assumptions: Vec<Violation>,
    /// The same quantities on the built-in datasets.
    pub(super) measured: Vec<Measurement>,
}

impl Theory {
    /// Of what was compared.
    pub(super) fn new(
        seed: u64,
        checks: Vec<Check>,
        assumptions: Vec<Violation>,
        measured: Vec<Measurement>,
    ) -> Self {
        let errors = checks.iter().map(|check| check.relative_error);
        Self {
            schema: 1,
            fisao: env!("CARGO_PKG_VERSION"),
            seed,
            tolerance: TOLERANCE,
            largest_relative_error: errors.fold(0.0, f64::max),
            checks,
            assumptions,
            measured,
        }
    }

    /// Checks whose error is larger than it may be.
    pub(super) fn inaccurate(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.relative_error > TOLERANCE)
    }

    /// One row for each check.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&["check", "closed form", "Monte Carlo", "± s.e.", "error %"]);
        for check in &self.checks {
            table.row([
                check.facts.name.to_owned(),
                digits(check.closed_form),
                digits(check.monte_carlo),
                digits(check.standard_error),
                number(100.0 * check.relative_error, 2),
            ]);
        }
        table
    }

    /// One row for each quantity of a built-in dataset.
    pub(super) fn measurements(&self) -> Table {
        let mut table =
            Table::new(&["dataset", "quantity", "predicted", "measured", "deviation %"]);
        for measurement in &self.measured {
            table.row([
                measurement.dataset.to_owned(),
                measurement.what.clone(),
                digits(measurement.predicted),
                digits(measurement.measured),
                signed(100.0 * measurement.deviation, 1),
            ]);
        }
        table
    }

    /// One row for each violated assumption.
    pub(super) fn violations(&self) -> Table {
        let mut table = Table::new(&[
            "check",
            "assumption",
            "simulated instead",
            "closed form",
            "Monte Carlo",
            "deviation %",
        ]);
        for violation in &self.assumptions {
            table.row([
                violation.check.to_owned(),
                violation.assumption.to_owned(),
                violation.instead.to_owned(),
                digits(violation.closed_form),
                digits(violation.monte_carlo),
                signed(100.0 * violation.deviation, 1),
            ]);
        }
        table
    }
}

/// A number with about four digits.
pub(super) fn digits(value: f64) -> String {
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    number(value, (3.0 - magnitude).clamp(0.0, 6.0) as usize)
}
