//! Resampling against Pillow (`fixtures/pillow_resize/generate.py`).

use std::fs;
use std::path::PathBuf;

use fisao_images::RgbImage;
use fisao_images::resample::{Canvas, Filter, resize, resize_part};
use serde_json::Value;

/// Width, height and hexadecimal bytes of an image.
fn image(value: &Value) -> RgbImage {
    let side = |index: usize| value["size"][index].as_u64().expect("pixels") as u32;
    let digits = value["rgb"].as_str().expect("hexadecimal digits");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    let bytes = (0..digits.len()).step_by(2).map(byte).collect();
    RgbImage::from_raw(side(0), side(1), bytes).expect("three bytes per pixel")
}

/// Filter, image, and what Pillow makes of it.
fn cases() -> Vec<(Filter, RgbImage, RgbImage)> {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../fixtures/pillow_resize/expected.json"].iter().collect();
    let text = fs::read(path).expect("the generator writes it");
    let stored: Value = serde_json::from_slice(&text).expect("JSON");
    let case = |case: &Value| {
        let filter = case["resample"].as_u64().and_then(Filter::from_number);
        (filter.expect("PIL's number"), image(&case["source"]), image(&case["target"]))
    };
    stored["resizes"].as_array().expect("a list").iter().map(case).collect()
}

#[test]
fn resizing_matches_pillow_exactly() {
    let cases = cases();
    assert!(!cases.is_empty());
    for (filter, source, target) in cases {
        let (width, height) = target.dimensions();
        let resized = resize(&source, width, height, filter);
        assert_eq!(resized, target, "{:?} → {width}×{height}, {filter:?}", source.dimensions());
    }
}

#[test]
fn a_part_is_cut_from_the_whole() {
    for (filter, source, target) in cases() {
        let (width, height) = target.dimensions();
        let (columns, rows) = (width / 3..width, 0..height.div_ceil(2));
        let part = resize_part(
            &Canvas::bare(&source),
            (width.into(), height.into()),
            columns.start.into()..columns.end.into(),
            rows.start.into()..rows.end.into(),
            filter,
        );
        assert_eq!(part.dimensions(), (columns.end - columns.start, rows.end));
        for (x, y, pixel) in part.enumerate_pixels() {
            assert_eq!(pixel, target.get_pixel(columns.start + x, y), "{filter:?}");
        }
    }
}

#[test]
fn numbers_are_pillows() {
    let filters = [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic];
    assert_eq!(filters.map(Filter::number), [0, 1, 2, 3]);
    for filter in filters {
        assert_eq!(Filter::from_number(filter.number()), Some(filter));
    }
}

#[test]
fn images_without_pixels_are_resized_without_a_panic() {
    let (empty, full) = (RgbImage::new(0, 0), RgbImage::new(3, 2));
    for number in 0..4 {
        let filter = Filter::from_number(number).expect("a filter");
        assert_eq!(resize(&empty, 2, 2, filter), RgbImage::new(2, 2));
        assert_eq!(resize(&full, 0, 2, filter).dimensions(), (0, 2));
        assert_eq!(resize(&full, 2, 0, filter).dimensions(), (2, 0));
    }
}
