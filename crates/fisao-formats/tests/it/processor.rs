//! Image processor configurations of both generations.

use std::fs;
use std::sync::Arc;

use fisao_formats::FormatError;
use fisao_formats::processor::read_image_processor;
use fisao_models::image::{BestResolution, Filter, ImageProcessor, Resize, Resolution};
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
fn three_spellings_of_image_size_are_read() {
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
    let config = json!({
        "do_resize": true, "do_rescale": true, "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3,
        "rescale_factor": 0.003_921_568_627_450_98, "size": { "height": 224, "width": 200 }
    });
    let expected = siglip(200, 224);
    assert_eq!(preprocessor(&config).expect("SigLIP's spelling"), expected);
}

fn siglip(width: u32, height: u32) -> ImageProcessor {
    ImageProcessor {
        resize: Some(Resize::Exact { width, height }),
        crop: None,
        mean: [0.5; 3],
        std: [0.5; 3],
        ..ImageProcessor::clip(224)
    }
}

#[test]
fn processor_classes_have_the_defaults_of_transformers() {
    for (class, expected) in [
        ("CLIPImageProcessor", ImageProcessor::clip(224)),
        ("CLIPImageProcessorFast", ImageProcessor::clip(224)),
        ("SiglipImageProcessor", siglip(224, 224)),
        ("SiglipImageProcessorFast", siglip(224, 224)),
        ("LlavaImageProcessor", ImageProcessor::clip(224)),
        ("LlavaImageProcessorFast", ImageProcessor::clip(224)),
    ] {
        let config = json!({ "image_processor_type": class, "do_pad": null, "resample": null });
        assert_eq!(preprocessor(&config).expect("a known class"), expected, "{class}");
    }
    // With an exact size, CLIP's class crops and a file without a class does not.
    let mut config = json!({ "size": { "height": 40, "width": 30 } });
    assert_eq!(preprocessor(&config).expect("no class").crop, None);
    config["image_processor_type"] = "CLIPImageProcessor".into();
    assert_eq!(preprocessor(&config).expect("a known class").crop, Some((224, 224)));
}

#[test]
fn resampling_filters_have_the_numbers_of_pil() {
    let filters = [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic];
    for (number, filter) in filters.into_iter().enumerate() {
        let config = json!({ "resample": number });
        assert_eq!(preprocessor(&config).expect("a known number").filter, filter);
    }
}

#[test]
fn llava_processor_pads_with_the_mean_colour() {
    let config = json!({ "image_processor_type": "LlavaImageProcessor", "do_pad": true,
                         "size": 336, "crop_size": 336 });
    // 0.48145466 · 255 = 122.8, 0.4578275 · 255 = 116.7, 0.40821073 · 255 = 104.1
    let expected = ImageProcessor { pad: Some([122, 116, 104]), ..ImageProcessor::clip(336) };
    assert_eq!(preprocessor(&config).expect("a known class"), expected);
}

#[test]
fn onevision_processor_cuts_tiles() {
    let mut config = json!({
        "image_processor_type": "LlavaOnevisionImageProcessor", "do_pad": true,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "image_grid_pinpoints": [[30, 60], [90, 30]], "size": { "height": 30, "width": 30 }
    });
    let resolutions =
        vec![Resolution { height: 30, width: 60 }, Resolution { height: 90, width: 30 }];
    let layout = Arc::new(BestResolution { resolutions });
    let expected = ImageProcessor { tiles: Some(layout), ..siglip(30, 30) };
    assert_eq!(preprocessor(&config).expect("a known class"), expected);
    config["image_grid_pinpoints"] = json!([[30, 61]]);
    let folder = tempdir().expect("a temporary folder");
    assert_eq!(
        message(read(&folder, "preprocessor_config.json", &config), &folder),
        "DIR/preprocessor_config.json: `image_grid_pinpoints` is [30, 61], but only a multiple of the \
         tile's size is supported"
    );
    let config = json!({ "image_processor_type": "LlavaOnevisionImageProcessor" });
    let defaults = preprocessor(&config).expect("a known class");
    assert_eq!(defaults.output_size((9, 9)), (384, 384));
    assert_eq!(defaults.tiles.and_then(|tiles| Some(tiles.resolutions()?.len())), Some(36));
    // Another class does not know what they are for.
    let config = json!({ "image_processor_type": "CLIPImageProcessor",
                         "image_grid_pinpoints": [[336, 672]] });
    let said = message(read(&folder, "preprocessor_config.json", &config), &folder);
    assert!(said.contains("`image_grid_pinpoints` is [[336,672]]"), "{said}");
}

