//! Rows of ids on their way into the decoder: what stands in the places of an image, and at which positions.

use burn::tensor::Tensor;

use super::{ImageFeatures, VisionLanguageModel};
use crate::llama::{PositionScheme, Positions, PromptBatch};
use crate::parameters::indices;

/// Padded rows of ids, each about an image, or about several that [stand for one](ImageFeatures::shown_together).
#[derive(Debug, Clone, Copy)]
pub(crate) struct PromptRows<'a> {
    /// Rows of equal length.
    pub(crate) rows: &'a [Vec<u32>],
    /// Which image of the features each row shows.
    pub(crate) images: &'a [usize],
    /// Padding before each row; none where it is behind.
    pub(crate) padding: &'a [usize],
}

/// What the decoder is given of some rows.
#[derive(Debug)]
pub(crate) struct DecoderInputs {
    /// Embeddings, `[batch · length, hidden]`.
    pub(crate) x: Tensor<2>,
    /// `[batch · length]`.
    pub(crate) positions: Positions,
    /// What is [added behind the first layers](crate::llama::Pass::deep).
    pub(crate) deep: Vec<Tensor<2>>,
    /// The position behind each row's last place.
    pub(crate) next: Vec<usize>,
}

impl DecoderInputs {
    /// The same as prompts with so much padding before each.
    pub(crate) fn batch<'a>(&'a self, padding: &'a [usize]) -> PromptBatch<'a> {
        let Self { x, positions, deep, .. } = self;
        PromptBatch { x: x.clone(), positions, deep, padding }
    }
}

/// Text to be embedded, and which of text and features behind each other stands in each place of a batch.
struct Arrangement {
    ids: Vec<i64>,
    order: Vec<i64>,
}

impl VisionLanguageModel {
    /// Embeddings, positions and additions of padded rows; see [`embed`](Self::embed).
    pub(crate) fn decoder_inputs(
        &self,
        rows: PromptRows<'_>,
        features: &ImageFeatures,
    ) -> DecoderInputs {
        let arrangement = self.arrange(rows.rows, rows.images, features);
        let (positions, next) = self.positions(rows, features);
        let text = arrangement.ids.len();
        let deep = self.additions(&arrangement.order, text, features);
        DecoderInputs { x: self.gather(arrangement, features), positions, deep, next }
    }

    /// Embeds padded rows of ids, image placeholders replaced by features in order.
    ///
    /// Placeholders beyond as many as the image has features are what a sampled response wrote: they
    /// show nothing and are embedded like any other token, as they were while sampling.
    ///
    /// # Shapes
    /// * `rows`: `batch` rows of equal length, each with at least as many placeholders as its image has
    ///   tokens
    /// * `images`: which image of `features` each row shows
    /// * result: `[batch · length, hidden]`
    pub fn embed(
        &self,
        rows: &[Vec<u32>],
        images: &[usize],
        features: &ImageFeatures,
    ) -> Tensor<2> {
        self.gather(self.arrange(rows, images, features), features)
    }

    fn gather(
        &self,
        Arrangement { ids, order }: Arrangement,
        features: &ImageFeatures,
    ) -> Tensor<2> {
        let device = self.device();
        let text = self.language_model.embed(indices(ids, &device));
        Tensor::cat(vec![text, features.tokens().clone()], 0).select(0, indices(order, &device))
    }

    /// Features stand behind the text in what rows are gathered from.
    fn arrange(
        &self,
        rows: &[Vec<u32>],
        images: &[usize],
        features: &ImageFeatures,
    ) -> Arrangement {
        let mut ids = Vec::new();
        let length = rows.first().map_or(0, Vec::len);
        let mut order = Vec::with_capacity(rows.len() * length);
        let shown: usize = images.iter().map(|&image| features.counts()[image]).sum();
        let text_count = (rows.len() * length).saturating_sub(shown);
        let firsts: Vec<usize> = features
            .counts()
            .iter()
            .scan(text_count, |next, count| Some(std::mem::replace(next, *next + count)))
            .collect();
        let placeholder = self.tokens().image;
        for (row, &image) in rows.iter().zip(images) {
            let tokens = features.counts()[image];
            let mut next = 0;
            for &id in row {
                if id == placeholder && next < tokens {
                    order.push((firsts[image] + next) as i64);
                    next += 1;
                } else {
                    order.push(ids.len() as i64);
                    ids.push(i64::from(id));
                }
            }
            assert!(
                next == tokens,
                "a row holds {next} image placeholders but its image has {tokens} features"
            );
        }
        Arrangement { ids, order }
    }

