//! How a checkpoint wants its images prepared: `preprocessor_config.json` or
//! `processor_config.json`.

use std::path::Path;

use fisao_models::image::{Filter, ImageProcessor, Resize, Resolution};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::FormatError;
use crate::documents::read_settings;
use crate::fields::{Fields, Real, shown};

/// Written by transformers 4, and by version 5 for models without a tokenizer.
const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// Written by transformers 5 with the image processor inside; version 4's has none.
const PROCESSOR_FILE: &str = "processor_config.json";
const WHAT: &str = "image processor configuration";
/// No image is cut into more.
const MOST_TILES: u64 = 1024;
/// Pixels of all its tiles.
const MOST_PIXELS: u64 = 1 << 24;
/// No image is brought to a longer side, pixels.
const LONGEST_SIDE: u32 = 4096;
/// Factor on the levels of pixels, from 0 to 255.
const FACTOR: Real = Real { least: 1e-6, most: 1.0, said: "a number from 1e-6 to 1" };
/// What is subtracted from them.
const MEAN: Real = Real { least: -1000.0, most: 1000.0, said: "three numbers from -1000 to 1000" };
/// What they are divided by.
const DEVIATION: Real = Real { least: 1e-6, most: 1000.0, said: "three numbers from 1e-6 to 1000" };
/// The means and deviations of OpenAI's CLIP, transformers' default.
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
/// PIL's numbers for the ways of resizing.
const FILTERS: [(i64, Filter); 4] =
    [(0, Filter::Nearest), (1, Filter::Lanczos), (2, Filter::Bilinear), (3, Filter::Bicubic)];
/// The field that lists the sizes images may be brought to before they are cut into tiles.
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
            .map_err(|_| refused(shown(value), "a list of [height, width]"))?,
    };
    if pinpoints.is_empty() {
        return Err(refused("[]".to_owned(), "a list of at least one [height, width]"));
    }
    let resolutions = pinpoints.into_iter().map(|(down, across)| {
        let whole = down > 0 && across > 0 && down % height == 0 && across % width == 0;
        let few = u64::from(down / height) * u64::from(across / width) <= MOST_TILES;
        let small = u64::from(down) * u64::from(across) <= MOST_PIXELS;
        let supported = match (whole, few && small) {
            (true, true) => return Ok(Resolution { height: down, width: across }),
            (false, _) => "a multiple of the tile's size",
            (true, false) => "a size of up to 1024 tiles and 16777216 pixels",
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
        let value = read_settings(WHAT, &path)?;
        if let Some(inner) = value.get("image_processor") {
            return parse(&path, inner);
        }
    }
    let path = folder.join(PREPROCESSOR_FILE);
    parse(&path, &read_settings(WHAT, &path)?)
}

fn parse(path: &Path, value: &Value) -> Result<ImageProcessor, FormatError> {
    Processor { fields: Fields::of_file(WHAT, path, value)? }.resolve()
}

/// PIL's number for a way of resizing.
pub(crate) fn resample_number(filter: Filter) -> i64 {
    let found = FILTERS.iter().find(|&&(_, known)| known == filter);
    found.expect("the table holds every filter").0
}

/// A file's settings; absent ones have the defaults of transformers' class.
struct Processor<'a> {
    fields: Fields<'a>,
}