#[test]
fn nexts_class_cuts_square_tiles() {
    let published = json!({
        "aspect_ratio_setting": "anyres", "crop_size": { "height": 336, "width": 336 },
        "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_pad": true,
        "do_rescale": true, "do_resize": true, "image_processor_type": "LlavaNextImageProcessor",
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        "resample": 3, "rescale_factor": 0.003_921_568_627_450_98, "size": { "shortest_edge": 336 }
    });
    let resolutions = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
        .map(|(height, width)| Resolution { height, width });
    let expected = ImageProcessor {
        resize: Some(Resize::Exact { width: 336, height: 336 }),
        crop: None,
        tiles: Some(Arc::new(BestResolution { resolutions: resolutions.to_vec() })),
        ..ImageProcessor::clip(336)
    };
    assert_eq!(preprocessor(&published).expect("as published"), expected);
    // The resolutions are those of the class where none are given.
    let given = json!({ "image_processor_type": "LlavaNextImageProcessorFast",
                        "size": { "height": 336, "width": 336 }, "crop_size": 336 });
    assert_eq!(preprocessor(&given).expect("defaults"), expected);

    let folder = tempdir().expect("a temporary folder");
    let refused = |key: &str, value: Value| {
        let mut config = published.clone();
        config[key] = value;
        message(read(&folder, "preprocessor_config.json", &config), &folder)
    };
    for (key, value, said) in [
        (
            "crop_size",
            json!(224),
            "`crop_size` is 224 pixels, but only the 336 pixels of `size` is",
        ),
        (
            "crop_size",
            Value::Null,
            "`crop_size` is 224 pixels, but only the 336 pixels of `size` is",
        ),
        ("size", json!({ "height": 336, "width": 300 }), "but only a square is"),
        ("do_resize", json!(false), "`do_resize` is false"),
        ("image_grid_pinpoints", json!([[336, 500]]), "only a multiple of the tile's size is"),
        ("image_grid_pinpoints", json!([]), "only a list of at least one [height, width] is"),
    ] {
        let found = refused(key, value);
        assert!(found.starts_with("DIR/preprocessor_config.json: `"), "{found}");
        assert!(found.contains(said), "{key}: {found}");
    }
    // Of its 224 pixels, which the class has by default, its resolutions are no multiples.
    let config = json!({ "image_processor_type": "LlavaNextImageProcessor" });
    let found = message(read(&folder, "preprocessor_config.json", &config), &folder);
    let said = "`image_grid_pinpoints` is [336, 672] by default, but only a multiple";
    assert!(found.contains(said), "{found}");
}

#[test]
fn disabled_processing_steps_are_skipped() {
    let config = json!({ "do_resize": false, "do_center_crop": false, "do_rescale": false,
                         "do_normalize": false, "size": 30, "crop_size": 20 });
    let expected = ImageProcessor {
        resize: None,
        crop: None,
        rescale: 1.0,
        mean: [0.0; 3],
        std: [1.0; 3],
        ..ImageProcessor::clip(20)
    };
    assert_eq!(preprocessor(&config).expect("nothing to do"), expected);
}

