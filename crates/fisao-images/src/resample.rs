//! Pillow's `Image.resize`, to the bit: separable, antialiased, with 22-bit weights and 8-bit pixels
//! between the passes.
//!
//! The two passes round separately, so their order shows. Pillow 13 takes the vertical one first where
//! the height shrinks by more than twice what the width does, in pixels; up to 12 the horizontal one
//! always came first.
//!
//! ```
//! use fisao_images::RgbImage;
//! use fisao_images::resample::{Canvas, Filter, resize, resize_part};
//!
//! let image = RgbImage::from_fn(60, 40, |x, y| [4 * x as u8, 6 * y as u8, 0].into());
//! let small = resize(&image, 30, 20, Filter::Bicubic);
//! assert_eq!(small.dimensions(), (30, 20));
//!
//! // The middle of it, without computing the rest.
//! let middle = resize_part(&Canvas::bare(&image), (30, 20), 10..20, 5..15, Filter::Bicubic);
//! assert_eq!(middle.get_pixel(0, 0), small.get_pixel(10, 5));
//! ```

#![expect(clippy::inline_always, reason = "code is vectorised where it is inlined into a dispatch")]

use std::ops::Range;

use image::{RgbImage, imageops};

/// How new pixels are made of old ones; the names are Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
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

impl Filter {
    const ALL: [Self; 4] = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic];

    /// The number of Pillow's `Resampling`, which image processors of transformers store as `resample`.
    pub fn number(self) -> u64 {
        match self {
            Self::Nearest => 0,
            Self::Lanczos => 1,
            Self::Bilinear => 2,
            Self::Bicubic => 3,
        }
    }

    /// The filter of one of Pillow's numbers; `None` for the box (4) and Hamming's (5), too.
    ///
    /// ```
    /// use fisao_images::resample::Filter;
    ///
    /// assert_eq!(Filter::from_number(3), Some(Filter::Bicubic));
    /// assert_eq!(Filter::from_number(4), None);
    /// ```
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.number() == number)
    }
}

/// Bits of the fixed-point weights.
const PRECISION: u32 = 32 - 8 - 2;
/// Bytes of a pixel.
const CHANNELS: usize = 3;
/// Values of a row that are summed side by side.
const LANES: usize = 32;

/// Bytes of rows between the two passes that are held at once, and taps of all new columns or rows together.
const HELD: usize = 16 << 20;
/// Half of the last digit, for rounding.
const HALF: i32 = 1 << (PRECISION - 1);
/// Sizes beyond which positions are multiplied instead of added up; no other program makes such images.
const MOST_ADDED: u64 = 1 << 28;

/// An image in the middle of a canvas of one colour, of which no pixel is held.
#[derive(Clone, Copy, Debug)]
pub struct Canvas<'a> {
    image: &'a RgbImage,
    colour: [u8; CHANNELS],
    /// Width and height of the canvas.
    size: (u32, u32),
    /// Columns left of the image and rows above it.
    corner: (u32, u32),
}

impl<'a> Canvas<'a> {
    /// The image alone.
    pub fn bare(image: &'a RgbImage) -> Self {
        Self { image, colour: [0; CHANNELS], size: image.dimensions(), corner: (0, 0) }
    }

    /// The image in the middle of a square, rounded up and to the left as transformers does.
    pub fn square(image: &'a RgbImage, colour: [u8; CHANNELS]) -> Self {
        let (width, height) = image.dimensions();
        let side = width.max(height);
        Self {
            image,
            colour,
            size: (side, side),
            corner: ((side - width) / 2, (side - height) / 2),
        }
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    fn is_bare(&self) -> bool {
        self.size == self.image.dimensions()
    }
}

/// An image at another size, as `Image.resize` makes it.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let size = (u64::from(width), u64::from(height));
    resize_part(&Canvas::bare(image), size, 0..size.0, 0..size.1, filter)
}

