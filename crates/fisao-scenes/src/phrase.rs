//! Short texts about one or two objects, for contrastive training.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::caption::{Caption, Mention};
use crate::category::CATEGORIES;
use crate::layout::draw_imagined;
use crate::noun::with_article;
use crate::scene::{PlacedObject, Scene};
use crate::vocabulary::forms_of;

/// Centres closer than this many pixels are "next to" each other.
const NEAR: i32 = 48;

/// A short true text about one or two of the scene's objects: "dog", "a photo of a dog", "a dog next to two cars".
pub fn phrase(scene: &Scene, rng: &mut impl Rng) -> Caption {
    let mut categories: Vec<_> = scene.category_indices().into_iter().collect();
    categories.shuffle(rng);
    categories.truncate(if rng.random_bool(0.55) { 1 } else { 2 });
    let groups: Vec<Vec<PlacedObject>> = categories
        .iter()
        .map(|&category| {
            scene.objects.iter().filter(|object| object.category == category).copied().collect()
        })
        .collect();
    let mentions: Vec<_> = groups.iter().map(|objects| Mention::draw(objects, rng)).collect();
    let text = match mentions.as_slice() {
        [only] => about_one(only, rng),
        [one, other, ..] => about_two(one, other, near(&groups[0], &groups[1]), rng),
        [] => String::new(),
    };
    let mentioned = categories.iter().map(|&category| CATEGORIES[category].name()).collect();
    Caption { text, mentioned, inserted: Vec::new() }
}

/// The sentence in which CLIP is asked for one thing: "a photo of an owl."
pub(crate) fn name_prompt(name: &str) -> String {
    format!("a photo of {}.", with_article(name))
}

/// A text that names one category and no other, true or not: mostly [`name_prompt`] of one of its words,
/// else a short phrase.
pub(crate) fn name_of(category: usize, rng: &mut impl Rng) -> String {
    let mut forms = forms_of(&CATEGORIES[category]);
    let form = forms.swap_remove(rng.random_range(0..forms.len()));
    if rng.random_bool(0.7) {
        return name_prompt(&form);
    }
    about_one(&Mention::draw(&[draw_imagined(category, rng)], rng), rng)
}

fn about_one(mention: &Mention, rng: &mut impl Rng) -> String {
    let object = mention.noun.counted(mention.count);
    match rng.random_range(0..5) {
        0 => mention.noun.bare(mention.count),
        1 => object,
        2 => format!("a photo of {object}"),
        3 => format!("there {} {object}", if mention.count == 1 { "is" } else { "are" }),
        _ => format!("a picture with {object}"),
    }
}

fn about_two(one: &Mention, other: &Mention, near: bool, rng: &mut impl Rng) -> String {
    let (one, other) = (one.noun.counted(one.count), other.noun.counted(other.count));
    match rng.random_range(0..4) {
        0 if near => format!("{one} next to {other}"),
        0 | 1 => format!("{one} and {other}"),
        2 => format!("a photo of {one} and {other}"),
        _ => format!("{one} with {other}"),
    }
}

fn near(ones: &[PlacedObject], others: &[PlacedObject]) -> bool {
    ones.iter().any(|one| {
        others.iter().any(|other| {
            let ((x, y), (other_x, other_y)) = (one.centre(), other.centre());
            (x - other_x).pow(2) + (y - other_y).pow(2) < NEAR.pow(2)
        })
    })
}