#[test]
fn processor_file_of_version_5_takes_precedence() {
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
fn unsupported_processor_settings_are_rejected() {
    let folder = tempdir().expect("a temporary folder");
    let refused =
        |config: Value| message(read(&folder, "preprocessor_config.json", &config), &folder);
    assert_eq!(
        refused(json!({ "resample": 4 })),
        "DIR/preprocessor_config.json: `resample` is 4, but only 0 (nearest), 1 (Lanczos), 2 \
         (bilinear) or 3 (bicubic) is supported"
    );
    assert_eq!(
        refused(json!({ "image_processor_type": "Siglip2ImageProcessor" })),
        "DIR/preprocessor_config.json: `image_processor_type` is \"Siglip2ImageProcessor\", but only \
         BlipImageProcessor, CLIPImageProcessor, SiglipImageProcessor, LlavaImageProcessor, LlavaNextImageProcessor or \
         LlavaOnevisionImageProcessor is supported"
    );
    assert_eq!(
        refused(json!({ "size": { "shortest_edge": 336, "longest_edge": 600 } })),
        "DIR/preprocessor_config.json: `size` is {\"shortest_edge\":336,\"longest_edge\":600}, but \
         only a side, `shortest_edge`, or `height` and `width`, each from 1 to 4096, is supported"
    );
    assert!(refused(json!({ "crop_size": { "height": 3 } })).contains("`crop_size` is {"));
    assert!(refused(json!({ "do_convert_rgb": false })).contains("`do_convert_rgb` is false"));
    assert!(refused(json!({ "do_pad": true })).contains("`do_pad` is true"));
    assert!(refused(json!({ "crop_pct": 0.875 })).contains("`crop_pct` is 0.875"));
    assert!(refused(json!({ "use_square_size": true })).contains("`use_square_size` is true"));
    assert!(refused(json!({ "size": 0 })).contains("`size` is 0"));
    assert!(refused(json!({ "crop_size": { "height": 0, "width": 3 } })).contains("`crop_size`"));
    assert!(refused(json!({ "image_std": [0.5, 0.0, 0.5] })).contains("`image_std`"));
    assert!(refused(json!({ "size": "large" })).contains("`size` is \"large\""));
}

#[test]
fn invalid_processor_values_are_rejected_by_key() {
    let folder = tempdir().expect("a temporary folder");
    let sides = [
        json!(0),
        json!(-1),
        json!(1_000_000),
        json!(4097),
        json!(1_u64 << 60),
        json!("x"),
        json!(1.5),
        json!([8, 8]),
        json!(true),
    ];
    let mut cases = Vec::new();
    for side in &sides {
        for key in ["size", "crop_size"] {
            cases.push((key, side.clone()));
            cases.push((key, json!({ "shortest_edge": side })));
            cases.push((key, json!({ "height": side, "width": 8 })));
            cases.push((key, json!({ "height": 8, "width": side })));
        }
    }
    for number in [json!(0), json!(-1), json!(1e300), json!(1e-300), json!("x"), json!([1])] {
        cases.push(("rescale_factor", number));
    }
    for deviation in [json!(0), json!(-0.5), json!(1e300), json!(1e-300), json!("x")] {
        cases.push(("image_std", json!([0.5, deviation, 0.5])));
    }
    for mean in [
        json!([1e300, 0, 0]),
        json!([0.5, 0.5]),
        json!(0.5),
        json!([0.5, 0.5, 0.5, 0.5]),
        json!(["x", 0, 0]),
    ] {
        cases.push(("image_mean", mean));
    }
    for key in
        ["do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad"]
    {
        cases.push((key, json!(1)));
    }
    cases.extend([
        ("resample", json!(1.5)),
        ("resample", json!("bicubic")),
        ("image_processor_type", json!(3)),
    ]);
    for (key, value) in cases {
        let said =
            message(read(&folder, "preprocessor_config.json", &json!({ key: value })), &folder);
        let expected = format!("DIR/preprocessor_config.json: `{key}` is ");
        assert!(
            said.starts_with(&expected) && said.ends_with(" is supported"),
            "{key} = {value}: {said}"
        );
    }
    let tiles = json!({
        "image_processor_type": "LlavaOnevisionImageProcessor", "size": { "height": 4096, "width": 4096 },
        "image_grid_pinpoints": [[8192, 8192]]
    });
    let said = message(read(&folder, "preprocessor_config.json", &tiles), &folder);
    assert!(said.contains("`image_grid_pinpoints` is [8192, 8192]"), "{said}");
    let said = message(read(&folder, "preprocessor_config.json", &json!([1])), &folder);
    assert!(said.contains("it is [1], and no object"), "{said}");
}
