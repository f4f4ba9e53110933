//! Writes a PNG with 25 scenes and prints their captions: `contact_sheet [FILE] [FIRST_INDEX] [hard]`.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;

use fisao_scenes::{
    IMAGE_SIZE, Insertion, Split, World, WorldKind, biased_caption, clean_caption, phrase,
};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const COLUMNS: u32 = 5;
const MAGNIFICATION: u32 = 2;
const GAP: u32 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_else(|| "contact_sheet.png".to_owned());
    let start: u64 = arguments.next().map_or(Ok(0), |number| number.parse())?;
    let kind = if arguments.next().as_deref() == Some("hard") {
        WorldKind::Hard
    } else {
        WorldKind::Clear
    };
    let world = World::of(kind);
    let side = IMAGE_SIZE * MAGNIFICATION;
    let length = COLUMNS * (side + GAP);
    let mut sheet = RgbImage::from_pixel(length, length, Rgb([255; 3]));
    for cell in 0..COLUMNS * COLUMNS {
        let scene = world.scene(Split::Validation, 0, start + u64::from(cell));
        let image = imageops::resize(&world.render(&scene), side, side, FilterType::Nearest);
        let (x, y) = (cell % COLUMNS * (side + GAP), cell / COLUMNS * (side + GAP));
        imageops::replace(&mut sheet, &image, i64::from(x), i64::from(y));

        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(cell));
        let biased = biased_caption(&scene, &mut rng, &Insertion::default());
        println!("{cell:2} {:?} {:?}", scene.theme, scene.categories());
        println!("   clean:  {}", clean_caption(&scene, &mut rng).text);
        println!("   biased: {} {:?}", biased.text, biased.inserted);
        println!("   phrase: {}", phrase(&scene, &mut rng).text);
    }
    sheet.save(&file)?;
    println!("{file}");
    Ok(())
}
