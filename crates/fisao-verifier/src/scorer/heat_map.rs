//! Where in an image a name is seen.

/// What one map says of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeatMapUnit {
    /// Cosine of the name with a patch.
    Cosine,
    /// Highest probability that the decoder's head gives the name's first token at an image token, behind any of the layers that
    /// are read.
    Probability,
}

/// How well a name fits each place of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// What the values are.
    pub unit: HeatMapUnit,
    /// Places from top to bottom of the image as the encoder takes it.
    pub rows: usize,
    /// Places from left to right.
    pub columns: usize,
    /// One value for each place, row by row from the upper left, `[rows · columns]`.
    pub values: Vec<f64>,
}

impl HeatMap {
    /// Lowest and highest value.
    pub fn range(&self) -> (f64, f64) {
        let low = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        (low, self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}