/// Some columns and rows of a canvas at another size `(width, height)`: the pixels that the whole would have there, in
/// memory that grows with the part alone. Both ranges lie within the size.
pub fn resize_part(
    canvas: &Canvas<'_>,
    size: (u64, u64),
    columns: Range<u64>,
    rows: Range<u64>,
    filter: Filter,
) -> RgbImage {
    let (old_width, old_height) = canvas.size;
    if canvas.is_bare() && size == (old_width.into(), old_height.into()) {
        let (x, y) = (columns.start as u32, rows.start as u32);
        let (width, height) = (length(&columns) as u32, length(&rows) as u32);
        return imageops::crop_imm(canvas.image, x, y, width, height).to_image();
    }
    if filter == Filter::Nearest {
        return nearest(canvas, size, columns, rows);
    }
    let across = Axis {
        old: old_width,
        new: size.0,
        inside: canvas.corner.0 as usize..(canvas.corner.0 + canvas.image.width()) as usize,
        filter,
    };
    let down = Axis {
        old: old_height,
        new: size.1,
        inside: canvas.corner.1 as usize..(canvas.corner.1 + canvas.image.height()) as usize,
        filter,
    };
    let mut part = RgbImage::new(length(&columns) as u32, length(&rows) as u32);
    let (narrower, lower) = (across.shrinks(), down.shrinks());
    if lower > 0 && lower > 2 * narrower {
        let across = across.taps(columns);
        let most = down.strip(across.span().len());
        for strip in strips(&rows, most) {
            let y = strip.start - rows.start;
            let pixels = down_then_across(canvas, &across, &down.taps(strip));
            put(&mut part, pixels, 0, y);
        }
    } else {
        let down = down.taps(rows);
        let most = across.strip(down.span().len());
        for strip in strips(&columns, most) {
            let x = strip.start - columns.start;
            let pixels = across_then_down(canvas, &across.taps(strip), &down);
            put(&mut part, pixels, x, 0);
        }
    }
    part
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

fn strips(range: &Range<u64>, most: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let Range { start, end } = range.clone();
    (start..end).step_by(most as usize).map(move |at| at..end.min(at + most))
}

fn put(part: &mut RgbImage, strip: RgbImage, x: u64, y: u64) {
    if strip.dimensions() == part.dimensions() {
        *part = strip;
    } else {
        imageops::replace(part, &strip, x as i64, y as i64);
    }
}

fn across_then_down(canvas: &Canvas<'_>, across: &AxisTaps, down: &AxisTaps) -> RgbImage {
    let needed = down.span();
    let width = across.taps.len();
    let bars = across.bars(canvas.colour);
    let colours = vec![canvas.colour; needed.len()];
    let source = Source { pixels: canvas.image.as_raw(), width: canvas.image.width() as usize };
    let pixels = pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let between = horizontally(source, 0, needed.clone(), across, &colours);
            let between = Source { pixels: &between, width };
            vertically(between, needed.start, 0..width, down, bars.as_flattened())
        },
    );
    RgbImage::from_raw(width as u32, down.taps.len() as u32, pixels).expect("three bytes a pixel")
}

fn down_then_across(canvas: &Canvas<'_>, across: &AxisTaps, down: &AxisTaps) -> RgbImage {
    let needed = across.span();
    let (width, height) = (across.taps.len(), down.taps.len());
    let bars = down.bars(canvas.colour);
    let colours = vec![canvas.colour; needed.len()];
    let source = Source { pixels: canvas.image.as_raw(), width: canvas.image.width() as usize };
    let pixels = pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let between = vertically(source, 0, needed.clone(), down, colours.as_flattened());
            let between = Source { pixels: &between, width: needed.len() };
            horizontally(between, needed.start, 0..height, across, &bars)
        },
    );
    RgbImage::from_raw(width as u32, height as u32, pixels).expect("three bytes a pixel")
}

