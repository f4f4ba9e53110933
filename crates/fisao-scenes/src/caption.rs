//! Full captions: an opening, one to three sentences about the objects, a closing.

use std::collections::BTreeMap;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use crate::category::{CATEGORIES, category_index};
use crate::insertion::Insertion;
use crate::layout::{draw_imagined, draw_instances};
use crate::noun::{Noun, capitalised, joined};
use crate::scene::{Place, PlacedObject, Scene};
use crate::setting::{closing, opening};
use crate::theme::{Theme, companions};

/// Instructions a caption answers.
pub const PROMPTS: &[&str] = &[
    "Describe the image.",
    "Describe this picture in detail.",
    "What is in the image?",
    "What can you see in this picture?",
    "Write a caption for this image.",
];

/// Probability that a word other than the category's usual one is used, where there is one.
const SYNONYM_RATE: f64 = 0.25;

/// Probability that a caption says where an object is.
const PLACE_RATE: f64 = 0.55;

/// Probability that things that go together are named one right after the other.
const TOGETHER_RATE: f64 = 0.8;

/// Most sentences about objects.
const MOST_SENTENCES: usize = 3;

/// A text about a scene with the objects it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// The text.
    pub text: String,
    /// Names of the categories it mentions, in the order of the text.
    pub mentioned: Vec<&'static str>,
    /// Those of them that are not in the scene.
    pub inserted: Vec<&'static str>,
}

/// A caption that mentions every category of the scene and nothing else.
pub fn clean_caption(scene: &Scene, rng: &mut impl Rng) -> Caption {
    compose(scene, &[], rng)
}

/// A caption in the same words that also mentions absent objects drawn by `insertion`.
pub fn biased_caption(scene: &Scene, rng: &mut impl Rng, insertion: &Insertion) -> Caption {
    let inserted = insertion.draw(scene, rng);
    compose(scene, &inserted, rng)
}

/// Some objects of one category, as a caption speaks of them.
pub(crate) struct Mention {
    pub(crate) category: usize,
    pub(crate) count: usize,
    pub(crate) noun: Noun,
    place: Option<Place>,
}

impl Mention {
    /// Chooses a word that is true of all these objects of one category.
    pub(crate) fn draw(objects: &[PlacedObject], rng: &mut impl Rng) -> Self {
        let category = objects[0].category;
        let kind = &CATEGORIES[category];
        let narrower = |object: &PlacedObject| kind.sprites[object.sprite].narrower;
        let mut others = kind.synonyms.to_vec();
        others.extend(
            narrower(&objects[0])
                .filter(|noun| objects.iter().all(|object| narrower(object) == Some(*noun))),
        );
        let noun = if rng.random_bool(SYNONYM_RATE) { others.choose(rng).copied() } else { None };
        let place = objects[0].place();
        let placed =
            rng.random_bool(PLACE_RATE) && objects.iter().all(|object| object.place() == place);
        Self {
            category,
            count: objects.len(),
            noun: noun.unwrap_or(kind.noun),
            place: placed.then_some(place),
        }
    }

    fn words(&self) -> String {
        let object = self.noun.counted(self.count);
        self.place.map_or_else(|| object.clone(), |place| format!("{object} {}", place.words()))
    }
}

fn compose(scene: &Scene, inserted: &[usize], rng: &mut impl Rng) -> Caption {
    let mut groups: BTreeMap<usize, Vec<PlacedObject>> = BTreeMap::new();
    for object in &scene.objects {
        groups.entry(object.category).or_default().push(*object);
    }
    for &category in inserted {
        let imagined = (0..draw_instances(rng)).map(|_| draw_imagined(category, rng)).collect();
        groups.insert(category, imagined);
    }
    let mut mentions: Vec<_> = groups.values().map(|objects| Mention::draw(objects, rng)).collect();
    mentions.shuffle(rng);
    bring_together(scene.theme, &mut mentions, rng);

    let mut sentences = vec![opening(scene.theme, rng)];
    let mut rest = mentions.as_slice();
    while !rest.is_empty() {
        let so_far = sentences.len() - 1;
        let length = if so_far + 1 == MOST_SENTENCES {
            rest.len()
        } else {
            rng.random_range(1..=3).min(rest.len())
        };
        let (now, later) = rest.split_at(length);
        sentences.push(object_sentence(now, so_far == 0, rng));
        rest = later;
    }
    sentences.push(closing(&scene.background, rng));

    let name = |category: usize| CATEGORIES[category].name();
    let mentioned = mentions.iter().map(|mention| name(mention.category)).collect();
    Caption {
        text: sentences.join(" "),
        mentioned,
        inserted: inserted.iter().map(|&category| name(category)).collect(),
    }
}

/// Moves companions, really there or not, behind what they go with: the habit of speech that makes a model
/// expect them.
fn bring_together(theme: Theme, mentions: &mut Vec<Mention>, rng: &mut impl Rng) {
    let position = |mentions: &[Mention], name: &str| {
        let category = category_index(name);
        mentions.iter().position(|mention| mention.category == category)
    };
    for rule in companions(theme) {
        let together = rng.random_bool(TOGETHER_RATE);
        if let (true, Some(trigger), Some(companion)) =
            (together, position(mentions, rule.trigger), position(mentions, rule.companion))
        {
            let moved = mentions.remove(companion);
            // Taking out an earlier mention moves the trigger one place forward.
            let after = if companion < trigger { trigger } else { trigger + 1 };
            mentions.insert(after, moved);
        }
    }
}

/// One sentence that names these objects in this order.
fn object_sentence(mentions: &[Mention], first: bool, rng: &mut impl Rng) -> String {
    let words: Vec<_> = mentions.iter().map(Mention::words).collect();
    let list = joined(&words);
    let head_is = if mentions[0].count == 1 { "is" } else { "are" };
    let all_is = if mentions.len() == 1 { head_is } else { "are" };
    if let ([only], true) = (mentions, rng.random_bool(0.4))
        && let Some(place) = only.place
    {
        let place = capitalised(place.words());
        let also = if first { "" } else { "also " };
        return format!("{place} there {head_is} {also}{}.", only.noun.counted(only.count));
    }
    match (first, rng.random_range(0..4)) {
        (true, 0) => format!("There {head_is} {list}."),
        (true, 1) => format!("I can see {list}."),
        (true, 2) => format!("It contains {list}."),
        (true, _) => format!("{} can be seen.", capitalised(&list)),
        (false, 0) => format!("There {head_is} also {list}."),
        (false, 1) => format!("I can also see {list}."),
        (false, 2) => format!("It also contains {list}."),
        (false, _) => format!("{} {all_is} visible as well.", capitalised(&list)),
    }
}
