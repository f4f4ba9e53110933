//! The objects of the world: COCO's names and the sprites that show them.

use crate::noun::Noun;

/// Which part of an emoji's image shows the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpriteRegion {
    /// The whole image.
    Whole,
    /// The left half, where the image shows two things side by side.
    LeftHalf,
}

/// One image of a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpriteSource {
    /// The emoji whose Twemoji graphic is used.
    pub emoji: &'static str,
    /// The part of it that shows the object.
    pub region: SpriteRegion,
    /// A narrower word that is true of this image only ("duck" among birds).
    pub narrower: Option<Noun>,
}

/// An object category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Category {
    /// COCO's name, and the usual word in captions.
    pub noun: Noun,
    /// Other words for every member of the category.
    pub synonyms: &'static [Noun],
    /// Its images.
    pub sprites: &'static [SpriteSource],
}

impl Category {
    /// COCO's name of the category.
    pub const fn name(&self) -> &'static str {
        // COCO calls these two by their plural, which is also what their nouns are counted in pairs of.
        if self.noun.unit.is_some() { self.noun.plural } else { self.noun.singular }
    }
}

const fn show(emoji: &'static str) -> SpriteSource {
    SpriteSource { emoji, region: SpriteRegion::Whole, narrower: None }
}

const fn named(emoji: &'static str, singular: &'static str, plural: &'static str) -> SpriteSource {
    SpriteSource { emoji, region: SpriteRegion::Whole, narrower: Some(Noun::new(singular, plural)) }
}

const fn left_half(emoji: &'static str) -> SpriteSource {
    SpriteSource { emoji, region: SpriteRegion::LeftHalf, narrower: None }
}

const fn noun(singular: &'static str, plural: &'static str) -> Noun {
    Noun::new(singular, plural)
}

const fn category(
    noun: Noun,
    synonyms: &'static [Noun],
    sprites: &'static [SpriteSource],
) -> Category {
    Category { noun, synonyms, sprites }
}