    /// Deep features at the image's places, zeros at those of text.
    fn additions(&self, order: &[i64], text: usize, features: &ImageFeatures) -> Vec<Tensor<2>> {
        if features.deep().is_empty() {
            return Vec::new();
        }
        let device = self.device();
        let of_text = text as i64 - 1;
        let order = order.iter().map(|&at| (at - of_text).max(0)).collect();
        let order = indices(order, &device);
        let place = |deep: &Tensor<2>| {
            let nothing = Tensor::zeros([1, deep.dims()[1]], &deep.device());
            Tensor::cat(vec![nothing, deep.clone()], 0).select(0, order.clone())
        };
        features.deep().iter().map(place).collect()
    }

    /// Positions of padded rows, and the position behind each of them. Padding before a row is at 0.
    fn positions(
        &self,
        PromptRows { rows, images, padding }: PromptRows<'_>,
        features: &ImageFeatures,
    ) -> (Positions, Vec<usize>) {
        let padding = |row: usize| padding.get(row).copied().unwrap_or(0);
        if self.language_model.config().positions == PositionScheme::Sequential {
            let own = rows.iter().enumerate().flat_map(|(row, ids)| {
                let padding = padding(row);
                (0..ids.len()).map(move |at| at.saturating_sub(padding))
            });
            let next = rows.iter().enumerate().map(|(row, ids)| ids.len() - padding(row));
            return (Positions::Single(own.collect()), next.collect());
        }
        let (mut positions, mut next) = (Vec::new(), Vec::with_capacity(rows.len()));
        for (row, (ids, &image)) in rows.iter().zip(images).enumerate() {
            let padding = padding(row);
            positions.resize(positions.len() + padding, [0; 3]);
            let (ids, grids) = (&ids[padding..], features.grids(image));
            next.push(place_on_grids(ids, self.tokens().image, grids, &mut positions));
        }
        (Positions::Triple(positions), next)
    }
}

/// Appends time, row and column of each token of a row whose images have grids of `[rows, columns]`; the position behind them. An
/// image takes one position in time; text goes on behind its longer side.
fn place_on_grids(
    ids: &[u32],
    placeholder: u32,
    grids: &[[usize; 2]],
    positions: &mut Vec<[usize; 3]>,
) -> usize {
    let (mut next, mut shown, mut corner) = (0, 0, 0);
    let mut grids = grids.iter().filter(|[rows, columns]| rows * columns > 0).peekable();
    for &id in ids {
        let grid = grids.peek().filter(|_| id == placeholder);
        let Some(&&[rows, columns]) = grid else {
            positions.push([next; 3]);
            next += 1;
            continue;
        };
        if shown == 0 {
            corner = next;
            next += rows.max(columns);
        }
        positions.push([corner, corner + shown / columns, corner + shown % columns]);
        shown += 1;
        if shown == rows * columns {
            shown = 0;
            grids.next();
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::place_on_grids;

    #[test]
    fn text_goes_on_behind_the_longer_side_of_an_image() {
        let mut positions = Vec::new();
        let next = place_on_grids(&[5, 9, 9, 9, 9, 9, 9, 6, 9], 9, &[[2, 3]], &mut positions);
        let image = [[1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 1], [1, 2, 2], [1, 2, 3]];
        let expected = [&[[0; 3]][..], &image, &[[4; 3], [5; 3]]].concat();
        assert_eq!((positions, next), (expected, 6));
    }

    #[test]
    fn second_image_begins_where_the_text_behind_the_first_has_come_to() {
        let mut positions = Vec::new();
        let next =
            place_on_grids(&[9, 9, 9, 5, 9, 9, 6], 9, &[[1, 2], [1, 1], [2, 1]], &mut positions);
        let expected = [[0; 3], [0, 0, 1], [2; 3], [3; 3], [4; 3], [4, 5, 4], [6; 3]].to_vec();
        assert_eq!((positions, next), (expected, 7));
    }
}
