//! Where in an image a name is seen.

/// Cosines of a name with the patches of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Patches along each side of the image as the encoder takes it.
    pub side: usize,
    /// One cosine for each patch, row by row from the upper left, `[side · side]`.
    pub cosines: Vec<f64>,
}

impl HeatMap {
    /// Lowest and highest cosine.
    pub fn range(&self) -> (f64, f64) {
        let low = self.cosines.iter().copied().fold(f64::INFINITY, f64::min);
        (low, self.cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}
