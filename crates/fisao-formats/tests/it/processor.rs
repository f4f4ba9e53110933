//! Image processor configurations of both generations.

use std::fs;

use fisao_formats::FormatError;
use fisao_formats::processor::read_image_processor;
use fisao_models::image::{ImageProcessor, Resize};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::message;

fn read(folder: &TempDir, name: &str, config: &Value) -> Result<ImageProcessor, FormatError> {
    fs::write(folder.path().join(name), config.to_string()).expect("writable");
    read_image_processor(folder.path())
}

fn preprocessor(config: &Value) -> Result<ImageProcessor, FormatError> {
    read(&tempdir().expect("a temporary folder"), "preprocessor_config.json", config)
}

#[test]
fn sizes_have_three_spellings() {
    let clip = ImageProcessor::clip(336);
    let today = json!({
        "crop_size": { "height": 336, "width": 336 }, "do_center_crop": true,
        "do_normalize": true, "do_resize": true, "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        "resample": 3, "size": { "shortest_edge": 336 }
    });
    assert_eq!(preprocessor(&today).expect("today's spelling"), clip);
    let old =
        json!({ "crop_size": 336, "size": 336, "feature_extractor_type": "CLIPFeatureExtractor" });
    assert_eq!(preprocessor(&old).expect("the first spelling"), clip);
    // SigLIP's: an exact size, no crop, half means.
    let siglip = json!({
        "do_resize": true, "do_rescale": true, "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3,
        "rescale_factor": 0.003_921_568_627_450_98, "size": { "height": 224, "width": 200 }
    });
    let expected = ImageProcessor {
        resize: Some(Resize::Exact { width: 200, height: 224 }),
        crop: None,
        rescale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.5; 3],
    };
    assert_eq!(preprocessor(&siglip).expect("SigLIP's spelling"), expected);
}

#[test]
fn switched_off_steps_are_not_done() {
    let config = json!({ "do_resize": false, "do_center_crop": false, "do_rescale": false,
                         "do_normalize": false, "size": 30, "crop_size": 20 });
    let expected =
        ImageProcessor { resize: None, crop: None, rescale: 1.0, mean: [0.0; 3], std: [1.0; 3] };
    assert_eq!(preprocessor(&config).expect("nothing to do"), expected);
}

#[test]
fn the_processor_file_of_version_5_comes_first() {
    let folder = tempdir().expect("a temporary folder");
    let outer = json!({ "processor_class": "LlavaProcessor", "patch_size": 14 });
    fs::write(folder.path().join("processor_config.json"), outer.to_string()).expect("writable");
    let inner = |side: u32| json!({ "size": { "shortest_edge": side }, "crop_size": side });
    let version_4 = read(&folder, "preprocessor_config.json", &inner(112)).expect("version 4");
    assert_eq!(version_4, ImageProcessor::clip(112));
    let nested = json!({ "image_processor": inner(96), "patch_size": 14 });
    let version_5 = read(&folder, "processor_config.json", &nested).expect("version 5");
    assert_eq!(version_5, ImageProcessor::clip(96));
}

#[test]
fn what_would_give_other_pixels_is_refused() {
    let folder = tempdir().expect("a temporary folder");
    let refused =
        |config: Value| message(read(&folder, "preprocessor_config.json", &config), &folder);
    assert_eq!(
        refused(json!({ "resample": 2 })),
        "DIR/preprocessor_config.json: `resample` is 2, but only 3 (bicubic) is supported"
    );
    assert!(refused(json!({ "size": 0 })).contains("`size` is 0"));
    assert!(refused(json!({ "crop_size": { "height": 0, "width": 3 } })).contains("`crop_size`"));
    assert!(refused(json!({ "image_std": [0.5, 0.0, 0.5] })).contains("`image_std`"));
    assert!(refused(json!({ "size": "large" })).contains("is not a valid image processor"));
}
