//! A scene: what is where. Rendering and captions both follow from it.

use std::collections::BTreeSet;

use crate::IMAGE_SIZE;
use crate::background::Background;
use crate::category::CATEGORIES;
use crate::theme::Theme;

/// One object in a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlacedObject {
    /// Index into [`CATEGORIES`].
    pub category: usize,
    /// Index into the category's sprites.
    pub sprite: usize,
    /// Left edge in pixels; negative when cut by the border.
    pub x: i32,
    /// Top edge in pixels; negative when cut by the border.
    pub y: i32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Index of the drawn size, smallest first.
    pub size: usize,
    /// Whether left and right are exchanged.
    pub flipped: bool,
    /// Brightness in per cent of the sprite's own.
    pub brightness: u8,
    /// Fraction of its own colour in what is drawn, per cent; the rest is what lies behind it.
    pub opacity: u8,
}

/// Where in the image an object lies, as captions say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Left third.
    Left,
    /// Right third.
    Right,
    /// Middle column, upper third.
    Top,
    /// Middle column, lower third.
    Bottom,
    /// Middle of the image.
    Middle,
}

impl Place {
    /// The place as an adverbial: "on the left".
    pub const fn words(self) -> &'static str {
        match self {
            Self::Left => "on the left",
            Self::Right => "on the right",
            Self::Top => "at the top",
            Self::Bottom => "at the bottom",
            Self::Middle => "in the middle",
        }
    }
}

impl PlacedObject {
    /// Centre in pixels.
    pub fn centre(&self) -> (i32, i32) {
        (self.x + self.width as i32 / 2, self.y + self.height as i32 / 2)
    }

    /// Where the object's centre lies.
    pub fn place(&self) -> Place {
        let third = IMAGE_SIZE as i32 / 3;
        match self.centre() {
            (x, _) if x < third => Place::Left,
            (x, _) if x >= 2 * third => Place::Right,
            (_, y) if y < third => Place::Top,
            (_, y) if y >= 2 * third => Place::Bottom,
            _ => Place::Middle,
        }
    }
}

/// A composed image: a theme, objects and a background.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scene {
    /// What it is about.
    pub theme: Theme,
    /// Its objects in painting order: a later one covers an earlier one.
    pub objects: Vec<PlacedObject>,
    /// What lies behind them.
    pub background: Background,
}

impl Scene {
    /// Names of the categories that can be seen: the ground truth of the image.
    pub fn categories(&self) -> BTreeSet<&'static str> {
        self.objects.iter().map(|object| CATEGORIES[object.category].name()).collect()
    }

    /// The same as indices into [`CATEGORIES`].
    pub(crate) fn category_indices(&self) -> BTreeSet<usize> {
        self.objects.iter().map(|object| object.category).collect()
    }
}
