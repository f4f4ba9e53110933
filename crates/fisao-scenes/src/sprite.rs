//! Decoded sprites at every size they are drawn in.

use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage, RgbaImage};

use crate::category::{CATEGORIES, Category, SpriteRegion, SpriteSource};
use crate::difficulty::Difficulty;
use crate::graphics::graphic_of;
use crate::look_alike::{group_of, mean_colour, shift_colour};
use crate::scene::PlacedObject;

/// Alpha from which a pixel counts as part of the object.
const OPAQUE: u8 = 128;

/// One sprite at all sizes of a world, cut to its visible part, colours premultiplied by alpha.
#[derive(Debug)]
struct Sprite {
    scaled: [RgbaImage; 4],
    smallest: usize,
}

/// All sprites, decoded once.
#[derive(Debug)]
pub(crate) struct SpriteSheet {
    sprites: Vec<Vec<Sprite>>,
}

impl SpriteSheet {
    /// Decodes all sprites and scales them to the sizes of a world.
    pub(crate) fn decode(difficulty: &Difficulty) -> Self {
        let whole = |category: &Category| category.sprites.iter().map(decode).collect();
        let mut graphics: Vec<Vec<RgbaImage>> = CATEGORIES.iter().map(whole).collect();
        if difficulty.likeness > 0.0 {
            make_alike(&mut graphics, difficulty.likeness);
        }
        let scaled = |graphic: &RgbaImage| Sprite::scale(graphic, difficulty);
        let sprites = graphics.iter().map(|kind| kind.iter().map(scaled).collect()).collect();
        Self { sprites }
    }

    /// Index of the smallest size of the world at which the sprite can be recognised.
    pub(crate) fn smallest(&self, category: usize, sprite: usize) -> usize {
        self.sprites[category][sprite].smallest
    }

    /// Width and height of the sprite's visible part at this size.
    pub(crate) fn dimensions(&self, category: usize, sprite: usize, size: usize) -> (u32, u32) {
        self.sprites[category][sprite].scaled[size].dimensions()
    }

    /// Draws the object over the image; what lies outside is cut off.
    pub(crate) fn draw(&self, object: &PlacedObject, image: &mut RgbImage) {
        let (gain, opacity) = (i32::from(object.brightness), i32::from(object.opacity));
        self.for_each_pixel(object, image.dimensions(), |x, y, [red, green, blue, alpha]| {
            if alpha == 0 {
                return;
            }
            let below = image.get_pixel_mut(x, y);
            for (channel, colour) in below.0.iter_mut().zip([red, green, blue]) {
                let lit = (i32::from(colour) * gain / 100).min(i32::from(alpha)) * opacity / 100;
                let through = i32::from(*channel) * (255 - i32::from(alpha) * opacity / 100) / 255;
                *channel = (lit + through).clamp(0, 255) as u8;
            }
        });
    }

    /// Fraction of each object's pixels that is inside the image and not covered by a later object.
    pub(crate) fn visible_fractions(
        &self,
        objects: &[PlacedObject],
        image: (u32, u32),
    ) -> Vec<f64> {
        let mut seen = vec![0_usize; objects.len()];
        for index in self.owners(objects, image).into_iter().flatten() {
            seen[index] += 1;
        }
        let whole = |object: &PlacedObject| {
            let sprite = &self.sprites[object.category][object.sprite].scaled[object.size];
            sprite.pixels().filter(|pixel| pixel.0[3] >= OPAQUE).count().max(1)
        };
        objects.iter().zip(seen).map(|(object, seen)| seen as f64 / whole(object) as f64).collect()
    }

    /// Which object each pixel shows, row by row.
    pub(crate) fn owners(&self, objects: &[PlacedObject], image: (u32, u32)) -> Vec<Option<usize>> {
        let mut owners = vec![None; (image.0 * image.1) as usize];
        for (index, object) in objects.iter().enumerate() {
            self.for_each_pixel(object, image, |x, y, [.., alpha]| {
                if alpha >= OPAQUE {
                    owners[(y * image.0 + x) as usize] = Some(index);
                }
            });
        }
        owners
    }

