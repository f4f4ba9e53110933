//! How a checkpoint wants its images prepared: `preprocessor_config.json` or
//! `processor_config.json`.

use std::path::Path;

use fisao_models::image::{Filter, ImageProcessor, Resize, Resolution};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::FormatError;
use crate::documents::read_json;

/// Written by transformers 4, and by version 5 for models without a tokenizer.
const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// Written by transformers 5 with the image processor inside; version 4's has none.
const PROCESSOR_FILE: &str = "processor_config.json";
const WHAT: &str = "image processor configuration";
/// No picture is cut into more.
const MOST_TILES: u64 = 1024;
/// The means and deviations of OpenAI's CLIP, transformers' default.
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
/// PIL's numbers for the ways of resizing.
const FILTERS: [(i64, Filter); 4] =
    [(0, Filter::Nearest), (1, Filter::Lanczos), (2, Filter::Bilinear), (3, Filter::Bicubic)];
/// The field that lists the sizes pictures may be brought to before they are cut into tiles.
pub(crate) const GRID_PINPOINTS: &str = "image_grid_pinpoints";
/// Keys of other processors that change pixels, and are refused unless they are null or false.
const REFUSED: [&str; 6] = [
    "crop_pct",
    "use_square_size",
    "size_divisor",
    "do_flip_channel_order",
    "do_thumbnail",
    "do_align_long_axis",
];

/// Absent and null fields have the defaults of transformers' class.
#[derive(Deserialize)]
struct RawProcessor {
    image_processor_type: Option<String>,
    /// The name of old.
    feature_extractor_type: Option<String>,
    do_convert_rgb: Option<bool>,
    do_pad: Option<bool>,
    do_resize: Option<bool>,
    size: Option<RawSize>,
    resample: Option<i64>,
    do_center_crop: Option<bool>,
    crop_size: Option<RawSize>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f32>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    image_grid_pinpoints: Option<Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum RawSize {
    /// Old files hold a bare number.
    Side(u32),
    Sides {
        #[serde(skip_serializing_if = "Option::is_none")]
        shortest_edge: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        height: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        width: Option<u32>,
        #[serde(flatten)]
        other: Map<String, Value>,
    },
}

impl RawSize {
    /// `None` for combinations that mean something else.
    fn resize(&self) -> Option<Resize> {
        match self {
            &Self::Side(side) => Some(Resize::ShortestEdge(side)),
            Self::Sides { other, .. } if !other.values().all(Value::is_null) => None,
            &Self::Sides { shortest_edge: Some(side), height: None, width: None, .. } => {
                Some(Resize::ShortestEdge(side))
            }
            &Self::Sides {
                shortest_edge: None, height: Some(height), width: Some(width), ..
            } => Some(Resize::Exact { width, height }),
            Self::Sides { .. } => None,
        }
    }
}

/// The classes of transformers whose work is done here.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Clip,
    Siglip,
    Llava,
    Onevision,
}

impl Class {
    fn named(name: &str) -> Option<Self> {
        let stem =
            ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending))?;
        match stem {
            "CLIP" => Some(Self::Clip),
            "Siglip" => Some(Self::Siglip),
            "Llava" => Some(Self::Llava),
            "LlavaOnevision" => Some(Self::Onevision),
            _ => None,
        }
    }
}

/// What is wrong with a list of resolutions.
pub(crate) struct PinpointsError {
    pub(crate) found: String,
    pub(crate) supported: &'static str,
}

