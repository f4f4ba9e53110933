//! What preparing an image takes at most: 64 MB and 8 bytes for each of the bytes that it decodes to, in every format and
//! whatever the proportion of its sides.

use std::io::{Cursor, Write as _};

use fisao_formats::images::decode_image;
use fisao_models::image::ImageProcessor;
use fisao_testkit::fuzz::CountedAllocator;
use image::{ImageFormat, Rgb, RgbImage};

#[global_allocator]
static ALLOCATOR: CountedAllocator = CountedAllocator::new();

/// The bound, with the file itself beside it.
fn allowed(width: u32, height: u32) -> usize {
    let decoded = 3 * u64::from(width) * u64::from(height);
    usize::try_from((64 << 20) + 8 * decoded).expect("tests have 64 bits")
}

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let level = |at: u32| at.to_le_bytes()[0];
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([level(x), level(y), level(x ^ y)]));
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, format).expect("it can be encoded");
    file.into_inner()
}

/// A TIFF of one strip of RGB, of bytes that are packed in one of its ways already.
fn tiff(width: u32, height: u32, compression: u32, photometric: u32, strip: &[u8]) -> Vec<u8> {
    let tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, compression),
        (262, photometric),
        (273, 8),
        (277, 3),
        (279, strip.len() as u32),
    ];
    let entry = |(tag, number): (u16, u32)| {
        [&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0], &number.to_le_bytes()].concat()
    };
    let directory = tags.into_iter().flat_map(entry).collect::<Vec<_>>();
    let place = (8 + strip.len() as u32).to_le_bytes();
    [b"II*\0", &place[..], strip, &[tags.len() as u8, 0], &directory, &[0; 4]].concat()
}

/// The same image as TIFFs: as it is, deflated, and as a JPEG.
fn tiffs(width: u32, height: u32) -> Vec<Vec<u8>> {
    let samples = vec![90; 3 * width as usize * height as usize];
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflated.write_all(&samples).expect("in memory");
    let deflated = deflated.finish().expect("in memory");
    let mut files = vec![tiff(width, height, 1, 2, &samples), tiff(width, height, 8, 2, &deflated)];
    if width.max(height) <= 65_535 {
        let jpeg = encoded(width, height, ImageFormat::Jpeg);
        files.push(tiff(width, height, 7, 6, &jpeg));
    }
    files
}

/// Peak of decoding a file and preparing it for an encoder of 336 × 336, beside what is in use before.
fn peak(file: &[u8]) -> usize {
    let processor = ImageProcessor::clip(336);
    let before = ALLOCATOR.begin();
    let image = decode_image("a test's", file).expect("a valid image");
    let pixels = processor.process(&image);
    let peak = ALLOCATOR.peak();
    assert!(pixels.tiles() > 0);
    peak - before
}

// One test, so that nothing else allocates beside it.
#[test]
fn image_preparation_respects_its_memory_bound() {
    let formats = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Gif,
    ];
    // Photographs, ribbons both ways within what each format can say, and a single pixel.
    let sizes = [(3000, 2000), (1, 16_383), (16_383, 1), (16_000, 40), (40, 16_000), (1, 1)];
    for format in formats {
        for (width, height) in sizes {
            // Its encoder looks for a palette of millions of colours, for minutes.
            if format == ImageFormat::Gif && width * height > 1_000_000 {
                continue;
            }
            let file = encoded(width, height, format);
            let (peak, allowed) = (peak(&file), allowed(width, height));
            assert!(peak <= allowed, "{format:?} {width}×{height}: {peak} bytes for {allowed}");
        }
    }
    for (width, height) in [(1, 65_535), (65_535, 1), (1_000_000, 1), (1, 1_000_000)] {
        let (peak, allowed) =
            (peak(&encoded(width, height, ImageFormat::Png)), allowed(width, height));
        assert!(peak <= allowed, "PNG {width}×{height}: {peak} bytes for {allowed}");
    }
    for (width, height) in sizes.into_iter().chain([(1_000_000, 1), (1, 1_000_000)]) {
        for (kind, file) in tiffs(width, height).iter().enumerate() {
            let (peak, allowed) = (peak(file), allowed(width, height));
            assert!(peak <= allowed, "TIFF {kind}, {width}×{height}: {peak} bytes for {allowed}");
        }
    }
}
