//! The clear world stays as it is: the committed models and the demo's figures belong to these very pixels.

use fisao_scenes::{Split, World};

/// FNV-1a of the images of 200 scenes.
const IMAGES: u64 = 0xca48_3d30_02d8_8471;

#[test]
fn clear_images_match_the_recorded_digest() {
    let world = World::new();
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for split in Split::ALL {
        for (seed, index) in (0..2).flat_map(|seed| (0..25).map(move |index| (seed, index))) {
            let image = world.render(&world.scene(split, seed, index)).into_raw();
            digest = image.iter().fold(digest, |digest, byte| {
                (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        }
    }
    assert_eq!(digest, IMAGES, "found {digest:#x}");
}