/// Accumulates the position as Pillow does, whose rounding errors decide between neighbours.
fn nearest(
    canvas: &Canvas<'_>,
    size: (u64, u64),
    columns: Range<u64>,
    rows: Range<u64>,
) -> RgbImage {
    let positions = |old: u32, new: u64, range: Range<u64>| {
        let step = f64::from(old) / new as f64;
        if range.end > MOST_ADDED {
            return range.map(|at| ((at as f64 + 0.5) * step) as u32).collect();
        }
        let mut position = step * 0.5;
        let mut kept = Vec::with_capacity(length(&range) as usize);
        for at in 0..range.end {
            if at >= range.start {
                kept.push(position as u32);
            }
            position += step;
        }
        kept
    };
    let columns: Vec<u32> = positions(canvas.size.0, size.0, columns);
    let rows: Vec<u32> = positions(canvas.size.1, size.1, rows);
    RgbImage::from_fn(columns.len() as u32, rows.len() as u32, |x, y| {
        let (x, y) = (columns[x as usize], rows[y as usize]);
        if x >= canvas.size.0 || y >= canvas.size.1 {
            // Past the last pixel by a rounding error, Pillow leaves black.
            return image::Rgb([0; CHANNELS]);
        }
        let (x, y) = (x.checked_sub(canvas.corner.0), y.checked_sub(canvas.corner.1));
        let pixel = x.zip(y).and_then(|(x, y)| canvas.image.get_pixel_checked(x, y));
        pixel.copied().unwrap_or(image::Rgb(canvas.colour))
    })
}

#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Rows of pixels, three bytes each.
#[derive(Clone, Copy)]
struct Source<'a> {
    pixels: &'a [u8],
    /// Pixels of a row.
    width: usize,
}

/// New columns of some rows, of a source that begins with column `first`; `outside` is the colour of each row beyond the
/// image.
#[inline(always)]
fn horizontally(
    source: Source<'_>,
    first: usize,
    rows: Range<usize>,
    across: &AxisTaps,
    outside: &[[u8; CHANNELS]],
) -> Vec<u8> {
    let (needed, taps) = (across.span(), &across.taps);
    let mut pixels = vec![0; rows.len() * taps.len() * CHANNELS];
    // Four values to a pixel, which is what vectors like.
    let mut padded = vec![[0_i32; CHANNELS + 1]; needed.len()];
    let new_rows = pixels.chunks_exact_mut((taps.len() * CHANNELS).max(1));
    for ((row, at), colour) in new_rows.zip(rows).zip(outside) {
        let start = (at * source.width + needed.start - first) * CHANNELS;
        let old = &source.pixels[start..][..needed.len() * CHANNELS];
        for (padded, &[r, g, b]) in padded.iter_mut().zip(old.as_chunks().0) {
            *padded = [r.into(), g.into(), b.into(), 0];
        }
        for (pixel, taps) in row.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(taps) {
            let beyond = colour.map(|level| HALF + i32::from(level) * taps.outside);
            let mut sums = [beyond[0], beyond[1], beyond[2], 0];
            let values = &padded[taps.first.saturating_sub(needed.start)..];
            for (values, &weight) in values.iter().zip(&taps.weights) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += value * weight;
                }
            }
            let [r, g, b, _] = sums;
            *pixel = [r, g, b].map(rounded);
        }
    }
    pixels
}

/// New rows of some columns, of a source that begins with row `first`; `outside` is the row beyond
/// the image.
#[inline(always)]
fn vertically(
    source: Source<'_>,
    first: usize,
    columns: Range<usize>,
    down: &AxisTaps,
    outside: &[u8],
) -> Vec<u8> {
    let stride = source.width * CHANNELS;
    let length = columns.len() * CHANNELS;
    let mut pixels = vec![0; down.taps.len() * length];
    for (row, taps) in pixels.chunks_exact_mut(length.max(1)).zip(&down.taps) {
        let start = taps.first.saturating_sub(first) * stride + columns.start * CHANNELS;
        let old = source.pixels.get(start..).unwrap_or_default();
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let beyond: &[u8; LANES] = outside[index * LANES..].first_chunk().expect("whole chunk");
            let mut sums = beyond.map(|level| HALF + i32::from(level) * taps.outside);
            for (old, &weight) in old.chunks(stride).zip(&taps.weights) {
                let values: &[u8; LANES] = old[index * LANES..].first_chunk().expect("whole chunk");
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(value) * weight;
                }
            }
            *chunk = sums.map(rounded);
        }
        let done = length - rest.len();
        for (index, new) in rest.iter_mut().enumerate() {
            let at = done + index;
            let values = old.get(at..).unwrap_or_default().iter().step_by(stride);
            let sum: i32 =
                values.zip(&taps.weights).map(|(&value, &weight)| i32::from(value) * weight).sum();
            *new = rounded(sum + HALF + i32::from(outside[at]) * taps.outside);
        }
    }
    pixels
}

