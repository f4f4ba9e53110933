//! Images of any shape, brought to whole squares and to a number of pixels within bounds.

use serde::{Deserialize, Serialize};

/// Qwen2-VL's way: each side becomes a multiple of `factor`, and the whole has from `least` to `most` pixels where the aspect ratio
/// allows it, which is kept as far as possible.
///
/// Paper: Wang et al. 2024, arXiv 2409.12191, §2.1. Reference: transformers' `smart_resize`, which refuses images more than 200 times
/// as long as wide; here they are brought to size like others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelBudget {
    /// Pixels, at least 1.
    pub factor: u32,
    /// Pixels of the whole image, at least 1.
    pub least: u64,
    /// Pixels of the whole image.
    pub most: u64,
}

impl PixelBudget {
    /// Width and height of an image of this size once it is prepared.
    pub fn size(&self, (width, height): (u32, u32)) -> (u64, u64) {
        let factor = u64::from(self.factor);
        let squares = |side: u32, scale: f64, round: fn(f64) -> f64| {
            round(f64::from(side) * scale / f64::from(self.factor)) as u64 * factor
        };
        let both = |scale, round| (squares(width, scale, round), squares(height, scale, round));
        // Ties go to the even number of squares.
        let (across, down) = both(1.0, f64::round_ties_even);
        let pixels = f64::from(width) * f64::from(height);
        if across * down > self.most {
            let scale = (pixels / self.most as f64).sqrt();
            let shrunk =
                |side: u32| (f64::from(side) / scale / f64::from(self.factor)).floor() as u64;
            return (shrunk(width).max(1) * factor, shrunk(height).max(1) * factor);
        }
        if across * down < self.least {
            return both((self.least as f64 / pixels).sqrt(), f64::ceil);
        }
        (across, down)
    }
}

#[cfg(test)]
mod tests {
    use super::PixelBudget;

    /// Sizes by transformers 5.24's `smart_resize`.
    #[test]
    fn sizes_are_those_of_smart_resize() {
        let budget = PixelBudget { factor: 28, least: 3136, most: 1_003_520 };
        let cases = [
            ((640, 480), (644, 476)),
            ((1920, 1080), (1316, 728)),
            ((30, 22), (84, 56)),
            ((42, 70), (56, 56)),
            ((70, 70), (56, 56)),
            ((14, 2800), (28, 812)),
            ((1800, 9), (812, 28)),
            ((3000, 5000), (756, 1288)),
        ];
        for (image, expected) in cases {
            assert_eq!(budget.size(image), expected, "{image:?}");
        }
    }
}
