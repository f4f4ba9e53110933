//! A signal reduced to the order of its values: levels of about equal size with a normal score each.

use super::normal::normal_quantile;

/// One signal of every mention, cut into levels.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    /// Level of every mention.
    pub(super) of: Vec<usize>,
    /// Normal score of every level, Φ⁻¹ of the fraction of mentions below its middle; rises with the level.
    pub(super) places: Vec<f64>,
}

impl Levels {
    /// At most `most` levels. Equal values share one, so that a signal with few values keeps exactly these.
    pub(super) fn new(values: &[f64], most: usize) -> Self {
        let count = values.len() as f64;
        // Adding 0 makes −0 the same value as 0 in the total order below.
        let compare = |a: &usize, b: &usize| (values[*a] + 0.0).total_cmp(&(values[*b] + 0.0));
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(compare);
        let mut of = vec![0; values.len()];
        let mut sizes: Vec<usize> = Vec::new();
        let (mut before, mut last) = (0, None);
        for tied in order.chunk_by(|a, b| compare(a, b).is_eq()) {
            let middle = (before as f64 + tied.len() as f64 / 2.0) / count;
            let cut = ((middle * most as f64) as usize).min(most - 1);
            if last != Some(cut) {
                sizes.push(0);
                last = Some(cut);
            }
            for &index in tied {
                of[index] = sizes.len() - 1;
            }
            *sizes.last_mut().expect("a level has just been opened") += tied.len();
            before += tied.len();
        }
        let mut below = 0;
        let places = sizes.iter().map(|size| {
            let middle = (below as f64 + *size as f64 / 2.0) / count;
            below += size;
            normal_quantile(middle)
        });
        Self { places: places.collect(), of }
    }

    /// Normal score of every mention.
    pub(super) fn values(&self) -> Vec<f64> {
        self.of.iter().map(|level| self.places[*level]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Levels;

    #[test]
    fn levels_follow_rank_order_and_ties_share_a_level() {
        let levels = Levels::new(&[0.3, 0.1, 0.2, 0.1, 9.0, 0.1, 0.25, 0.2], 4);
        assert_eq!(levels.of, [2, 0, 1, 0, 2, 0, 1, 1]);
        // Middles of ties among eight: 1.5, 4, 5.5, 6.5, 7.5, cut at 2, 4, 6. Middles of the levels: 1.5/8, 4.5/8
        // and 7/8; quantiles from tables.
        for (found, expected) in levels.places.iter().zip([-0.887_15, 0.157_31, 1.150_35]) {
            assert!((found - expected).abs() < 1e-4, "{:?}", levels.places);
        }
    }
}