/// The old pixels of one new pixel and their fixed-point weights.
struct Taps {
    /// The first of them in the image.
    first: usize,
    weights: Vec<i32>,
    /// Weight of all those beyond the image, on the canvas.
    outside: i32,
}

/// One direction in which a canvas changes its size.
struct Axis {
    old: u32,
    new: u64,
    /// Where the image lies on the canvas.
    inside: Range<usize>,
    filter: Filter,
}

/// Taps of some new columns or rows.
struct AxisTaps {
    taps: Vec<Taps>,
}

impl AxisTaps {
    /// Columns or rows of the image that have a weight.
    fn span(&self) -> Range<usize> {
        let weighty = self.taps.iter().filter(|taps| !taps.weights.is_empty());
        let first = weighty.clone().map(|taps| taps.first).min().unwrap_or(0);
        let end = weighty.map(|taps| taps.first + taps.weights.len()).max().unwrap_or(0);
        first..end
    }

    /// What bars of one colour become.
    fn bars(&self, colour: [u8; CHANNELS]) -> Vec<[u8; CHANNELS]> {
        let weight = |taps: &Taps| taps.outside + taps.weights.iter().sum::<i32>();
        let bar = |weight: i32| colour.map(|level| rounded(HALF + i32::from(level) * weight));
        self.taps.iter().map(|taps| bar(weight(taps))).collect()
    }
}

impl Axis {
    /// Pixels that are lost.
    fn shrinks(&self) -> i128 {
        i128::from(self.old) - i128::from(self.new)
    }

    fn scale(&self) -> f64 {
        f64::from(self.old) / self.new as f64
    }

    /// Old pixels on either side of a new one's centre that have a weight.
    fn support(&self) -> f64 {
        let support = match self.filter {
            Filter::Nearest => unreachable!("it has no weights"),
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        };
        support * self.scale().max(1.0)
    }

    /// How many new columns or rows to make at once, if each passes through `between` pixels of the other direction.
    fn strip(&self, between: usize) -> u64 {
        let taps = 2.0 * self.support() + 1.0;
        let by_rows = HELD / (CHANNELS * between.max(1));
        let by_taps = (HELD as f64 / (taps * size_of::<i32>() as f64)) as usize;
        by_rows.min(by_taps).max(1) as u64
    }

    /// Taps of some new columns or rows, written in Pillow's order of operations, because the weights are rounded.
    fn taps(&self, range: Range<u64>) -> AxisTaps {
        if u64::from(self.old) == self.new {
            // Pillow leaves out the pass; a single full weight does the same.
            return AxisTaps {
                taps: range.map(|at| self.inside(at as usize, &[1 << PRECISION])).collect(),
            };
        }
        let weigh: fn(f64) -> f64 = match self.filter {
            Filter::Nearest => unreachable!("it has no weights"),
            Filter::Bilinear => triangle,
            Filter::Bicubic => cubic,
            Filter::Lanczos => lanczos,
        };
        let (scale, support) = (self.scale(), self.support());
        let inverse = 1.0 / scale.max(1.0);
        let taps = range.map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(self.old as usize);
            let raw: Vec<f64> =
                (first..last).map(|at| weigh((at as f64 - centre + 0.5) * inverse)).collect();
            let total: f64 = raw.iter().sum();
            let fixed = f64::from(1_u32 << PRECISION);
            let weights: Vec<i32> =
                raw.iter().map(|weight| (weight / total * fixed).round() as i32).collect();
            self.inside(first, &weights)
        });
        AxisTaps { taps: taps.collect() }
    }

    /// Weights of canvas pixels from `first` on, divided into those of the image and the rest.
    fn inside(&self, first: usize, weights: &[i32]) -> Taps {
        let clamp = |at: usize| at.clamp(first, first + weights.len()) - first;
        let (start, end) = (clamp(self.inside.start), clamp(self.inside.end));
        let outside = weights[..start].iter().chain(&weights[end..]).sum();
        let weights = weights[start..end].to_vec();
        // Without a weight in the image any place in it will do.
        let first = if weights.is_empty() { 0 } else { first + start - self.inside.start };
        Taps { first, weights, outside }
    }
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
