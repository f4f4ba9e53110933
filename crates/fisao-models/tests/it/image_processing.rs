//! Images against Pillow and transformers (`fixtures/pillow_resize/generate.py`).

use fisao_images::resample::{Filter, resize};
use fisao_models::image::{ImageProcessor, PixelValues, Resize};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::F32_ELEMENTWISE;
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::fixture;

fn cases(part: &str) -> Vec<(Value, RgbImage, RgbImage)> {
    let stored = fixture::json("pillow_resize/expected.json");
    let cases = stored[part].as_array().expect("a list").iter();
    cases
        .map(|case| {
            (case.clone(), fixture::image(&case["source"]), fixture::image(&case["target"]))
        })
        .collect()
}

fn plain(resize: Option<Resize>, crop: Option<(u32, u32)>) -> ImageProcessor {
    let (rescale, mean, std) = (1.0, [0.0; 3], [1.0; 3]);
    let (filter, tiles) = (Filter::Bicubic, None);
    ImageProcessor { pad: None, resize, filter, crop, rescale, mean, std, tiles }
}

/// Values and their size.
fn process(processor: &ImageProcessor, image: &RgbImage) -> (Vec<f32>, (u32, u32)) {
    let PixelValues { values, tile_size, .. } = processor.process(image);
    (values, tile_size)
}

/// Values in the order the processor gives them.
fn planes(image: &RgbImage) -> Vec<f32> {
    (0..3).flat_map(|c| image.pixels().map(move |pixel| f32::from(pixel.0[c]))).collect()
}

#[test]
fn a_processor_resizes_as_pillow_does() {
    let cases = cases("resizes");
    assert!(!cases.is_empty());
    for (case, source, target) in cases {
        let (width, height) = target.dimensions();
        let filter = case["resample"].as_u64().and_then(Filter::from_number).expect("PIL's number");
        let processor =
            ImageProcessor { filter, ..plain(Some(Resize::Exact { width, height }), None) };
        assert_eq!(process(&processor, &source), (planes(&target), (width, height)));
    }
}

#[test]
fn cropping_matches_transformers() {
    let cases = cases("crops");
    assert!(!cases.is_empty());
    for (_, source, target) in cases {
        let (values, size) = process(&plain(None, Some(target.dimensions())), &source);
        assert_eq!(size, target.dimensions());
        assert_eq!(values, planes(&target), "{:?} → {size:?}", source.dimensions());
    }
}

#[test]
fn padding_to_a_square_matches_transformers() {
    let cases = cases("squares");
    assert!(!cases.is_empty());
    for (case, source, target) in cases {
        let colour = fixture::ids(&case["colour"]);
        let pad = Some([colour[0] as u8, colour[1] as u8, colour[2] as u8]);
        let (values, size) = process(&ImageProcessor { pad, ..plain(None, None) }, &source);
        assert_eq!((values, size), (planes(&target), target.dimensions()));
    }
}

#[test]
fn clip_pixels_match_transformers() {
    let stored = fixture::json("pillow_resize/expected.json");
    let side = stored["processor"]["side"].as_u64().expect("pixels") as u32;
    let images = stored["processor"]["pictures"].as_array().expect("a list");
    assert!(!images.is_empty());
    for case in images {
        let source = fixture::image(&case["source"]);
        let (values, size) = process(&ImageProcessor::clip(side), &source);
        assert_eq!(size, (side, side));
        let expected = fixture::floats_from_hexadecimal(&case["pixels"]);
        assert_close(&format!("{:?}", source.dimensions()), &values, &expected, F32_ELEMENTWISE);
    }
}

#[test]
fn shortest_edge_is_exact_and_the_other_is_rounded_down() {
    // 10 · 31/11 = 28.18 and 10 · 23/17 = 13.53
    for (size, expected) in [((11, 31), (10, 28)), ((23, 17), (13, 10)), ((5, 5), (10, 10))] {
        let source = RgbImage::from_pixel(size.0, size.1, Rgb([9, 9, 9]));
        let (values, resized) = process(&plain(Some(Resize::ShortestEdge(10)), None), &source);
        assert_eq!(resized, expected);
        assert!(values.iter().all(|&value| (value - 9.0).abs() < f32::EPSILON));
    }
}

/// White is (1 − mean) / s.d. of each channel, black −mean / s.d.
#[test]
fn channels_are_normalised_by_the_constants_of_clip() {
    for (level, expected) in [(255, [1.9303, 2.0749, 2.1459]), (0, [-1.7923, -1.7521, -1.4802])] {
        let source = RgbImage::from_pixel(2, 2, Rgb([level; 3]));
        let values = ImageProcessor::clip(2).process(&source).values;
        let expected: Vec<f32> = expected.iter().flat_map(|&value| [value; 4]).collect();
        assert_close("channels", &values, &expected, 5e-5);
    }
}

/// An image without two equal neighbours.
fn mottled(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mixed = x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503).rotate_left(7);
        Rgb([(mixed >> 3) as u8, (mixed >> 11) as u8, (mixed >> 19) as u8])
    })
}

