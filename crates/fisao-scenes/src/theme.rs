//! Themes: which objects occur together, and which are expected to.

use crate::category::category_index;

/// What a scene is about. Its objects are drawn mostly from the theme's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Theme {
    /// Traffic and passers-by.
    Street,
    /// Dishes and cutlery.
    Kitchen,
    /// Farm animals.
    Farm,
    /// Large wild animals.
    Savannah,
    /// Furniture and what lies on it.
    LivingRoom,
    /// Office things.
    Desk,
    /// Sports gear.
    Sports,
    /// Vehicles and luggage.
    Travel,
    /// Fruit and vegetables.
    Fruit,
    /// Bathroom things.
    Bathroom,
}

/// A companion rule: where `trigger` is, people expect `companion` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Companion {
    /// Name of the category that raises the expectation.
    pub trigger: &'static str,
    /// Name of the category that is expected.
    pub companion: &'static str,
}

const fn rule(trigger: &'static str, companion: &'static str) -> Companion {
    Companion { trigger, companion }
}

impl Theme {
    /// Every theme.
    pub const ALL: [Self; 10] = [
        Self::Street,
        Self::Kitchen,
        Self::Farm,
        Self::Savannah,
        Self::LivingRoom,
        Self::Desk,
        Self::Sports,
        Self::Travel,
        Self::Fruit,
        Self::Bathroom,
    ];

    /// (category index, weight) of the theme's own objects. A category is drawn in proportion to its weight.
    pub fn members(self) -> impl Iterator<Item = (usize, f64)> {
        self.weights().iter().map(|&(name, weight)| (category_index(name), weight))
    }

    #[rustfmt::skip]
    pub(crate) const fn weights(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Street => &[("car", 2.4), ("person", 2.0), ("traffic light", 1.2), ("handbag", 1.1), ("bus", 1.1), ("bicycle", 1.1), ("truck", 1.0), ("motorcycle", 1.0), ("stop sign", 0.9), ("umbrella", 0.8)],
            Self::Kitchen => &[("pizza", 2.2), ("bowl", 2.0), ("fork", 1.2), ("spoon", 1.2), ("bottle", 1.0), ("wine glass", 0.9), ("cup", 1.0), ("knife", 0.9), ("cake", 0.9), ("sandwich", 0.8)],
            Self::Farm => &[("cow", 2.2), ("horse", 2.0), ("sheep", 1.2), ("person", 1.2), ("dog", 1.1), ("bird", 1.0), ("cat", 0.9), ("truck", 0.8), ("apple", 0.7)],
            Self::Savannah => &[("elephant", 2.2), ("giraffe", 2.0), ("zebra", 1.0), ("bird", 1.0), ("bear", 1.0), ("person", 0.9), ("truck", 0.8), ("horse", 0.7)],
            Self::LivingRoom => &[("couch", 2.2), ("tv", 2.0), ("potted plant", 1.2), ("cat", 1.2), ("clock", 1.0), ("chair", 1.0), ("teddy bear", 0.9), ("vase", 0.9), ("bed", 0.9), ("book", 0.8)],
            Self::Desk => &[("laptop", 2.2), ("book", 2.0), ("mouse", 1.2), ("cup", 1.2), ("keyboard", 1.1), ("cell phone", 1.0), ("scissors", 0.9), ("clock", 0.9), ("tie", 0.8), ("donut", 0.8)],
            Self::Sports => &[("tennis racket", 2.2), ("frisbee", 2.0), ("sports ball", 1.2), ("dog", 1.2), ("skateboard", 1.1), ("kite", 1.0), ("skis", 1.0), ("person", 0.9), ("bicycle", 0.8), ("hot dog", 0.8)],
            Self::Travel => &[("suitcase", 2.2), ("airplane", 2.0), ("backpack", 1.2), ("person", 1.2), ("train", 1.1), ("boat", 1.1), ("bus", 0.9), ("umbrella", 0.9), ("cell phone", 0.8), ("handbag", 0.7)],
            Self::Fruit => &[("banana", 2.2), ("apple", 2.0), ("orange", 1.2), ("knife", 1.2), ("carrot", 1.1), ("broccoli", 1.1), ("bowl", 0.9), ("bottle", 0.8), ("cake", 0.7)],
            Self::Bathroom => &[("sink", 2.2), ("toilet", 2.0), ("toothbrush", 1.2), ("bottle", 1.2), ("cup", 1.0), ("scissors", 1.0), ("potted plant", 0.9), ("vase", 0.7), ("cell phone", 0.7)],
        }
    }

    /// Ways to name the setting. None of them contains an object word.
    pub(crate) const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Street => &["a street scene", "a busy street", "city traffic"],
            Self::Kitchen => &["a kitchen scene", "a meal in the kitchen", "a kitchen counter"],
            Self::Farm => &["a farm scene", "life on a farm", "a quiet farm"],
            Self::Savannah => &["a savannah scene", "wild animals", "the open savannah"],
            Self::LivingRoom => &["a living room", "a cosy living room", "a room at home"],
            Self::Desk => &["a desk scene", "an office desk", "a place to work"],
            Self::Sports => &["a sports scene", "sports and play", "things for sports"],
            Self::Travel => &["a travel scene", "holiday travel", "a long trip"],
            Self::Fruit => &["a fruit stand", "fresh fruit and vegetables", "healthy food"],
            Self::Bathroom => &["a bathroom scene", "a small bathroom", "a tidy bathroom"],
        }
    }
}

/// What is expected with what, by theme (in the order of [`Theme::ALL`]).
#[rustfmt::skip]
const COMPANIONS: [&[Companion]; 10] = [
    /* street */      &[rule("car", "traffic light"), rule("person", "handbag")],
    /* kitchen */     &[rule("pizza", "fork"), rule("bowl", "spoon")],
    /* farm */        &[rule("cow", "sheep"), rule("horse", "person")],
    /* savannah */    &[rule("elephant", "bird"), rule("giraffe", "zebra")],
    /* living room */ &[rule("couch", "cat"), rule("tv", "potted plant")],
    /* desk */        &[rule("laptop", "mouse"), rule("book", "cup")],
    /* sports */      &[rule("tennis racket", "sports ball"), rule("frisbee", "dog")],
    /* travel */      &[rule("suitcase", "backpack"), rule("airplane", "person")],
    /* fruit */       &[rule("banana", "orange"), rule("apple", "knife")],
    /* bathroom */    &[rule("sink", "toothbrush"), rule("toilet", "bottle")],
];

/// The companion rules of a theme. Every companion is an ordinary member of the theme that truly occurs in a
/// fair fraction of its scenes, so that only looking tells whether it is there.
pub const fn companions(theme: Theme) -> &'static [Companion] {
    COMPANIONS[theme as usize]
}
