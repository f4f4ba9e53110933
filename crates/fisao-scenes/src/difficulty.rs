//! How hard the images of a world are to see, in numbers.

use serde::{Deserialize, Serialize};

/// Which of the built-in synthetic datasets.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum WorldKind {
    /// Large objects in full colour: an encoder learns to be right about every word.
    #[default]
    Clear,
    /// Small, faint, covered objects that look like others: an encoder stays in doubt about many words.
    Hard,
}

impl WorldKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Clear, Self::Hard];

    /// Lower-case name, as in settings and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Hard => "hard",
        }
    }

    /// How hard its images are.
    pub const fn difficulty(self) -> Difficulty {
        match self {
            Self::Clear => Difficulty::CLEAR,
            Self::Hard => Difficulty::HARD,
        }
    }
}

/// How hard images are to see. What is in them stays known: none of these numbers touches which objects a scene holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difficulty {
    /// Lengths of a drawn sprite's longer side in pixels, smallest first.
    pub sizes: [u32; 4],
    /// Fewest pixels a drawn sprite's box covers: long thin objects would otherwise vanish at small sizes.
    pub least_area: u32,
    /// Every object of a scene shows at least this fraction of its pixels.
    pub least_visible: f64,
    /// Largest fraction of an object's box that later boxes may cover. How much a new object may cover is drawn below this,
    /// so that most objects of most scenes are seen whole.
    pub most_covered: f64,
    /// Least and most of an object's own colour in what is drawn, per cent; the rest is what lies behind it.
    pub opacity: (u8, u8),
    /// Fraction of the way by which the mean colour of each sprite moves to that of its group of look-alikes.
    pub likeness: f64,
    /// Rounds of blurring with the weights 1, 2, 1 along rows and columns.
    pub blur: u32,
    /// Largest change of a channel by sensor noise, of 255.
    pub noise: u8,
}

impl Difficulty {
    /// The clear world.
    pub const CLEAR: Self = Self {
        sizes: [28, 32, 36, 40],
        least_area: 360,
        least_visible: 0.6,
        most_covered: 0.3,
        opacity: (100, 100),
        likeness: 0.0,
        blur: 0,
        noise: 0,
    };

    /// The hard world.
    pub const HARD: Self = Self {
        sizes: [24, 28, 32, 36],
        least_area: 300,
        least_visible: 0.5,
        most_covered: 0.4,
        opacity: (45, 85),
        likeness: 0.5,
        blur: 1,
        noise: 12,
    };
}
