//! Ranges of settings: every number has one; the widest are those of [`COUNTS`] and [`LARGEST`], beyond which nothing can be
//! meant.

use std::ops::RangeInclusive;

use crate::error::AlignError;

/// Counts without a range of their own.
pub const COUNTS: RangeInclusive<usize> = 0..=1_000_000_000;

/// Largest real number of settings without a range of their own.
pub const LARGEST: f64 = 1e9;

pub(crate) const ABOVE_ZERO: &str = "above 0, at most 1e9";

pub(crate) const ZERO_OR_MORE: &str = "from 0 to 1e9";

pub(crate) const RATE: &str = "above 0, at most 1";

pub(crate) fn positive(x: f64) -> bool {
    x > 0.0 && x <= LARGEST
}

pub(crate) fn not_negative(x: f64) -> bool {
    (0.0..=LARGEST).contains(&x)
}

/// Whether a number can be a learning rate.
pub(crate) fn is_rate(x: f64) -> bool {
    x > 0.0 && x <= 1.0
}

/// Refuses a count outside its range.
pub(crate) fn within(
    key: &str,
    value: usize,
    range: RangeInclusive<usize>,
) -> Result<(), AlignError> {
    let allowed = format!("from {} to {}", range.start(), range.end());
    count(key, value, range.contains(&value), &allowed)
}

/// Refuses a real number outside its range.
pub(crate) fn real(
    key: &str,
    value: f64,
    allowed: impl Fn(f64) -> bool,
    range: &str,
) -> Result<(), AlignError> {
    if allowed(value) { Ok(()) } else { Err(out_of_range(key, &value.to_string(), range)) }
}

/// Refuses a count that is not allowed.
pub(crate) fn count(key: &str, value: usize, allowed: bool, range: &str) -> Result<(), AlignError> {
    if allowed { Ok(()) } else { Err(out_of_range(key, &value.to_string(), range)) }
}

pub(crate) fn out_of_range(key: &str, found: &str, allowed: &str) -> AlignError {
    AlignError::OutOfRange {
        key: key.to_owned(),
        found: found.to_owned(),
        allowed: allowed.to_owned(),
    }
}
