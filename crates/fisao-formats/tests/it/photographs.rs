//! Photographs against Pillow and transformers.
//!
//! Runs when `FISAO_PHOTOGRAPHS` names a folder of images and `FISAO_PHOTOGRAPHS_EXPECTED` the file
//! that `fixtures/images/expect_photographs.py` wrote about it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use fisao_formats::images::{list_images, open_image};
use fisao_models::image::{ImageProcessor, Resize};
use fisao_testkit::skipped::report_skipped;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

/// Of normalised values. The pixels are the same; transformers rescales in f64.
const PIXELS: f32 = 1e-6;

fn path(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        let reason = format!("{variable} is not set");
        report_skipped("processed_photographs_match_transformers", &reason);
    }
    path
}

fn processors() -> [(&'static str, ImageProcessor); 4] {
    let siglip = ImageProcessor {
        resize: Some(Resize::Exact { width: 384, height: 384 }),
        crop: None,
        mean: [0.5; 3],
        std: [0.5; 3],
        ..ImageProcessor::clip(384)
    };
    // CLIP's means of 255, rounded down.
    let llava = ImageProcessor { pad: Some([122, 116, 104]), ..ImageProcessor::clip(336) };
    [
        ("clip_224", ImageProcessor::clip(224)),
        ("clip_336", ImageProcessor::clip(336)),
        ("siglip_384", siglip),
        ("llava_336", llava),
    ]
}

#[test]
#[expect(clippy::print_stderr, reason = "the differences are worth knowing where they are small")]
fn processed_photographs_match_transformers() {
    let Some(folder) = path("FISAO_PHOTOGRAPHS") else { return };
    let Some(expected) = path("FISAO_PHOTOGRAPHS_EXPECTED") else { return };
    let bytes = fs::read(expected).expect("readable");
    let expected = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |name: &str, part: &str| {
        let view = expected.tensor(&format!("{name}/{part}")).expect("written for this folder");
        view.data().to_vec()
    };
    let mut worst: BTreeMap<&str, f32> = BTreeMap::new();
    for path in list_images(&folder).expect("images") {
        let name = path.file_name().expect("a file").to_str().expect("text");
        let image = open_image(&path).expect("an image");
        assert_eq!(Sha256::digest(image.as_raw())[..], tensor(name, "rgb"), "{name}");
        for (part, processor) in processors() {
            let found = processor.process(&image).values;
            let bytes = tensor(name, part);
            let expected = bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value));
            assert_eq!(found.len(), expected.len(), "{name}, {part}");
            let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off <= PIXELS, "{name}, {part}: off by {off}");
            let worst = worst.entry(part).or_default();
            *worst = worst.max(off);
        }
    }
    eprintln!("worst differences: {worst:?}");
}
