//! Which positions of a padded batch are real response tokens.

use burn::tensor::{Int, Tensor};

/// The real response tokens of a padded batch `[B, T]`, row by row.
///
/// Losses run on gathered tokens rather than on padded rows times a mask: a NaN in a padding
/// position times zero is still a NaN, whereas a position that is never read contributes nothing,
/// forwards or backwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealTokens {
    /// Flat positions `b · T + t`, ascending.
    positions: Vec<i64>,
    batch: usize,
    width: usize,
}

impl RealTokens {
    /// Marks `spans[b]` of every row `b` as real.
    ///
    /// * `spans` — one range of columns per row, `[B]`.
    /// * `width` — `T`, columns of the padded batch.
    pub fn new(spans: &[std::ops::Range<usize>], width: usize) -> Self {
        let positions = spans
            .iter()
            .enumerate()
            .flat_map(|(row, span)| {
                assert!(span.end <= width, "row {row}: {span:?} exceeds {width} columns");
                span.clone().map(move |column| (row * width + column) as i64)
            })
            .collect();
        Self { positions, batch: spans.len(), width }
    }

    /// `N`, how many real tokens there are.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The real tokens' scalars.
    ///
    /// # Shapes
    /// `[B, T]` → `[N]`
    pub fn gather(&self, padded: Tensor<2>) -> Tensor<1> {
        assert_eq!(padded.dims(), [self.batch, self.width], "shape of the padded batch");
        let index = self.index(&padded.device());
        padded.reshape([self.batch * self.width]).select(0, index)
    }

    /// The real tokens' vectors: hidden states, so that the vocabulary projection runs on `N` rows
    /// instead of `B · T`.
    ///
    /// # Shapes
    /// `[B, T, D]` → `[N, D]`
    pub fn gather_vectors(&self, padded: Tensor<3>) -> Tensor<2> {
        let [batch, width, dimension] = padded.dims();
        assert_eq!([batch, width], [self.batch, self.width], "shape of the padded batch");
        let index = self.index(&padded.device());
        padded.reshape([batch * width, dimension]).select(0, index)
    }

    fn index(&self, device: &burn::tensor::Device) -> Tensor<1, Int> {
        Tensor::from_data(self.positions.as_slice(), device)
    }
}