impl Processor<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "levels are rounded down as transformers does it, and numbers to f32"
    )]
    fn resolve(&self) -> Result<ImageProcessor, FormatError> {
        let fields = &self.fields;
        let class = self.class()?;
        self.refuse_other_work(class)?;
        let resizes = fields.flag("do_resize")?.unwrap_or(true);
        let size = self.size(class)?;
        let crop = self.crop(class, size)?;
        let (mean, std) = match class {
            Some(Class::Siglip) => ([0.5; 3], [0.5; 3]),
            _ => (CLIP_MEAN, CLIP_STD),
        };
        let mean = fields.triple("image_mean", MEAN)?.unwrap_or(mean);
        let std = fields.triple("image_std", DEVIATION)?.unwrap_or(std);
        // Transformers takes the means for it even where it does not normalise.
        let pads = class != Some(Class::Onevision) && fields.flag("do_pad")?.unwrap_or(false);
        let pad = pads.then(|| mean.map(|level| (level * 255.0) as u8));
        let normalises = fields.flag("do_normalize")?.unwrap_or(true);
        let (mean, std) = if normalises { (mean, std) } else { ([0.0; 3], [1.0; 3]) };
        let factor = fields.real("rescale_factor", FACTOR)?.unwrap_or(1.0 / 255.0);
        let rescales = fields.flag("do_rescale")?.unwrap_or(true);
        let tiles = match class {
            Some(Class::Onevision) => Some(self.tiles(size)?),
            _ => None,
        };
        Ok(ImageProcessor {
            pad,
            resize: resizes.then_some(size),
            filter: self.filter()?,
            crop,
            rescale: if rescales { factor as f32 } else { 1.0 },
            mean: mean.map(|value| value as f32),
            std: std.map(|value| value as f32),
            tiles,
        })
    }

    fn filter(&self) -> Result<Filter, FormatError> {
        let Some(value) = self.fields.get("resample") else { return Ok(Filter::Bicubic) };
        let number = value.as_i64();
        let found = FILTERS.iter().find(|&&(known, _)| Some(known) == number);
        found.map(|&(_, filter)| filter).ok_or_else(|| {
            let supported = "0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)";
            self.fields.refused("resample", supported)
        })
    }

    /// The resolutions that an image may be brought to before it is cut into tiles of a size.
    fn tiles(&self, size: Resize) -> Result<Vec<Resolution>, FormatError> {
        let Resize::Exact { width, height } = size else {
            return Err(self.fields.refused("size", "`height` and `width`"));
        };
        if self.fields.flag("do_resize")? == Some(false) {
            return Err(self.fields.refused("do_resize", "true"));
        }
        let pinpoints = self.fields.get(GRID_PINPOINTS);
        read_pinpoints(pinpoints, (width, height)).map_err(|PinpointsError { found, supported }| {
            self.fields.refused_as(GRID_PINPOINTS, found, supported)
        })
    }

    /// `None` in files that name no class; those are CLIP's or look like SigLIP's.
    fn class(&self) -> Result<Option<Class>, FormatError> {
        let supported = "CLIPImageProcessor, SiglipImageProcessor, LlavaImageProcessor or \
                         LlavaOnevisionImageProcessor";
        // The second is the name of old.
        for key in ["image_processor_type", "feature_extractor_type"] {
            if let Some(name) = self.fields.text(key)? {
                let class = Class::named(name);
                return class.map(Some).ok_or_else(|| self.fields.refused(key, supported));
            }
        }
        Ok(None)
    }

    fn refuse_other_work(&self, class: Option<Class>) -> Result<(), FormatError> {
        let fields = &self.fields;
        if fields.flag("do_convert_rgb")? == Some(false) {
            return Err(fields.refused("do_convert_rgb", "true"));
        }
        // LLaVA-OneVision's pads batches, not images.
        let pads = matches!(class, Some(Class::Llava | Class::Onevision));
        if fields.flag("do_pad")? == Some(true) && !pads {
            return Err(fields.refused("do_pad", "false (true for LlavaImageProcessor)"));
        }
        if fields.get(GRID_PINPOINTS).is_some() && class != Some(Class::Onevision) {
            let supported = "null (a list for LlavaOnevisionImageProcessor)";
            return Err(fields.refused(GRID_PINPOINTS, supported));
        }
        for key in REFUSED {
            if fields.get(key).is_some_and(|value| value.as_bool() != Some(false)) {
                return Err(fields.refused(key, "null"));
            }
        }
        Ok(())
    }

    fn size(&self, class: Option<Class>) -> Result<Resize, FormatError> {
        Ok(self.sides("size")?.unwrap_or(match class {
            Some(Class::Siglip) => Resize::Exact { width: 224, height: 224 },
            Some(Class::Onevision) => Resize::Exact { width: 384, height: 384 },
            _ => Resize::ShortestEdge(224),
        }))
    }

    fn crop(&self, class: Option<Class>, size: Resize) -> Result<Option<(u32, u32)>, FormatError> {
        // SigLIP's processor, which resizes to an exact size, crops only if the file says so.
        let crops = match class {
            Some(Class::Siglip | Class::Onevision) => false,
            Some(Class::Clip | Class::Llava) => true,
            None => matches!(size, Resize::ShortestEdge(_)),
        };
        let crop = match self.sides("crop_size")? {
            None => (224, 224),
            Some(Resize::ShortestEdge(side)) => (side, side),
            Some(Resize::Exact { width, height }) => (width, height),
        };
        Ok(self.fields.flag("do_center_crop")?.unwrap_or(crops).then_some(crop))
    }

    /// A size: a bare number in old files, else an object. Combinations that mean something else are refused.
    fn sides(&self, key: &'static str) -> Result<Option<Resize>, FormatError> {
        let Some(value) = self.fields.get(key) else { return Ok(None) };
        let Value::Object(sides) = value else {
            let side = side(value).ok_or_else(|| self.fields.refused(key, SIZES))?;
            return Ok(Some(Resize::ShortestEdge(side)));
        };
        let given = sides.iter().filter(|(_, side)| !side.is_null());
        let given = given.map(|(name, value)| Some((name.as_str(), side(value)?)));
        let mut given = given.collect::<Option<Vec<_>>>().unwrap_or_default();
        given.sort_unstable();
        match given[..] {
            [("shortest_edge", side)] => Ok(Some(Resize::ShortestEdge(side))),
            [("height", height), ("width", width)] => Ok(Some(Resize::Exact { width, height })),
            _ => Err(self.fields.refused(key, SIZES)),
        }
    }
}

const SIZES: &str = "a side, `shortest_edge`, or `height` and `width`, each from 1 to 4096,";

/// A side of a size, pixels.
fn side(value: &Value) -> Option<u32> {
    let side = u32::try_from(value.as_u64()?).ok()?;
    (1..=LONGEST_SIDE).contains(&side).then_some(side)
}
