//! Draws what is in a scene and finds room for it.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::IMAGE_SIZE;
use crate::category::CATEGORIES;
use crate::difficulty::Difficulty;
use crate::scene::PlacedObject;
use crate::sprite::SpriteSheet;
use crate::theme::Theme;

/// Objects stand on a lattice of this many pixels. An encoder without built-in translation invariance
/// has to learn every offset of every image anew; a coarser lattice leaves fewer of them.
const LATTICE: i32 = 4;

/// Largest fraction of an object's side that may lie outside the image.
const MOST_CUT: f64 = 0.1;

/// Weights of 2, 3, 4 and 5 distinct categories in a scene: 3.3 on average.
const CATEGORY_COUNTS: [(usize, f64); 4] = [(2, 0.2), (3, 0.4), (4, 0.3), (5, 0.1)];

/// Probability that one of a scene's categories comes from anywhere.
const OFF_THEME_RATE: f64 = 0.45;

/// Probabilities of a second instance of a category, and of a third after it.
pub(crate) const MORE_INSTANCES: [f64; 2] = [0.16, 0.25];

const LAYOUT_ATTEMPTS: usize = 6;
const PLACE_ATTEMPTS: usize = 24;

/// Draws the objects of a scene of `theme`, placed so that each shows at least its `least_visible` fraction.
pub(crate) fn draw_objects(
    theme: Theme,
    difficulty: &Difficulty,
    sheet: &SpriteSheet,
    rng: &mut impl Rng,
) -> Vec<PlacedObject> {
    let mut wanted: Vec<usize> = Vec::new();
    for category in draw_categories(theme, rng) {
        wanted.extend(std::iter::repeat_n(category, draw_instances(rng)));
    }
    wanted.shuffle(rng);
    loop {
        for _ in 0..LAYOUT_ATTEMPTS {
            if let Some(objects) = place_all(&wanted, difficulty, sheet, rng) {
                return objects;
            }
        }
        // No room: drop one of several instances before dropping a category.
        let repeated =
            (0..wanted.len()).find(|&index| wanted[index + 1..].contains(&wanted[index]));
        wanted.remove(repeated.unwrap_or(0));
    }
}

fn draw_categories(theme: Theme, rng: &mut impl Rng) -> Vec<usize> {
    let count = weighted(&CATEGORY_COUNTS, rng);
    let mut candidates: Vec<_> = theme.members().collect();
    let mut chosen = Vec::with_capacity(count);
    if rng.random_bool(OFF_THEME_RATE) {
        chosen.push(rng.random_range(0..CATEGORIES.len()));
    }
    while chosen.len() < count {
        candidates.retain(|(category, _)| !chosen.contains(category));
        chosen.push(weighted(&candidates, rng));
    }
    chosen
}

/// How many instances of a category there are: mostly one, at most three.
pub(crate) fn draw_instances(rng: &mut impl Rng) -> usize {
    1 + MORE_INSTANCES.into_iter().take_while(|&rate| rng.random_bool(rate)).count()
}

fn weighted<T: Copy>(choices: &[(T, f64)], rng: &mut impl Rng) -> T {
    let total: f64 = choices.iter().map(|(_, weight)| weight).sum();
    let mut rest = rng.random_range(0.0..total);
    for &(choice, weight) in choices {
        if rest < weight {
            return choice;
        }
        rest -= weight;
    }
    choices[choices.len() - 1].0
}

fn place_all(
    wanted: &[usize],
    difficulty: &Difficulty,
    sheet: &SpriteSheet,
    rng: &mut impl Rng,
) -> Option<Vec<PlacedObject>> {
    let sizes = difficulty.sizes.len();
    let largest = if wanted.len() > 4 { sizes - 2 } else { sizes - 1 };
    let mut placed = Vec::with_capacity(wanted.len());
    for &category in wanted {
        placed.push(place(category, largest, difficulty, &placed, sheet, rng)?);
    }
    let image = (IMAGE_SIZE, IMAGE_SIZE);
    sheet
        .visible_fractions(&placed, image)
        .iter()
        .all(|&fraction| fraction >= difficulty.least_visible)
        .then_some(placed)
}

/// Finds room for one more object, making it smaller when there is none.
fn place(
    category: usize,
    largest: usize,
    difficulty: &Difficulty,
    placed: &[PlacedObject],
    sheet: &SpriteSheet,
    rng: &mut impl Rng,
) -> Option<PlacedObject> {
    let sprite = rng.random_range(0..CATEGORIES[category].sprites.len());
    let smallest = sheet.smallest(category, sprite).min(largest);
    let allowed = rng.random_range(0.0..=difficulty.most_covered);
    let (flipped, brightness) = (rng.random_bool(0.5), rng.random_range(88..=108));
    let opacity = draw_opacity(difficulty.opacity, rng);
    for size in (smallest..=rng.random_range(smallest..=largest)).rev() {
        let (width, height) = sheet.dimensions(category, sprite, size);
        for _ in 0..PLACE_ATTEMPTS {
            let (x, y) = (offset(width, rng), offset(height, rng));
            #[rustfmt::skip]
            let object = PlacedObject {
                category, sprite, x, y, width, height, size, flipped, brightness, opacity,
            };
            if leaves_others_visible(&object, placed, allowed, difficulty.most_covered) {
                return Some(object);
            }
        }
    }
    None
}

/// Where there is nothing to choose, nothing is drawn: the stream of the clear world stays as it is.
fn draw_opacity((least, most): (u8, u8), rng: &mut impl Rng) -> u8 {
    if least == most { most } else { rng.random_range(least..=most) }
}

fn offset(length: u32, rng: &mut impl Rng) -> i32 {
    let cut = (f64::from(length) * MOST_CUT) as i32;
    let last = IMAGE_SIZE as i32 - length as i32 + cut;
    LATTICE * rng.random_range(-cut / LATTICE..=last / LATTICE)
}

/// Whether `new` can lie on top: it covers at most the fraction `allowed` of any object, and with all others
/// together at most the fraction `in_all`.
fn leaves_others_visible(
    new: &PlacedObject,
    placed: &[PlacedObject],
    allowed: f64,
    in_all: f64,
) -> bool {
    placed.iter().enumerate().all(|(index, below)| {
        let already: u32 = placed[index + 1..].iter().map(|above| overlap(below, above)).sum();
        let added = overlap(below, new);
        let area = f64::from(below.width * below.height);
        f64::from(added) <= allowed * area && f64::from(already + added) <= in_all * area
    })
}

/// Pixels two objects' boxes share.
fn overlap(one: &PlacedObject, other: &PlacedObject) -> u32 {
    let shared = |from: i32, length: u32, other_from: i32, other_length: u32| {
        let end = (from + length as i32).min(other_from + other_length as i32);
        (end - from.max(other_from)).max(0) as u32
    };
    shared(one.x, one.width, other.x, other.width)
        * shared(one.y, one.height, other.y, other.height)
}

/// An object that is in no image, placed as a real one of the clear world would be: captions speak of it in the same
/// words.
pub(crate) fn draw_imagined(category: usize, rng: &mut impl Rng) -> PlacedObject {
    let sprite = rng.random_range(0..CATEGORIES[category].sprites.len());
    let sizes = Difficulty::CLEAR.sizes;
    let size = rng.random_range(0..sizes.len());
    let side = sizes[size];
    let (x, y) = (offset(side, rng), offset(side, rng));
    PlacedObject {
        category,
        sprite,
        x,
        y,
        width: side,
        height: side,
        size,
        flipped: false,
        brightness: 100,
        opacity: 100,
    }
}
