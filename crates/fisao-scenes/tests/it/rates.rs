//! How often and how typically biased captions are wrong, and how long captions are.

use std::collections::HashMap;

use fisao_scenes::{Insertion, Split, Theme, World, biased_caption, clean_caption, companions};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::matcher::words;

const SCENES: u64 = 2000;

/// The bands the training captions are meant to lie in: a model tuned on them should hallucinate in 30–60 %
/// of its captions and in 12–30 % of its mentions.
#[test]
fn insertion_rates_are_within_their_target_ranges() {
    let world = World::new();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut wrong_captions, mut wrong, mut mentions) = (0, 0, 0);
    for index in 0..SCENES {
        let scene = world.scene(Split::Train, 0, index);
        let caption = biased_caption(&scene, &mut rng, &Insertion::default());
        wrong_captions += usize::from(!caption.inserted.is_empty());
        wrong += caption.inserted.len();
        mentions += caption.mentioned.len();
    }
    let per_caption = wrong_captions as f64 / SCENES as f64;
    let per_mention = wrong as f64 / mentions as f64;
    assert!(
        (0.45..=0.58).contains(&per_caption),
        "{per_caption} of captions hold an inserted object"
    );
    assert!((0.14..=0.22).contains(&per_mention), "{per_mention} of mentions are inserted");
}

/// A companion must be there often enough that its sight is learnt, and seldom enough that expecting it errs.
#[test]
fn companions_are_present_in_a_moderate_fraction_of_scenes() {
    let world = World::new();
    let mut scenes: HashMap<Theme, Vec<_>> = HashMap::new();
    for index in 0..5 * SCENES {
        let scene = world.scene(Split::Train, 1, index);
        scenes.entry(scene.theme).or_default().push(scene.categories());
    }
    for theme in Theme::ALL {
        let of_theme = &scenes[&theme];
        for rule in companions(theme) {
            let fraction = |name| {
                of_theme.iter().filter(|present| present.contains(name)).count() as f64
                    / of_theme.len() as f64
            };
            let (companion, trigger) = (fraction(rule.companion), fraction(rule.trigger));
            assert!(
                (0.18..=0.38).contains(&companion),
                "{theme:?}: {} in {companion} of scenes",
                rule.companion
            );
            assert!(
                (0.35..=0.65).contains(&trigger),
                "{theme:?}: {} in {trigger} of scenes",
                rule.trigger
            );
        }
    }
}

#[test]
fn clean_caption_lengths_are_within_their_target_range() {
    let world = World::new();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut lengths: Vec<_> = (0..SCENES)
        .map(|index| {
            words(&clean_caption(&world.scene(Split::Train, 0, index), &mut rng).text).len()
        })
        .collect();
    lengths.sort_unstable();
    let at = |fraction: f64| lengths[(fraction * lengths.len() as f64) as usize];
    assert!(
        at(0.05) >= 22 && at(0.95) <= 50,
        "5 % {}, median {}, 95 % {}",
        at(0.05),
        at(0.5),
        at(0.95)
    );
}
