//! Which rows are held out, and the order in which the others are gone through.
//!
//! Both are sorted out by a hash of a seed with what is to be placed, so that they are the same on every
//! machine, and a row's place depends on nothing but the seed and itself.

use std::ops::Range;

/// Rows to train on and rows to validate with, by index, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Rows to train on.
    pub training: Vec<u32>,
    /// Rows held out.
    pub validation: Vec<u32>,
}

/// Holds out the rows whose image falls into a fraction of the hash's range.
pub(super) fn split(images: impl Iterator<Item = u32>, fraction: f64, seed: u64) -> Split {
    let mut split = Split::default();
    for (row, image) in (0..).zip(images) {
        // 53 bits are what an f64 in [0, 1) has.
        let position = (hash(seed, u64::from(image)) >> 11) as f64 / (1_u64 << 53) as f64;
        if position < fraction { &mut split.validation } else { &mut split.training }.push(row);
    }
    split
}

/// Rows by image, in the order of the images' hashes.
pub(super) fn by_image(images: &[u32], seed: u64) -> Vec<Vec<u32>> {
    let mut rows: Vec<(u64, u32, u32)> =
        (0..).zip(images).map(|(row, &image)| (hash(seed, u64::from(image)), image, row)).collect();
    rows.sort_unstable();
    let of_image = |rows: &[(u64, u32, u32)]| rows.iter().map(|&(_, _, row)| row).collect();
    rows.chunk_by(|(_, one, _), (_, other, _)| one == other).map(of_image).collect()
}

/// Rows in a random order that leaves those of a block together.
pub(super) fn shuffle(rows: &[u32], blocks: &[Range<usize>], seed: u64) -> Vec<u32> {
    let key = |row: u32| {
        let block = blocks.partition_point(|block| block.end <= row as usize);
        // The block's number keeps blocks of equal hash apart.
        let order = hash(seed, 1 << 32 | block as u64);
        (order, block, hash(seed, u64::from(row)), row)
    };
    let mut rows = rows.to_vec();
    rows.sort_by_cached_key(|&row| key(row));
    rows
}

/// The output function of `SplitMix64`, twice.
fn hash(seed: u64, value: u64) -> u64 {
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    mix(mix(seed) ^ value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_fraction_is_held_out_and_images_are_not_split() {
        // Four rows per image.
        let images = || (0..40_000).map(|row| row / 4);
        let split = split(images(), 0.1, 7);
        assert_eq!(split, super::split(images(), 0.1, 7));
        assert_ne!(split, super::split(images(), 0.1, 8));
        // 10 000 images, whose standard deviation is 30.
        let held_out = split.validation.len() as f64 / 4.0;
        assert!((held_out - 1000.0).abs() < 120.0, "{held_out}");
        assert_eq!(split.validation.len() + split.training.len(), 40_000);
        assert!(split.validation.chunks(4).all(|rows| rows[0] % 4 == 0 && rows[3] == rows[0] + 3));
        assert!(super::split(images(), 0.0, 7).validation.is_empty());
        assert!(super::split(images(), 1.0, 7).training.is_empty());
    }

    #[test]
    fn rows_of_an_image_stay_together_in_a_seeded_order() {
        let images: Vec<u32> = (0..400).map(|row| row % 100).collect();
        let groups = by_image(&images, 7);
        assert_eq!((groups.len(), &groups), (100, &by_image(&images, 7)));
        assert_ne!(groups, by_image(&images, 8));
        assert!(groups.iter().all(|rows| rows.len() == 4 && rows[3] == rows[0] + 300));
        let mut all = groups.concat();
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
        // An image's neighbours do not move it: without the last ten the others keep their order.
        let fewer =
            by_image(&images.iter().copied().filter(|image| *image < 90).collect::<Vec<_>>(), 7);
        let kept = groups.iter().filter(|rows| rows[0] < 90).map(|rows| rows[0] % 100);
        assert_eq!(
            fewer.iter().map(|rows| rows[0] % 90).collect::<Vec<_>>(),
            kept.collect::<Vec<_>>()
        );
    }

    #[test]
    fn shuffle_is_a_permutation_that_visits_each_block_once() {
        let blocks = [0..100, 100..130, 130..131, 131..400];
        let rows: Vec<u32> = (0..400).filter(|row| row % 3 > 0).collect();
        let shuffled = shuffle(&rows, &blocks, 1);
        assert_ne!(shuffled, shuffle(&rows, &blocks, 2));
        let mut sorted = shuffled.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, rows);
        assert_ne!(shuffled, rows);
        let block = |row: &u32| blocks.iter().position(|block| block.contains(&(*row as usize)));
        let mut visited: Vec<_> = shuffled.iter().map(block).collect();
        visited.dedup();
        assert_eq!(visited.len(), 4, "every block is entered once");
    }
}