    fn for_each_pixel(
        &self,
        object: &PlacedObject,
        image: (u32, u32),
        mut visit: impl FnMut(u32, u32, [u8; 4]),
    ) {
        let sprite = &self.sprites[object.category][object.sprite].scaled[object.size];
        for (column, row, pixel) in sprite.enumerate_pixels() {
            let column = if object.flipped { sprite.width() - 1 - column } else { column };
            let (x, y) = (object.x + column as i32, object.y + row as i32);
            if (0..image.0 as i32).contains(&x) && (0..image.1 as i32).contains(&y) {
                visit(x as u32, y as u32, pixel.0);
            }
        }
    }
}

impl Sprite {
    fn scale(graphic: &RgbaImage, difficulty: &Difficulty) -> Self {
        let longer = graphic.width().max(graphic.height());
        let scaled = difficulty.sizes.map(|size| {
            let side = |length: u32| ((length * size + longer / 2) / longer).max(1);
            let (width, height) = (side(graphic.width()), side(graphic.height()));
            imageops::resize(graphic, width, height, FilterType::CatmullRom)
        });
        let recognised =
            |image: &RgbaImage| image.width() * image.height() >= difficulty.least_area;
        let smallest = scaled.iter().position(recognised).unwrap_or(scaled.len() - 1);
        Self { scaled, smallest }
    }
}

/// The visible part of an emoji's graphic, colours premultiplied by alpha.
fn decode(source: &SpriteSource) -> RgbaImage {
    let asset = graphic_of(source.emoji).expect("every emoji of the table has a graphic");
    let whole = image::load_from_memory_with_format(asset, ImageFormat::Png)
        .expect("the embedded graphics are valid PNG files")
        .into_rgba8();
    let mut visible = trimmed(&whole, source.region);
    for pixel in visible.pixels_mut() {
        let [red, green, blue, alpha] = pixel.0;
        let premultiplied = |channel: u8| (u16::from(channel) * u16::from(alpha) / 255) as u8;
        pixel.0 = [premultiplied(red), premultiplied(green), premultiplied(blue), alpha];
    }
    visible
}

/// Moves the mean colour of each sprite towards that of its group of look-alikes.
fn make_alike(graphics: &mut [Vec<RgbaImage>], likeness: f64) {
    let groups: Vec<_> = CATEGORIES.iter().map(|category| group_of(category.name())).collect();
    let means: Vec<Vec<_>> =
        graphics.iter().map(|kind| kind.iter().map(mean_colour).collect()).collect();
    for (category, kind) in graphics.iter_mut().enumerate() {
        let Some(group) = groups[category] else { continue };
        let of_group: Vec<[f64; 3]> = (groups.iter().zip(&means))
            .filter(|(other, _)| **other == Some(group))
            .flat_map(|(_, means)| means.iter().copied())
            .collect();
        for (graphic, own) in kind.iter_mut().zip(&means[category]) {
            let shift = std::array::from_fn(|channel| {
                let sum: f64 = of_group.iter().map(|mean| mean[channel]).sum();
                likeness * (sum / of_group.len() as f64 - own[channel])
            });
            shift_colour(graphic, shift);
        }
    }
}

/// The part of the graphic that shows the object, without empty margins.
fn trimmed(graphic: &RgbaImage, region: SpriteRegion) -> RgbaImage {
    let width = match region {
        SpriteRegion::Whole => graphic.width(),
        SpriteRegion::LeftHalf => graphic.width() / 2,
    };
    let (mut left, mut top, mut right, mut bottom) = (width, graphic.height(), 0, 0);
    for (x, y, _) in
        graphic.enumerate_pixels().filter(|&(x, _, pixel)| x < width && pixel.0[3] > 16)
    {
        (left, right) = (left.min(x), right.max(x + 1));
        (top, bottom) = (top.min(y), bottom.max(y + 1));
    }
    imageops::crop_imm(
        graphic,
        left,
        top,
        right.saturating_sub(left).max(1),
        bottom.saturating_sub(top).max(1),
    )
    .to_image()
}