/// Every category of the world. A scene refers to a category by its index here.
///
/// COCO categories without a graphic that shows them and nothing else are left out (a snowboard comes with
/// its rider, an oven not at all). So are graphics that show a second object: an emoji's bowl with a spoon in it
/// would make an inserted spoon true.
#[rustfmt::skip]
pub const CATEGORIES: &[Category] = &[
    category(noun("person", "people"), &[], &[show("🧍"), show("🚶"), show("🧍‍♀️"), show("🏃"), named("👩", "woman", "women"), named("👨", "man", "men"), show("👮"), show("👷")]),
    category(noun("bicycle", "bicycles"), &[noun("bike", "bikes")], &[show("🚲")]),
    category(noun("car", "cars"), &[], &[show("🚗"), show("🚙"), named("🚕", "taxi", "taxis"), show("🚘")]),
    category(noun("motorcycle", "motorcycles"), &[noun("motorbike", "motorbikes")], &[show("🏍️"), named("🛵", "scooter", "scooters")]),
    category(noun("airplane", "airplanes"), &[noun("plane", "planes")], &[show("✈️"), show("🛩️")]),
    category(noun("bus", "buses"), &[], &[show("🚌"), show("🚍"), show("🚎")]),
    category(noun("train", "trains"), &[], &[show("🚆"), show("🚂"), show("🚄")]),
    category(noun("truck", "trucks"), &[], &[show("🚚"), show("🚛"), show("🛻")]),
    category(noun("boat", "boats"), &[], &[named("⛵", "sailboat", "sailboats"), show("🚤"), show("🛶")]),
    category(noun("traffic light", "traffic lights"), &[noun("traffic signal", "traffic signals")], &[show("🚦"), show("🚥")]),
    category(noun("stop sign", "stop signs"), &[], &[show("🛑")]),
    category(noun("bird", "birds"), &[], &[show("🐦"), named("🦜", "parrot", "parrots"), named("🦆", "duck", "ducks"), named("🦉", "owl", "owls")]),
    category(noun("cat", "cats"), &[], &[show("🐈"), show("🐱"), show("🐈‍⬛")]),
    category(noun("dog", "dogs"), &[], &[show("🐕"), show("🐩"), show("🐶"), show("🦮")]),
    category(noun("horse", "horses"), &[], &[show("🐎"), show("🐴")]),
    category(noun("sheep", "sheep"), &[], &[show("🐑"), show("🐏")]),
    category(noun("cow", "cows"), &[], &[show("🐄"), show("🐮")]),
    category(noun("elephant", "elephants"), &[], &[show("🐘")]),
    category(noun("bear", "bears"), &[], &[show("🐻"), named("🐼", "panda", "pandas"), named("🐻‍❄️", "polar bear", "polar bears")]),
    category(noun("zebra", "zebras"), &[], &[show("🦓")]),
    category(noun("giraffe", "giraffes"), &[], &[show("🦒")]),
    category(noun("backpack", "backpacks"), &[], &[show("🎒")]),
    category(noun("umbrella", "umbrellas"), &[], &[show("☂️"), show("☔"), show("🌂")]),
    category(noun("handbag", "handbags"), &[noun("purse", "purses")], &[show("👜"), show("👛")]),
    category(noun("tie", "ties"), &[], &[show("👔")]),
    category(noun("suitcase", "suitcases"), &[], &[show("🧳")]),
    category(noun("frisbee", "frisbees"), &[], &[show("🥏")]),
    category(noun("ski", "skis").counted_in("pair", "pairs"), &[], &[show("🎿")]),
    category(noun("sports ball", "sports balls"), &[noun("ball", "balls")], &[show("⚽"), show("🏀"), show("🏐"), show("🎾")]),
    category(noun("kite", "kites"), &[], &[show("🪁")]),
    category(noun("skateboard", "skateboards"), &[], &[show("🛹")]),
    category(noun("tennis racket", "tennis rackets"), &[noun("racket", "rackets")], &[show("🏸")]),
    category(noun("bottle", "bottles"), &[], &[show("🍾"), show("🍼"), show("🧴")]),
    category(noun("wine glass", "wine glasses"), &[], &[show("🍷"), show("🍸")]),
    category(noun("cup", "cups"), &[], &[named("☕", "mug", "mugs"), show("🥤")]),
    category(noun("fork", "forks"), &[], &[left_half("🍴")]),
    category(noun("knife", "knives"), &[], &[show("🔪")]),
    category(noun("spoon", "spoons"), &[], &[show("🥄")]),
    category(noun("bowl", "bowls"), &[], &[show("🥗"), show("🍲")]),
    category(noun("banana", "bananas"), &[], &[show("🍌")]),
    category(noun("apple", "apples"), &[], &[show("🍎"), show("🍏")]),
    category(noun("sandwich", "sandwiches"), &[], &[show("🥪")]),
    category(noun("orange", "oranges"), &[], &[show("🍊")]),
    category(noun("broccoli", "broccoli").counted_in("piece", "pieces"), &[], &[show("🥦")]),
    category(noun("carrot", "carrots"), &[], &[show("🥕")]),
    category(noun("hot dog", "hot dogs"), &[], &[show("🌭")]),
    category(noun("pizza", "pizzas"), &[], &[show("🍕")]),
    category(noun("donut", "donuts"), &[noun("doughnut", "doughnuts")], &[show("🍩")]),
    category(noun("cake", "cakes"), &[], &[show("🎂"), show("🍰")]),
    category(noun("chair", "chairs"), &[], &[show("🪑"), show("💺")]),
    category(noun("couch", "couches"), &[noun("sofa", "sofas")], &[show("🛋️")]),
    category(noun("potted plant", "potted plants"), &[noun("houseplant", "houseplants")], &[show("🪴")]),
    category(noun("bed", "beds"), &[], &[show("🛏️")]),
    category(noun("toilet", "toilets"), &[], &[show("🚽")]),
    category(noun("tv", "tvs"), &[noun("television", "televisions")], &[show("📺")]),
    category(noun("laptop", "laptops"), &[], &[show("💻")]),
    category(noun("mouse", "mice"), &[noun("computer mouse", "computer mice")], &[show("🖱️")]),
    category(noun("keyboard", "keyboards"), &[], &[show("⌨️")]),
    category(noun("cell phone", "cell phones"), &[noun("phone", "phones")], &[show("📱")]),
    category(noun("sink", "sinks"), &[], &[show("🚰")]),
    category(noun("book", "books"), &[], &[show("📕"), show("📗"), show("📘"), show("📙")]),
    category(noun("clock", "clocks"), &[], &[named("⏰", "alarm clock", "alarm clocks"), show("🕰️"), show("🕒")]),
    category(noun("vase", "vases"), &[], &[show("🏺")]),
    category(noun("scissors", "scissors").counted_in("pair", "pairs"), &[], &[show("✂️")]),
    category(noun("teddy bear", "teddy bears"), &[noun("stuffed bear", "stuffed bears")], &[show("🧸")]),
    category(noun("toothbrush", "toothbrushes"), &[], &[show("🪥")]),
];

/// Index in [`CATEGORIES`] of a category that a theme or rule names.
pub(crate) fn category_index(name: &str) -> usize {
    CATEGORIES
        .iter()
        .position(|category| category.name() == name)
        .expect("themes and companion rules name existing categories only")
}
