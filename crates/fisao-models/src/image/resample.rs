//! Pillow's `Image.resize`, to the bit: separable, antialiased, with 22-bit weights and 8-bit pixels
//! between the passes.
//!
//! The two passes round separately, so their order shows. Pillow 13 takes the vertical one first where
//! the height shrinks by more than twice what the width does, in pixels; up to 12 the horizontal one
//! always came first.

#![expect(clippy::inline_always, reason = "code is vectorised where it is inlined into a dispatch")]

use image::RgbImage;

/// How new pixels are made of old ones; the names are Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The one old pixel at the new one's centre.
    Nearest,
    /// A triangle as wide as two pixels.
    Bilinear,
    /// The Keys cubic with a = −0.5, four pixels wide.
    Bicubic,
    /// A sinc windowed by another, six pixels wide.
    Lanczos,
}

/// Bits of the fixed-point weights.
const PRECISION: u32 = 32 - 8 - 2;
/// Bytes of a pixel.
const CHANNELS: usize = 3;
/// Values of a row that are summed side by side.
const LANES: usize = 32;

/// A picture at another size.
pub fn resize(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let (old_width, old_height) = picture.dimensions();
    if (old_width, old_height) == (width, height) {
        return picture.clone();
    }
    if filter == Filter::Nearest {
        return nearest(picture, width, height);
    }
    let across = |picture: &RgbImage| {
        if picture.width() == width {
            return picture.clone();
        }
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || horizontally(picture, &taps(old_width, width, filter)),
        )
    };
    let down = |picture: &RgbImage| {
        if picture.height() == height {
            return picture.clone();
        }
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || vertically(picture, &taps(old_height, height, filter)),
        )
    };
    let shrinks = |old: u32, new: u32| i64::from(old) - i64::from(new);
    let (narrower, lower) = (shrinks(old_width, width), shrinks(old_height, height));
    if lower > 0 && lower > 2 * narrower { across(&down(picture)) } else { down(&across(picture)) }
}

/// Accumulates the position as Pillow does, whose rounding errors decide between neighbours.
fn nearest(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let positions = |old: u32, new: u32| {
        let step = f64::from(old) / f64::from(new);
        let mut position = step * 0.5;
        let advance = |_| {
            let at = position as u32;
            position += step;
            at
        };
        (0..new).map(advance).collect::<Vec<_>>()
    };
    let columns = positions(picture.width(), width);
    let rows = positions(picture.height(), height);
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (columns[x as usize], rows[y as usize]);
        // Past the last pixel by a rounding error, Pillow leaves black.
        picture.get_pixel_checked(x, y).copied().unwrap_or(image::Rgb([0; CHANNELS]))
    })
}

#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[inline(always)]
fn horizontally(picture: &RgbImage, taps: &[Taps]) -> RgbImage {
    let mut pixels = vec![0; picture.height() as usize * taps.len() * CHANNELS];
    let old_rows = picture.as_raw().chunks_exact(picture.width() as usize * CHANNELS);
    // Four values to a pixel, which is what vectors like.
    let mut padded = vec![[0_i32; CHANNELS + 1]; picture.width() as usize];
    for (row, old) in pixels.chunks_exact_mut(taps.len() * CHANNELS).zip(old_rows) {
        for (padded, &[r, g, b]) in padded.iter_mut().zip(old.as_chunks().0) {
            *padded = [r.into(), g.into(), b.into(), 0];
        }
        for (pixel, taps) in row.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(taps) {
            let mut sums = [1_i32 << (PRECISION - 1); CHANNELS + 1];
            for (values, &weight) in padded[taps.first..].iter().zip(&taps.weights) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += value * weight;
                }
            }
            let [r, g, b, _] = sums;
            *pixel = [r, g, b].map(rounded);
        }
    }
    RgbImage::from_raw(taps.len() as u32, picture.height(), pixels).expect("three bytes per pixel")
}

#[inline(always)]
fn vertically(picture: &RgbImage, taps: &[Taps]) -> RgbImage {
    let stride = picture.width() as usize * CHANNELS;
    let mut pixels = vec![0; taps.len() * stride];
    for (row, taps) in pixels.chunks_exact_mut(stride).zip(taps) {
        let old = &picture.as_raw()[taps.first * stride..];
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let mut sums = [1_i32 << (PRECISION - 1); LANES];
            for (old, &weight) in old.chunks_exact(stride).zip(&taps.weights) {
                let values: &[u8; LANES] = old[index * LANES..].first_chunk().expect("whole chunk");
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(value) * weight;
                }
            }
            *chunk = sums.map(rounded);
        }
        let done = stride - rest.len();
        for (index, new) in rest.iter_mut().enumerate() {
            let values = old[done + index..].iter().step_by(stride).zip(&taps.weights);
            let sum: i32 = values.map(|(&value, &weight)| i32::from(value) * weight).sum();
            *new = rounded(sum + (1 << (PRECISION - 1)));
        }
    }
    RgbImage::from_raw(picture.width(), taps.len() as u32, pixels).expect("three bytes per pixel")
}

/// The old pixels of one new pixel and their fixed-point weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Written in Pillow's order of operations, because the weights are rounded.
fn taps(old: u32, new: u32, filter: Filter) -> Vec<Taps> {
    let scale = f64::from(old) / f64::from(new);
    let stretch = scale.max(1.0);
    let (weigh, support): (fn(f64) -> f64, f64) = match filter {
        Filter::Nearest => unreachable!("it has no weights"),
        Filter::Bilinear => (triangle, 1.0),
        Filter::Bicubic => (cubic, 2.0),
        Filter::Lanczos => (lanczos, 3.0),
    };
    let support = support * stretch;
    let inverse = 1.0 / stretch;
    (0..new)
        .map(|index| {
            let centre = (f64::from(index) + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(old as usize);
            let raw: Vec<f64> =
                (first..last).map(|at| weigh((at as f64 - centre + 0.5) * inverse)).collect();
            let total: f64 = raw.iter().sum();
            let fixed = f64::from(1_u32 << PRECISION);
            let weights =
                raw.iter().map(|weight| (weight / total * fixed).round() as i32).collect();
            Taps { first, weights }
        })
        .collect()
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        let x = x * std::f64::consts::PI;
        if x == 0.0 { 1.0 } else { x.sin() / x }
    };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}
