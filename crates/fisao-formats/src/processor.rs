//! How a checkpoint wants its images prepared: `preprocessor_config.json` or
//! `processor_config.json`.

use std::path::Path;

use fisao_models::image::{ImageProcessor, Resize};
use serde::Deserialize;
use serde_json::Value;

use crate::FormatError;
use crate::documents::read_json;

/// Written by transformers 4, and by version 5 for models without a tokenizer.
const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// Written by transformers 5 with the image processor inside; version 4's has none.
const PROCESSOR_FILE: &str = "processor_config.json";
const WHAT: &str = "image processor configuration";
/// PIL's number for bicubic interpolation.
const BICUBIC: i64 = 3;
/// The means and deviations of OpenAI's CLIP, transformers' default.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Defaults are those of transformers' `CLIPImageProcessor`.
#[derive(Deserialize)]
struct RawProcessor {
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<RawSize>,
    resample: Option<i64>,
    do_center_crop: Option<bool>,
    crop_size: Option<RawSize>,
    #[serde(default = "yes")]
    do_rescale: bool,
    rescale_factor: Option<f32>,
    #[serde(default = "yes")]
    do_normalize: bool,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum RawSize {
    /// Old files hold a bare number.
    Side(u32),
    ShortestEdge {
        shortest_edge: u32,
    },
    Exact {
        height: u32,
        width: u32,
    },
}

/// Reads the image processor of a checkpoint folder.
///
/// # Errors
/// Neither file is there, or it asks for something that is not supported.
pub fn read_image_processor(folder: &Path) -> Result<ImageProcessor, FormatError> {
    let path = folder.join(PROCESSOR_FILE);
    if path.exists() {
        let mut value: Value = read_json(WHAT, &path)?;
        if let Some(inner) = value.get_mut("image_processor") {
            return parse(&path, inner.take());
        }
    }
    let path = folder.join(PREPROCESSOR_FILE);
    parse(&path, read_json(WHAT, &path)?)
}

fn parse(path: &Path, value: Value) -> Result<ImageProcessor, FormatError> {
    let raw = RawProcessor::deserialize(value).map_err(|error| FormatError::Malformed {
        what: WHAT,
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let unsupported = |field: &str, found: String, supported| FormatError::UnsupportedField {
        path: path.to_owned(),
        field: field.to_owned(),
        found,
        supported,
    };
    if let Some(resample) = raw.resample.filter(|&resample| resample != BICUBIC) {
        return Err(unsupported("resample", resample.to_string(), "3 (bicubic)"));
    }
    let size = match raw.size {
        None => Resize::ShortestEdge(224),
        Some(RawSize::Side(side) | RawSize::ShortestEdge { shortest_edge: side }) => {
            Resize::ShortestEdge(side)
        }
        Some(RawSize::Exact { height, width }) => Resize::Exact { width, height },
    };
    // A processor that resizes to an exact size (SigLIP's) crops only if it says so.
    let crops = raw.do_center_crop.unwrap_or(matches!(size, Resize::ShortestEdge(_)));
    let crop = match raw.crop_size {
        _ if !crops => None,
        None => Some((224, 224)),
        Some(RawSize::Side(side) | RawSize::ShortestEdge { shortest_edge: side }) => {
            Some((side, side))
        }
        Some(RawSize::Exact { height, width }) => Some((width, height)),
    };
    let zero = match (size, crop) {
        (Resize::ShortestEdge(0), _) => Some("size"),
        (Resize::Exact { width, height }, _) if width == 0 || height == 0 => Some("size"),
        (_, Some((width, height))) if width == 0 || height == 0 => Some("crop_size"),
        _ => None,
    };
    if let Some(field) = zero {
        return Err(unsupported(field, "0".to_owned(), "a size above 0"));
    }
    let resize = raw.do_resize.then_some(size);
    let (mean, std) = if raw.do_normalize {
        (raw.image_mean.unwrap_or(CLIP_MEAN), raw.image_std.unwrap_or(CLIP_STD))
    } else {
        ([0.0; 3], [1.0; 3])
    };
    if std.contains(&0.0) {
        return Err(unsupported("image_std", format!("{std:?}"), "a deviation above 0"));
    }
    let rescale = if raw.do_rescale { raw.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
    Ok(ImageProcessor { resize, crop, rescale, mean, std })
}

fn yes() -> bool {
    true
}
