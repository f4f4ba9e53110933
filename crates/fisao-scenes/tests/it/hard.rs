//! The hard world: as deterministic and as exactly known as the clear one, and harder to see.

use std::collections::HashSet;

use fisao_scenes::{Difficulty, Scene, Split, World, WorldKind};

/// By this an object's visible fraction may fall short of the least one, which is checked before rounding to pixels.
const ROUNDING: f64 = 0.05;

fn hard() -> World {
    World::of(WorldKind::Hard)
}

#[test]
fn hard_scenes_are_reproducible() {
    let (one, other) = (hard(), hard());
    for index in 0..20 {
        let scene = one.scene(Split::Train, 7, index);
        assert_eq!(scene, other.scene(Split::Train, 7, index));
        assert_eq!(one.render(&scene), other.render(&scene));
    }
}

#[test]
fn hard_splits_share_no_arrangement() {
    let world = hard();
    let mut all = 0;
    let mut arrangements = HashSet::new();
    for split in Split::ALL {
        let of_split: HashSet<_> =
            (0..250).map(|index| world.scene(split, 0, index).objects).collect();
        all += of_split.len();
        arrangements.extend(of_split);
    }
    assert_eq!(arrangements.len(), all);
}

#[test]
fn every_hard_object_shows_its_minimum_fraction() {
    let world = hard();
    let difficulty = WorldKind::Hard.difficulty();
    let (least, most) = difficulty.opacity;
    for index in 0..1000 {
        let scene = world.scene(Split::Validation, 0, index);
        let fractions = world.visible_fractions(&scene);
        let shown =
            fractions.iter().all(|&fraction| fraction >= difficulty.least_visible - ROUNDING);
        assert!(shown, "scene {index}: {fractions:?}");
        assert!((2..=5).contains(&scene.categories().len()));
        for object in &scene.objects {
            assert!((least..=most).contains(&object.opacity), "scene {index}: {object:?}");
            assert!(object.width.max(object.height) <= difficulty.sizes[3], "{object:?}");
        }
    }
}

/// Noise is the same whatever lies in a scene, so that what an object changes is the object.
#[test]
fn removing_any_hard_object_changes_the_image() {
    let world = hard();
    for index in 0..50 {
        let scene = world.scene(Split::Train, 1, index);
        let whole = world.render(&scene);
        for left_out in 0..scene.objects.len() {
            let mut objects = scene.objects.clone();
            objects.remove(left_out);
            let rest = world.render(&Scene { objects, ..scene.clone() });
            let changed =
                whole.pixels().zip(rest.pixels()).filter(|(one, other)| one != other).count();
            assert!(changed > 50, "scene {index}: object {left_out} changed {changed} pixels");
        }
    }
}

#[test]
fn hard_and_clear_images_of_the_same_scene_differ() {
    let (clear, hard) = (World::new(), hard());
    assert_eq!((clear.kind(), hard.kind()), (WorldKind::Clear, WorldKind::Hard));
    let scene = hard.scene(Split::Test, 0, 0);
    // Without objects only what the sensor does is left.
    let empty = Scene { objects: Vec::new(), ..scene };
    assert_ne!(clear.render(&empty), hard.render(&empty));
}

#[test]
fn every_hard_difficulty_setting_is_harder_than_the_clear_one() {
    let (clear, hard) = (Difficulty::CLEAR, Difficulty::HARD);
    assert!(hard.sizes[0] < clear.sizes[0] && hard.sizes[3] < clear.sizes[3]);
    assert!(hard.least_visible <= clear.least_visible && hard.most_covered >= clear.most_covered);
    assert!(hard.opacity.0 < clear.opacity.0 && hard.opacity.1 < clear.opacity.1);
    assert!(hard.likeness > clear.likeness && hard.blur >= clear.blur && hard.noise > clear.noise);
}

#[test]
fn prominent_objects_are_a_nonempty_subset_of_the_scene() {
    for kind in WorldKind::ALL {
        let world = World::of(kind);
        let mut fewer = 0;
        for index in 0..200 {
            let scene = world.scene(Split::Train, 3, index);
            assert_eq!(world.standing_out(&scene, 0.0), scene, "nothing is below 0");
            let some = world.standing_out(&scene, 250.0);
            let (all, told) = (scene.categories(), some.categories());
            assert!(told.is_subset(&all) && !told.is_empty(), "{told:?} of {all:?}");
            fewer += usize::from(told.len() < all.len());
            let one = world.standing_out(&scene, f64::INFINITY);
            assert!(!one.objects.is_empty(), "the most prominent category stays");
            assert!(one.categories().is_subset(&told), "{told:?}");
        }
        assert!(
            fewer > 20,
            "{kind:?}: {fewer} of 200 scenes hold something that does not stand out"
        );
    }
}
