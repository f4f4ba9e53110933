//! Pictures against Pillow and transformers (`fixtures/pillow_resize/generate.py`).

use fisao_models::image::{Filter, ImageProcessor, PixelValues, Resize, resize};
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
            (case.clone(), fixture::picture(&case["source"]), fixture::picture(&case["target"]))
        })
        .collect()
}

fn plain(resize: Option<Resize>, crop: Option<(u32, u32)>) -> ImageProcessor {
    let (rescale, mean, std) = (1.0, [0.0; 3], [1.0; 3]);
    let (filter, tiles) = (Filter::Bicubic, None);
    ImageProcessor { pad: None, resize, filter, crop, rescale, mean, std, tiles }
}

/// Values and their size.
fn process(processor: &ImageProcessor, picture: &RgbImage) -> (Vec<f32>, (u32, u32)) {
    let PixelValues { values, tile_size, .. } = processor.process(picture);
    (values, tile_size)
}

fn filter(number: &Value) -> Filter {
    let filters = [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic];
    filters[number.as_u64().expect("PIL's number") as usize]
}

/// Values in the order the processor gives them.
fn planes(picture: &RgbImage) -> Vec<f32> {
    (0..3).flat_map(|c| picture.pixels().map(move |pixel| f32::from(pixel.0[c]))).collect()
}

#[test]
fn resizing_is_pillows_to_the_bit() {
    let cases = cases("resizes");
    assert!(!cases.is_empty());
    for (case, source, target) in cases {
        let (width, height) = target.dimensions();
        let filter = filter(&case["resample"]);
        let resized = resize(&source, width, height, filter);
        assert_eq!(resized, target, "{:?} → {width}×{height}, {filter:?}", source.dimensions());
        let processor =
            ImageProcessor { filter, ..plain(Some(Resize::Exact { width, height }), None) };
        assert_eq!(process(&processor, &source), (planes(&target), (width, height)));
    }
}

#[test]
fn cropping_is_that_of_transformers() {
    let cases = cases("crops");
    assert!(!cases.is_empty());
    for (_, source, target) in cases {
        let (values, size) = process(&plain(None, Some(target.dimensions())), &source);
        assert_eq!(size, target.dimensions());
        assert_eq!(values, planes(&target), "{:?} → {size:?}", source.dimensions());
    }
}

#[test]
fn padding_to_a_square_is_that_of_transformers() {
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
fn pixels_are_those_of_transformers() {
    let stored = fixture::json("pillow_resize/expected.json");
    let side = stored["processor"]["side"].as_u64().expect("pixels") as u32;
    let pictures = stored["processor"]["pictures"].as_array().expect("a list");
    assert!(!pictures.is_empty());
    for case in pictures {
        let source = fixture::picture(&case["source"]);
        let (values, size) = process(&ImageProcessor::clip(side), &source);
        assert_eq!(size, (side, side));
        let expected = fixture::floats_from_hexadecimal(&case["pixels"]);
        assert_close(&format!("{:?}", source.dimensions()), &values, &expected, F32_ELEMENTWISE);
    }
}

#[test]
fn the_shortest_edge_gets_its_size_and_the_other_is_rounded_down() {
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
fn channels_are_normalised_by_clips_constants() {
    for (level, expected) in [(255, [1.9303, 2.0749, 2.1459]), (0, [-1.7923, -1.7521, -1.4802])] {
        let source = RgbImage::from_pixel(2, 2, Rgb([level; 3]));
        let values = ImageProcessor::clip(2).process(&source).values;
        let expected: Vec<f32> = expected.iter().flat_map(|&value| [value; 4]).collect();
        assert_close("channels", &values, &expected, 5e-5);
    }
}
