//! The world: a deterministic supply of scenes.

use std::collections::BTreeMap;

use image::RgbImage;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::IMAGE_SIZE;
use crate::background::Background;
use crate::difficulty::{Difficulty, WorldKind};
use crate::layout::draw_objects;
use crate::scene::{PlacedObject, Scene};
use crate::sensor::{add_noise, blur};
use crate::split::Split;
use crate::sprite::SpriteSheet;
use crate::theme::Theme;

/// The sprites and everything drawn from them.
#[derive(Debug)]
pub struct World {
    kind: WorldKind,
    difficulty: Difficulty,
    sheet: SpriteSheet,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// The clear world.
    pub fn new() -> Self {
        Self::of(WorldKind::Clear)
    }

    /// Decodes and scales all sprites.
    pub fn of(kind: WorldKind) -> Self {
        let difficulty = kind.difficulty();
        Self { kind, difficulty, sheet: SpriteSheet::decode(&difficulty) }
    }

    /// Which world it is.
    pub const fn kind(&self) -> WorldKind {
        self.kind
    }

    /// The scene of this split, seed and index; always the same one.
    ///
    /// Scenes are redrawn until a fingerprint of what lies where falls to their split, so that no arrangement
    /// occurs in two splits, whatever their seeds and indices.
    pub fn scene(&self, split: Split, seed: u64, index: u64) -> Scene {
        let mut rng = ChaCha8Rng::from_seed(stream_seed(split, seed, index));
        loop {
            let theme = Theme::ALL[rng.random_range(0..Theme::ALL.len())];
            let objects = draw_objects(theme, &self.difficulty, &self.sheet, &mut rng);
            if fingerprint(&objects) % Split::ALL.len() as u64 == split.position() {
                return Scene { theme, objects, background: Background::draw(&mut rng) };
            }
        }
    }

    /// The image of a scene, [`IMAGE_SIZE`] pixels wide and high.
    pub fn render(&self, scene: &Scene) -> RgbImage {
        let mut image = scene.background.paint();
        for object in &scene.objects {
            self.sheet.draw(object, &mut image);
        }
        for _ in 0..self.difficulty.blur {
            image = blur(&image);
        }
        if self.difficulty.noise > 0 {
            add_noise(&mut image, self.difficulty.noise, scene.background.grain);
        }
        image
    }

    /// Fraction of each object's pixels (in the order of `scene.objects`) that the image shows.
    pub fn visible_fractions(&self, scene: &Scene) -> Vec<f64> {
        self.sheet.visible_fractions(&scene.objects, (IMAGE_SIZE, IMAGE_SIZE))
    }

    /// The scene without the categories whose visible pixels times opacity are fewer than `least`; its most prominent
    /// category always stays.
    pub fn standing_out(&self, scene: &Scene, least: f64) -> Scene {
        let mut prominence = BTreeMap::<usize, f64>::new();
        let owners = self.sheet.owners(&scene.objects, (IMAGE_SIZE, IMAGE_SIZE));
        for object in owners.into_iter().flatten().map(|index| &scene.objects[index]) {
            *prominence.entry(object.category).or_default() += f64::from(object.opacity) / 100.0;
        }
        let most = prominence.values().copied().fold(0.0, f64::max);
        let stands_out = |object: &&PlacedObject| {
            prominence.get(&object.category).is_some_and(|&of| of >= least.min(most))
        };
        let objects = scene.objects.iter().filter(stands_out).copied().collect();
        Scene { objects, ..scene.clone() }
    }

    /// Fraction of each patch that each category covers, where it covers any: for patches of `side` pixels, row
    /// by row, (index into [`CATEGORIES`](crate::CATEGORIES), fraction).
    pub fn patch_contents(&self, scene: &Scene, side: u32) -> Vec<Vec<(usize, f64)>> {
        let owners = self.sheet.owners(&scene.objects, (IMAGE_SIZE, IMAGE_SIZE));
        let (count, area) = (IMAGE_SIZE / side, f64::from(side * side));
        let mut counts = vec![BTreeMap::<usize, u32>::new(); (count * count) as usize];
        for (at, owner) in (0_u32..).zip(owners) {
            let (x, y) = (at % IMAGE_SIZE / side, at / IMAGE_SIZE / side);
            if let Some(object) = owner {
                let category = scene.objects[object].category;
                *counts[(y * count + x) as usize].entry(category).or_default() += 1;
            }
        }
        let fractions = |patch: BTreeMap<usize, u32>| {
            patch
                .into_iter()
                .map(|(category, pixels)| (category, f64::from(pixels) / area))
                .collect()
        };
        counts.into_iter().map(fractions).collect()
    }

    /// Name of the image of this split and index, e.g. `test-000123`.
    pub fn image_id(&self, split: Split, index: u64) -> String {
        format!("{}-{index:06}", split.name())
    }

    /// Whose images the sprites are, as their licence asks to be told.
    pub fn sprite_attribution() -> &'static str {
        "Object pictures: Twemoji graphics, Copyright 2020 Twitter, Inc and other contributors, licensed under \
         CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); scaled, flipped and composed."
    }
}

fn stream_seed(split: Split, seed: u64, index: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (part, number) in bytes.chunks_exact_mut(8).zip([split.position(), seed, index]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// FNV-1a over what lies where, independent of the platform.
fn fingerprint(objects: &[PlacedObject]) -> u64 {
    let parts = objects.iter().flat_map(|object| {
        [
            object.category as u64,
            object.sprite as u64,
            object.x as u64,
            object.y as u64,
            object.size as u64,
        ]
    });
    parts.flat_map(u64::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
