//! Backgrounds: named colours in simple patterns, drawn independently of the objects.

use image::{Rgb, RgbImage};
use rand::{Rng, RngExt};

use crate::IMAGE_SIZE;

/// A colour with the name captions use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Colour {
    /// The name; never an object word, which is why no background is orange.
    pub name: &'static str,
    /// Its sRGB value in this scene (the palette's value, slightly varied).
    pub rgb: [u8; 3],
}

/// How the colours fill the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The first colour everywhere.
    Plain,
    /// The first colour with coarse noise.
    Grain,
    /// From the first colour at the top to the second at the bottom.
    Gradient,
    /// The first colour above this row, the second below.
    Bands {
        /// First row of the lower band.
        horizon: u32,
    },
    /// A chequerboard of the two colours.
    Tiles {
        /// Side of a tile in pixels.
        side: u32,
    },
}

/// What lies behind the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Background {
    /// How it is filled.
    pub pattern: Pattern,
    /// First colour.
    pub first: Colour,
    /// Second colour, where the pattern has one.
    pub second: Colour,
    /// Seed of the fine noise that covers every background.
    pub grain: u32,
}

const PALETTE: [Colour; 14] = [
    Colour { name: "red", rgb: [196, 92, 88] },
    Colour { name: "green", rgb: [124, 178, 112] },
    Colour { name: "dark green", rgb: [52, 98, 62] },
    Colour { name: "blue", rgb: [104, 152, 208] },
    Colour { name: "light blue", rgb: [176, 212, 238] },
    Colour { name: "dark blue", rgb: [44, 62, 108] },
    Colour { name: "yellow", rgb: [234, 216, 130] },
    Colour { name: "purple", rgb: [146, 114, 176] },
    Colour { name: "pink", rgb: [238, 184, 198] },
    Colour { name: "brown", rgb: [138, 106, 78] },
    Colour { name: "grey", rgb: [156, 156, 156] },
    Colour { name: "white", rgb: [240, 240, 236] },
    Colour { name: "beige", rgb: [226, 212, 184] },
    Colour { name: "teal", rgb: [84, 160, 154] },
];

/// Largest change of a palette colour's channels between scenes.
const COLOUR_VARIATION: i32 = 10;

impl Background {
    pub(crate) fn draw(rng: &mut impl Rng) -> Self {
        let first = rng.random_range(0..PALETTE.len());
        // The two colours always differ, or a caption that names both would be misleading.
        let second = (first + rng.random_range(1..PALETTE.len())) % PALETTE.len();
        let pattern = match rng.random_range(0..5) {
            0 => Pattern::Plain,
            1 => Pattern::Grain,
            2 => Pattern::Gradient,
            3 => Pattern::Bands { horizon: rng.random_range(36..64) },
            _ => Pattern::Tiles { side: [8, 12, 16, 24][rng.random_range(0..4)] },
        };
        Self {
            pattern,
            first: varied(PALETTE[first], rng),
            second: varied(PALETTE[second], rng),
            grain: rng.random(),
        }
    }

    pub(crate) fn paint(&self) -> RgbImage {
        let mut noise = u64::from(self.grain) << 1 | 1;
        let strength = if self.pattern == Pattern::Grain { 16 } else { 3 };
        RgbImage::from_fn(IMAGE_SIZE, IMAGE_SIZE, |x, y| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let shift = (noise >> 33) as i32 % (2 * strength + 1) - strength;
            Rgb(self
                .colour_at(x, y)
                .map(|channel| (i32::from(channel) + shift).clamp(0, 255) as u8))
        })
    }

    fn colour_at(&self, x: u32, y: u32) -> [u8; 3] {
        let (first, second) = (self.first.rgb, self.second.rgb);
        match self.pattern {
            Pattern::Plain | Pattern::Grain => first,
            Pattern::Gradient => std::array::from_fn(|channel| {
                let (from, to) = (u32::from(first[channel]), u32::from(second[channel]));
                ((from * (IMAGE_SIZE - 1 - y) + to * y) / (IMAGE_SIZE - 1)) as u8
            }),
            Pattern::Bands { horizon } => [first, second][usize::from(y >= horizon)],
            Pattern::Tiles { side } => [first, second][((x / side + y / side) % 2) as usize],
        }
    }
}

fn varied(colour: Colour, rng: &mut impl Rng) -> Colour {
    let rgb = colour.rgb.map(|channel| {
        (i32::from(channel) + rng.random_range(-COLOUR_VARIATION..=COLOUR_VARIATION)).clamp(0, 255)
            as u8
    });
    Colour { rgb, ..colour }
}