/// What a processor is defined to make: the whole of every step, held in memory.
fn step_by_step(processor: &ImageProcessor, image: &RgbImage) -> RgbImage {
    let (mut image, (mut width, mut height)) = (image.clone(), image.dimensions());
    if let Some(colour) = processor.pad {
        let side = width.max(height);
        let mut square = RgbImage::from_pixel(side, side, Rgb(colour));
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        image::imageops::replace(&mut square, &image, left.into(), top.into());
        (image, width, height) = (square, side, side);
    }
    (width, height) = match processor.resize {
        None => (width, height),
        Some(Resize::Exact { width, height }) => (width, height),
        Some(Resize::Budget(budget)) => {
            let (width, height) = budget.size((width, height));
            (width as u32, height as u32)
        }
        Some(Resize::ShortestEdge(side)) if width <= height => (side, side * height / width),
        Some(Resize::ShortestEdge(side)) => (side * width / height, side),
    };
    let resized = resize(&image, width, height, processor.filter);
    let Some((to_width, to_height)) = processor.crop else { return resized };
    let offset = |full: u32, part: u32| (i64::from(full) - i64::from(part)).div_euclid(2);
    let mut cropped = RgbImage::new(to_width, to_height);
    let (left, top) = (offset(width, to_width), offset(height, to_height));
    image::imageops::replace(&mut cropped, &resized, -left, -top);
    cropped
}

#[test]
fn cropped_processing_equals_step_by_step_processing() {
    let sizes = [(3, 2000), (2000, 3), (1, 1), (40, 30), (31, 97), (250, 9), (64, 64)];
    let resizes = [
        None,
        Some(Resize::ShortestEdge(28)),
        Some(Resize::Exact { width: 33, height: 20 }),
        Some(Resize::Exact { width: 20, height: 97 }),
    ];
    let filters = [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic];
    for (width, height) in sizes {
        let image = mottled(width, height);
        for (resize, filter) in resizes.into_iter().flat_map(|of| filters.map(|by| (of, by))) {
            for (crop, pad) in [
                (None, None),
                (Some((28, 28)), None),
                (Some((28, 28)), Some([122, 116, 104])),
                (None, Some([1, 200, 255])),
                (Some((35, 7)), Some([0; 3])),
            ] {
                let processor = ImageProcessor { pad, filter, ..plain(resize, crop) };
                let expected = step_by_step(&processor, &image);
                let (values, size) = process(&processor, &image);
                assert_eq!(size, expected.dimensions(), "{processor:?} of {width}×{height}");
                assert!(values == planes(&expected), "{processor:?} of {width}×{height}");
            }
        }
    }
}

#[test]
fn resizing_large_images_in_strips_equals_resizing_at_once() {
    for (image, size) in [
        (mottled(20, 7000), (900, 950)),
        (mottled(7000, 20), (900, 950)),
        (mottled(6100, 7900), (950, 31)),
    ] {
        let (width, height) = size;
        let resize = Some(Resize::Exact { width, height });
        let pad = (image.width().min(image.height()) == 20).then_some([90, 100, 110]);
        let processor = ImageProcessor { pad, ..plain(resize, None) };
        let expected = step_by_step(&processor, &image);
        assert!(process(&processor, &image).0 == planes(&expected), "{:?}", image.dimensions());
    }
}

#[test]
fn extreme_aspect_ratios_are_processed_in_bounded_memory() {
    // Whole, its longer side would have 22 million pixels, or one of 4 thousand million bytes.
    for size in [(1, 65_535), (65_535, 1), (1, 30_000_000)] {
        let image = RgbImage::from_pixel(size.0, size.1, Rgb([9, 90, 200]));
        for pad in [None, Some([9, 90, 200])] {
            if pad.is_some() && size.1 > 65_535 {
                continue;
            }
            let crop = Some((336, 336));
            let processor = ImageProcessor { pad, ..plain(Some(Resize::ShortestEdge(336)), crop) };
            let pixels = processor.process(&image);
            assert_eq!(pixels.tile_size, (336, 336));
            assert!(pixels.values.chunks(336 * 336).zip([9.0, 90.0, 200.0]).all(
                |(plane, level)| plane.iter().all(|&value| (value - level).abs() < f32::EPSILON)
            ));
        }
    }
}

/// What a centre crop, a stretch and padding leave of an image, as fractions of it.
#[test]
fn seen_region_follows_crop_stretch_and_padding() {
    let seen = |processor: &ImageProcessor, size| processor.region(size).map(|edge| edge as f32);
    let clip = ImageProcessor::clip(100);
    assert_close("cropped", &seen(&clip, (200, 100)), &[0.25, 0.0, 0.75, 1.0], F32_ELEMENTWISE);
    assert_close("cropped", &seen(&clip, (100, 400)), &[0.0, 0.375, 1.0, 0.625], F32_ELEMENTWISE);
    let exact = Some(Resize::Exact { width: 100, height: 100 });
    let stretched = ImageProcessor { resize: exact, crop: None, ..clip.clone() };
    assert_close(
        "stretched",
        &seen(&stretched, (200, 100)),
        &[0.0, 0.0, 1.0, 1.0],
        F32_ELEMENTWISE,
    );
    let padded = ImageProcessor { pad: Some([0; 3]), ..clip };
    assert_close("padded", &seen(&padded, (200, 100)), &[0.0, -0.5, 1.0, 1.5], F32_ELEMENTWISE);
}
