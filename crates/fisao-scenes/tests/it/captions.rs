//! Captions: what they list is what their text says, and clean ones are true.

use fisao_scenes::{
    Caption, Insertion, Split, World, biased_caption, clean_caption, companions, phrase,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::matcher::{Matcher, words};

const SCENES: u64 = 1000;

/// An object word in an opening or closing sentence would show up here as a mention nobody listed.
fn assert_lists_match_text(matcher: &Matcher, caption: &Caption) {
    assert_eq!(matcher.mentions(&caption.text), caption.mentioned, "{}", caption.text);
    assert!(
        caption.inserted.iter().all(|name| caption.mentioned.contains(name)),
        "{}",
        caption.text
    );
}

#[test]
fn clean_captions_name_every_object_and_nothing_else() {
    let (world, matcher) = (World::new(), Matcher::new());
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for index in 0..SCENES {
        let scene = world.scene(Split::Train, 0, index);
        let caption = clean_caption(&scene, &mut rng);
        assert_lists_match_text(&matcher, &caption);
        assert_eq!(
            caption.mentioned.iter().copied().collect::<std::collections::BTreeSet<_>>(),
            scene.categories()
        );
        assert_eq!(caption.mentioned.len(), scene.categories().len(), "{}", caption.text);
        assert!(caption.inserted.is_empty());
    }
}

#[test]
fn biased_captions_add_at_most_two_objects_to_the_truth() {
    let (world, matcher) = (World::new(), Matcher::new());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for index in 0..SCENES {
        let scene = world.scene(Split::Train, 0, index);
        let truth = scene.categories();
        let caption = biased_caption(&scene, &mut rng, &Insertion::default());
        assert_lists_match_text(&matcher, &caption);
        assert!(caption.inserted.len() <= 2);
        for name in &caption.mentioned {
            assert_ne!(
                truth.contains(name),
                caption.inserted.contains(name),
                "{name}: {}",
                caption.text
            );
        }
        assert!(truth.iter().all(|name| caption.mentioned.contains(name)));
    }
}

#[test]
fn captions_without_insertion_contain_no_false_object() {
    let world = World::new();
    let never = Insertion { companion_rate: 0.0, other_rate: 0.0 };
    for index in 0..50 {
        let scene = world.scene(Split::Train, 0, index);
        let rng = || ChaCha8Rng::seed_from_u64(index);
        assert!(biased_caption(&scene, &mut rng(), &never).inserted.is_empty());
        let first = biased_caption(&scene, &mut rng(), &Insertion::default());
        assert_eq!(
            first,
            biased_caption(&scene, &mut rng(), &Insertion::default()),
            "captions follow their seed"
        );
    }
}

#[test]
fn phrases_are_short_and_name_present_objects_only() {
    let (world, matcher) = (World::new(), Matcher::new());
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for index in 0..SCENES {
        let scene = world.scene(Split::Train, 0, index);
        let phrase = phrase(&scene, &mut rng);
        assert_lists_match_text(&matcher, &phrase);
        assert!((1..=2).contains(&phrase.mentioned.len()));
        assert!(
            phrase.mentioned.iter().all(|name| scene.categories().contains(name)),
            "{}",
            phrase.text
        );
        assert!(words(&phrase.text).len() <= 14, "{}", phrase.text);
    }
}

/// "on the left" after an object that is alone in its category must be where that object is.
#[test]
fn positions_in_clean_captions_are_correct() {
    let world = World::new();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut checked = 0;
    for index in 0..SCENES {
        let scene = world.scene(Split::Train, 0, index);
        let caption = clean_caption(&scene, &mut rng);
        for object in &scene.objects {
            let category = &fisao_scenes::CATEGORIES[object.category];
            let alone =
                scene.objects.iter().filter(|other| other.category == object.category).count() == 1;
            let phrase = format!("{} ", category.noun.counted(1));
            let Some(at) = caption.text.find(&phrase).filter(|_| alone) else { continue };
            let after = &caption.text[at + phrase.len()..];
            let places =
                ["on the left", "on the right", "at the top", "at the bottom", "in the middle"];
            if let Some(said) = places.iter().find(|place| after.starts_with(*place)) {
                assert_eq!(*said, object.place().words(), "{}", caption.text);
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "only {checked} places were said");
}

#[test]
fn captions_have_correct_articles_and_no_negations() {
    let world = World::new();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for index in 0..SCENES {
        let scene = world.scene(Split::Train, 0, index);
        let text = biased_caption(&scene, &mut rng, &Insertion::default()).text;
        for pair in words(&text).windows(2) {
            let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
            assert!(pair[0] != "a" || !vowel, "{text}");
            assert!(pair[0] != "an" || vowel, "{text}");
            assert!(
                !["no", "not", "without", "never", "missing"].contains(&pair[0].as_str()),
                "{text}"
            );
        }
        assert!(text.ends_with('.') && text.starts_with(char::is_uppercase), "{text}");
    }
}

/// A companion, there or not, usually follows what it goes with: the habit that makes a model expect it.
#[test]
fn companions_usually_follow_their_triggers_in_captions() {
    let world = World::new();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut follows = [(0, 0); 2];
    for index in 0..SCENES {
        let scene = world.scene(Split::Train, 0, index);
        let caption = biased_caption(&scene, &mut rng, &Insertion::default());
        for rule in companions(scene.theme) {
            let position = |name| caption.mentioned.iter().position(|mentioned| *mentioned == name);
            if let (Some(trigger), Some(companion)) =
                (position(rule.trigger), position(rule.companion))
            {
                let (after, pairs) =
                    &mut follows[usize::from(caption.inserted.contains(&rule.companion))];
                *after += usize::from(companion == trigger + 1);
                *pairs += 1;
            }
        }
    }
    for (after, pairs) in follows {
        let fraction = after as f64 / f64::from(pairs);
        assert!((0.75..=0.95).contains(&fraction), "{after} of {pairs} companions follow");
    }
}
