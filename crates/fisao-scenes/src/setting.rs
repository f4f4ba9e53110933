//! The sentences of a caption that name no object: the opening and the closing.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use crate::background::{Background, Pattern};
use crate::theme::Theme;

/// An opening sentence that names the theme.
pub(crate) fn opening(theme: Theme, rng: &mut impl Rng) -> String {
    let setting = theme.settings().choose(rng).copied().unwrap_or("a scene");
    match rng.random_range(0..5) {
        0 => format!("This is a photo of {setting}."),
        1 => format!("The picture shows {setting}."),
        2 => format!("A colourful picture of {setting}."),
        3 => format!("This image shows {setting}."),
        _ => format!("Here is a picture of {setting}."),
    }
}

/// A closing sentence that is true of the background.
pub(crate) fn closing(background: &Background, rng: &mut impl Rng) -> String {
    let (first, second) = (background.first.name, background.second.name);
    let variant = rng.random_range(0..2);
    match (background.pattern, variant) {
        (Pattern::Plain, 0) => format!("The background is plain {first}."),
        (Pattern::Plain, _) => format!("Everything stands in front of a plain {first} background."),
        (Pattern::Grain, 0) => format!("The background is {first} with a fine grain."),
        (Pattern::Grain, _) => format!("Behind all this there is a grainy {first} background."),
        (Pattern::Gradient, 0) => {
            format!("The background fades from {first} at the top to {second}.")
        }
        (Pattern::Gradient, _) => format!("Behind all this, {first} slowly turns into {second}."),
        (Pattern::Bands { .. }, 0) => {
            format!("The upper part of the background is {first} and the lower part is {second}.")
        }
        (Pattern::Bands { .. }, _) => {
            format!("The background is {first} above and {second} below.")
        }
        (Pattern::Tiles { .. }, 0) => {
            format!("The background is made of {first} and {second} tiles.")
        }
        (Pattern::Tiles { .. }, _) => {
            format!("Behind all this there are {first} and {second} tiles.")
        }
    }
}