/// Reads `image_grid_pinpoints`, by default those of LLaVA-OneVision: up to 6 by 6 tiles of 384 pixels.
/// Every resolution is to be made of whole tiles `(width, height)`.
pub(crate) fn read_pinpoints(
    value: Option<&Value>,
    (width, height): (u32, u32),
) -> Result<Vec<Resolution>, PinpointsError> {
    let refused = |found: String, supported| PinpointsError { found, supported };
    let pinpoints: Vec<(u32, u32)> = match value {
        None | Some(Value::Null) => {
            (1..=6).flat_map(|row| (1..=6).map(move |column| (384 * row, 384 * column))).collect()
        }
        Some(value) => Vec::deserialize(value)
            .map_err(|_| refused(value.to_string(), "a list of [height, width]"))?,
    };
    if pinpoints.is_empty() {
        return Err(refused("[]".to_owned(), "a list of at least one [height, width]"));
    }
    let resolutions = pinpoints.into_iter().map(|(down, across)| {
        let whole = down > 0 && across > 0 && down % height == 0 && across % width == 0;
        let few = u64::from(down / height) * u64::from(across / width) <= MOST_TILES;
        let supported = match (whole, few) {
            (true, true) => return Ok(Resolution { height: down, width: across }),
            (false, _) => "a multiple of the tile's size",
            (true, false) => "a size of up to 1024 tiles",
        };
        Err(refused(format!("[{down}, {across}]"), supported))
    });
    resolutions.collect()
}

/// What [`read_pinpoints`] reads.
pub(crate) fn pinpoints_json(resolutions: &[Resolution]) -> Value {
    resolutions.iter().map(|&Resolution { height, width }| json!([height, width])).collect()
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
    raw.resolve().map_err(|refusal| FormatError::UnsupportedField {
        path: path.to_owned(),
        field: refusal.field.to_owned(),
        found: refusal.found,
        supported: refusal.supported,
    })
}

const SIZES: &str = "a side, `shortest_edge`, or `height` and `width`";

fn shown(size: Option<&RawSize>) -> String {
    serde_json::to_string(&size).unwrap_or_default()
}

/// PIL's number for a way of resizing.
pub(crate) fn resample_number(filter: Filter) -> i64 {
    let found = FILTERS.iter().find(|&&(_, known)| known == filter);
    found.expect("the table holds every filter").0
}

/// A field whose value would give other pixels than ours.
struct Refusal {
    field: &'static str,
    found: String,
    supported: &'static str,
}

fn refuse<T>(field: &'static str, found: String, supported: &'static str) -> Result<T, Refusal> {
    Err(Refusal { field, found, supported })
}

impl RawProcessor {
    fn resolve(&self) -> Result<ImageProcessor, Refusal> {
        let class = self.class()?;
        self.refuse_other_work(class)?;
        let size = self.size(class)?;
        let crop = self.crop(class, size)?;
        let number = self.resample.unwrap_or(3);
        let Some(&(_, filter)) = FILTERS.iter().find(|&&(known, _)| known == number) else {
            let supported = "0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)";
            return refuse("resample", number.to_string(), supported);
        };
        let (mean, std) = match class {
            Some(Class::Siglip) => ([0.5; 3], [0.5; 3]),
            _ => (CLIP_MEAN, CLIP_STD),
        };
        let (mean, std) = (self.image_mean.unwrap_or(mean), self.image_std.unwrap_or(std));
        // Transformers takes the means for it even where it does not normalise.
        let pads = class != Some(Class::Onevision) && self.do_pad.unwrap_or(false);
        let pad = pads.then(|| mean.map(|level| (level * 255.0) as u8));
        let normalises = self.do_normalize.unwrap_or(true);
        let (mean, std) = if normalises { (mean, std) } else { ([0.0; 3], [1.0; 3]) };
        if std.contains(&0.0) {
            return refuse("image_std", format!("{std:?}"), "a deviation above 0");
        }
        let rescales = self.do_rescale.unwrap_or(true);
        let tiles = match class {
            Some(Class::Onevision) => Some(self.tiles(size)?),
            _ => None,
        };
        Ok(ImageProcessor {
            pad,
            resize: self.do_resize.unwrap_or(true).then_some(size),
            filter,
            crop,
            rescale: if rescales { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 },
            mean: mean.map(|value| value as f32),
            std: std.map(|value| value as f32),
            tiles,
        })
    }

