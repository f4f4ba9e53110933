//! Scenes: deterministic, disjoint between splits, and all of each object can be seen well enough.

use std::collections::HashMap;

use fisao_scenes::{IMAGE_SIZE, Place, Scene, Split, World};

#[test]
fn scenes_and_images_are_reproducible_by_seed_and_index() {
    let (one, other) = (World::new(), World::new());
    for index in 0..20 {
        let scene = one.scene(Split::Train, 7, index);
        assert_eq!(scene, other.scene(Split::Train, 7, index));
        assert_eq!(one.render(&scene), other.render(&scene));
    }
    assert_ne!(one.scene(Split::Train, 7, 0), one.scene(Split::Train, 8, 0));
    assert_ne!(one.scene(Split::Train, 7, 0), one.scene(Split::Train, 7, 1));
}

#[test]
fn splits_share_no_arrangement_and_no_image() {
    let world = World::new();
    let mut arrangements = HashMap::new();
    let mut images = HashMap::new();
    for split in Split::ALL {
        for index in 0..250 {
            let scene = world.scene(split, 0, index);
            let image = world.render(&scene).into_raw();
            if let Some(other) = arrangements.insert(scene.objects, split) {
                assert_eq!(other, split, "an arrangement occurs twice");
            }
            if let Some(other) = images.insert(image, split) {
                assert_eq!(other, split, "a picture occurs twice");
            }
        }
    }
}

#[test]
fn objects_are_visible_and_scenes_have_two_to_five_categories() {
    let world = World::new();
    let mut categories = 0;
    let scenes = 1000;
    for index in 0..scenes {
        let scene = world.scene(Split::Validation, 0, index);
        let fractions = world.visible_fractions(&scene);
        assert!(fractions.iter().all(|&fraction| fraction >= 0.55), "scene {index}: {fractions:?}");
        assert_eq!(fractions.len(), scene.objects.len());
        assert!((2..=5).contains(&scene.categories().len()));
        categories += scene.categories().len();
    }
    let mean = categories as f64 / scenes as f64;
    assert!((3.0..=3.5).contains(&mean), "{mean} categories per scene");
}

/// Taking an object out of the list changes the image: each one is really drawn.
#[test]
fn removing_any_object_changes_the_image() {
    let world = World::new();
    for index in 0..50 {
        let scene = world.scene(Split::Train, 1, index);
        let whole = world.render(&scene);
        assert_eq!(whole.dimensions(), (IMAGE_SIZE, IMAGE_SIZE));
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
fn positions_follow_from_coordinates() {
    let world = World::new();
    let mut object = world.scene(Split::Train, 0, 0).objects[0];
    (object.width, object.height) = (24, 24);
    for ((x, y), place) in [
        ((0, 40), Place::Left),
        ((70, 0), Place::Right),
        ((36, 0), Place::Top),
        ((36, 70), Place::Bottom),
        ((36, 36), Place::Middle),
    ] {
        (object.x, object.y) = (x, y);
        assert_eq!(object.place(), place, "at {x}, {y}");
    }
}

#[test]
fn image_ids_contain_split_and_index() {
    assert_eq!(World::new().image_id(Split::Test, 123), "test-000123");
}

/// What patches hold is what images show: a patch far from every object is empty, every category covers
/// some patch, and fractions are fractions.
#[test]
fn patch_contents_follow_the_objects() {
    let world = World::new();
    let side = 16;
    let count = IMAGE_SIZE / side;
    for index in 0..100 {
        let scene = world.scene(Split::Validation, 2, index);
        let patches = world.patch_contents(&scene, side);
        assert_eq!(patches.len(), (count * count) as usize);
        for (at, contents) in (0..).zip(&patches) {
            let total: f64 = contents.iter().map(|(_, fraction)| fraction).sum();
            assert!(total <= 1.0 + 1e-9, "scene {index}, patch {at}: {total}");
            let (left, top) = (at % count * side, at / count * side);
            for &(category, fraction) in contents {
                let reaches = scene.objects.iter().any(|object| {
                    let meets = |from: i32, length: u32, start: u32| {
                        from < (start + side) as i32 && from + length as i32 > start as i32
                    };
                    object.category == category
                        && meets(object.x, object.width, left)
                        && meets(object.y, object.height, top)
                });
                assert!(
                    reaches && fraction > 0.0,
                    "scene {index}, patch {at}: {category} {fraction}"
                );
            }
        }
        for object in &scene.objects {
            let area: f64 = patches
                .iter()
                .flatten()
                .filter(|(category, _)| *category == object.category)
                .map(|(_, fraction)| fraction * f64::from(side * side))
                .sum();
            assert!(area > 50.0, "scene {index}: {} pixels of {}", area, object.category);
        }
    }
}
