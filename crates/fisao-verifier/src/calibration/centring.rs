//! Per-category centring: image–text scores carry a strong bias per word, and one pair of
//! thresholds serves all words only after it is taken away.

use std::collections::BTreeMap;

use super::{Calibration, CalibrationError};

/// Mean score of each category over mismatched images, from (category, score) pairs.
pub fn category_means<'a>(
    mismatched: impl IntoIterator<Item = (&'a str, f64)>,
) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for (category, score) in mismatched {
        let entry = sums.entry(category.to_owned()).or_default();
        *entry = (entry.0 + score, entry.1 + 1);
    }
    sums.into_iter().map(|(category, (sum, count))| (category, sum / count as f64)).collect()
}

impl Calibration {
    /// Records the means that were subtracted from the scores this calibration was fitted on.
    #[must_use]
    pub fn with_category_means(mut self, means: BTreeMap<String, f64>) -> Self {
        self.category_means = Some(means);
        self
    }

    /// Brings a raw score to the scale of this calibration: less its category's mean when scores
    /// are centred, unchanged otherwise.
    ///
    /// # Errors
    /// A category that was not calibrated: a raw score among centred ones would be far off.
    pub fn centred(&self, category: &str, score: f64) -> Result<f64, CalibrationError> {
        let Some(means) = &self.category_means else {
            return Ok(score);
        };
        let mean = means
            .get(category)
            .ok_or_else(|| CalibrationError::Uncentred { category: category.to_owned() })?;
        Ok(score - mean)
    }
}