    /// The resolutions that a picture may be brought to before it is cut into tiles of a size.
    fn tiles(&self, size: Resize) -> Result<Vec<Resolution>, Refusal> {
        let Resize::Exact { width, height } = size else {
            return refuse("size", shown(self.size.as_ref()), "`height` and `width`");
        };
        if self.do_resize == Some(false) {
            return refuse("do_resize", "false".to_owned(), "true");
        }
        let pinpoints = self.image_grid_pinpoints.as_ref();
        read_pinpoints(pinpoints, (width, height)).map_err(|PinpointsError { found, supported }| {
            Refusal { field: GRID_PINPOINTS, found, supported }
        })
    }

    /// `None` in files that name no class; those are CLIP's or look like SigLIP's.
    fn class(&self) -> Result<Option<Class>, Refusal> {
        let named = [
            ("image_processor_type", &self.image_processor_type),
            ("feature_extractor_type", &self.feature_extractor_type),
        ];
        let Some((field, name)) =
            named.into_iter().find_map(|(field, name)| name.as_ref().map(|name| (field, name)))
        else {
            return Ok(None);
        };
        let supported = "CLIPImageProcessor, SiglipImageProcessor, LlavaImageProcessor or \
                         LlavaOnevisionImageProcessor";
        match Class::named(name) {
            None => refuse(field, format!("`{name}`"), supported),
            class => Ok(class),
        }
    }

    fn refuse_other_work(&self, class: Option<Class>) -> Result<(), Refusal> {
        if self.do_convert_rgb == Some(false) {
            return refuse("do_convert_rgb", "false".to_owned(), "true");
        }
        // LLaVA-OneVision's pads batches, not pictures.
        if self.do_pad == Some(true) && !matches!(class, Some(Class::Llava | Class::Onevision)) {
            let supported = "false (true for LlavaImageProcessor)";
            return refuse("do_pad", "true".to_owned(), supported);
        }
        if let (Some(pinpoints), false) =
            (&self.image_grid_pinpoints, class == Some(Class::Onevision))
        {
            let supported = "null (a list for LlavaOnevisionImageProcessor)";
            return refuse(GRID_PINPOINTS, pinpoints.to_string(), supported);
        }
        for field in REFUSED {
            let value = self.other.get(field).unwrap_or(&Value::Null);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return refuse(field, value.to_string(), "null");
            }
        }
        Ok(())
    }

    fn size(&self, class: Option<Class>) -> Result<Resize, Refusal> {
        let size = match &self.size {
            None if class == Some(Class::Siglip) => Some(Resize::Exact { width: 224, height: 224 }),
            None if class == Some(Class::Onevision) => {
                Some(Resize::Exact { width: 384, height: 384 })
            }
            None => Some(Resize::ShortestEdge(224)),
            Some(size) => size.resize(),
        };
        match size {
            None => refuse("size", shown(self.size.as_ref()), SIZES),
            Some(Resize::ShortestEdge(0)) => refuse("size", "0".to_owned(), "a size above 0"),
            Some(Resize::Exact { width, height }) if width == 0 || height == 0 => {
                refuse("size", "0".to_owned(), "a size above 0")
            }
            Some(size) => Ok(size),
        }
    }

    fn crop(&self, class: Option<Class>, size: Resize) -> Result<Option<(u32, u32)>, Refusal> {
        // SigLIP's processor, which resizes to an exact size, crops only if the file says so.
        let crops = match class {
            Some(Class::Siglip | Class::Onevision) => false,
            Some(Class::Clip | Class::Llava) => true,
            None => matches!(size, Resize::ShortestEdge(_)),
        };
        if !self.do_center_crop.unwrap_or(crops) {
            return Ok(None);
        }
        let crop = match &self.crop_size {
            None => Some((224, 224)),
            Some(crop) => crop.resize().map(|crop| match crop {
                Resize::ShortestEdge(side) => (side, side),
                Resize::Exact { width, height } => (width, height),
            }),
        };
        match crop {
            None => refuse("crop_size", shown(self.crop_size.as_ref()), SIZES),
            Some((width, height)) if width == 0 || height == 0 => {
                refuse("crop_size", "0".to_owned(), "a size above 0")
            }
            crop => Ok(crop),
        }
    }
}
