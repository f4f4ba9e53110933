//! How a checkpoint wants its images prepared: `preprocessor_config.json` or
//! `processor_config.json`.

use std::path::Path;
use std::sync::Arc;

use fisao_images::resample::Filter;
use fisao_models::image::{BestResolution, ImageProcessor, Resize, Resolution, TileLayout};
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
pub(crate) const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
pub(crate) const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
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
    Blip,
    Clip,
    Siglip,
    Llava,
    Next,
    Onevision,
}

/// Names of the classes, their ending left out.
const CLASSES: [(&str, Class); 6] = [
    ("Blip", Class::Blip),
    ("CLIP", Class::Clip),
    ("Siglip", Class::Siglip),
    ("Llava", Class::Llava),
    ("LlavaNext", Class::Next),
    ("LlavaOnevision", Class::Onevision),
];

impl Class {
    fn of_stem(stem: &str) -> Option<Self> {
        CLASSES.iter().find(|(name, _)| *name == stem).map(|(_, class)| *class)
    }

    /// What it cuts images by where the file does not say it, if it does.
    fn pinpoints(self) -> Option<Pinpoints> {
        match self {
            Self::Next => Some(Pinpoints::Next),
            Self::Onevision => Some(Pinpoints::Onevision),
            Self::Blip | Self::Clip | Self::Siglip | Self::Llava => None,
        }
    }
}

/// The default resolutions of a family.
#[derive(Clone, Copy)]
pub(crate) enum Pinpoints {
    /// LLaVA-NeXT's: up to 2 by 2 tiles of 336 pixels, or 3 in a row.
    Next,
    /// LLaVA-OneVision's: up to 6 by 6 tiles of 384 pixels.
    Onevision,
}

impl Pinpoints {
    fn resolutions(self) -> Vec<(u32, u32)> {
        match self {
            Self::Next => vec![(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)],
            Self::Onevision => {
                let along = |tiles: u32| 384 * tiles;
                (1..=6)
                    .flat_map(|row| (1..=6).map(move |column| (along(row), along(column))))
                    .collect()
            }
        }
    }
}

/// What is left of the name of a class without its ending, of which transformers has had several.
fn stem_of_class(name: &str) -> Option<&str> {
    ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
}

/// What is wrong with a list of resolutions.
pub(crate) struct PinpointsError {
    pub(crate) found: String,
    pub(crate) supported: &'static str,
}

/// Reads `image_grid_pinpoints`. Every resolution is to be made of whole tiles `(width, height)`.
pub(crate) fn read_pinpoints(
    value: Option<&Value>,
    default: Pinpoints,
    (width, height): (u32, u32),
) -> Result<Vec<Resolution>, PinpointsError> {
    let refused = |found: String, supported| PinpointsError { found, supported };
    let pinpoints: Vec<(u32, u32)> = match value {
        None => default.resolutions(),
        Some(value) => Vec::deserialize(value)
            .map_err(|_| refused(shown(value), "a list of [height, width]"))?,
    };
    let by_default = if value.is_none() { " by default" } else { "" };
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
        Err(refused(format!("[{down}, {across}]{by_default}"), supported))
    });
    resolutions.collect()
}

/// What [`read_pinpoints`] reads.
pub(crate) fn pinpoints_json(resolutions: &[Resolution]) -> Value {
    resolutions.iter().map(|&Resolution { height, width }| json!([height, width])).collect()
}

/// Reads the image processor of a checkpoint folder, of the kinds that CLIP, SigLIP and LLaVA have.
///
/// # Errors
/// Neither file is there, or it asks for something that is not supported.
pub fn read_image_processor(folder: &Path) -> Result<ImageProcessor, FormatError> {
    read_image_processor_of(folder, &[])
}

/// The same, and the kinds that families have of their own.
pub(crate) fn read_image_processor_of(
    folder: &Path,
    own: &[&ImageProcessorFormat],
) -> Result<ImageProcessor, FormatError> {
    with_processor_fields(folder, |fields| {
        let name = fields.class_name()?.map(|(_, name)| name);
        let stem = name.and_then(stem_of_class);
        match own.iter().find(|(class, _)| Some(*class) == stem) {
            Some((_, read)) => read(fields),
            None => fields.resolve(own),
        }
    })
}

/// Hands over the settings in a checkpoint folder's file.
///
/// # Errors
/// Neither file is there or readable, or what `read` says.
pub(crate) fn with_processor_fields<R>(
    folder: &Path,
    read: impl FnOnce(&ProcessorFields<'_>) -> Result<R, FormatError>,
) -> Result<R, FormatError> {
    let path = folder.join(PROCESSOR_FILE);
    if path.exists() {
        let value = read_settings(WHAT, &path)?;
        if let Some(inner) = value.get("image_processor") {
            return read(&ProcessorFields(Fields::of_file(WHAT, &path, inner)?));
        }
    }
    let path = folder.join(PREPROCESSOR_FILE);
    let value = read_settings(WHAT, &path)?;
    read(&ProcessorFields(Fields::of_file(WHAT, &path, &value)?))
}

/// The name of an image processor's class in transformers, its ending left out, and what reads its settings.
pub(crate) type ImageProcessorFormat =
    (&'static str, fn(&ProcessorFields<'_>) -> Result<ImageProcessor, FormatError>);

/// What pixels are multiplied by, and then their mean and deviation.
pub(crate) struct Levels {
    pub(crate) rescale: f32,
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
    /// The mean before anything was left out.
    given_mean: [f64; 3],
}

/// A file's settings; absent ones have the defaults of transformers' class.
pub(crate) struct ProcessorFields<'a>(pub(crate) Fields<'a>);

impl ProcessorFields<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "levels are rounded down as transformers does it"
    )]
    fn resolve(&self, own: &[&ImageProcessorFormat]) -> Result<ImageProcessor, FormatError> {
        let fields = &self.0;
        let class = self.class(own)?;
        self.refuse_other_work(class)?;
        let resizes = fields.flag("do_resize")?.unwrap_or(true);
        let (size, crop) = match class {
            Some(Class::Next) => (self.square_tile()?, None),
            class => {
                let size = self.size(class)?;
                (size, self.crop(class, size)?)
            }
        };
        let (mean, std) = match class {
            Some(Class::Siglip) => ([0.5; 3], [0.5; 3]),
            _ => (CLIP_MEAN, CLIP_STD),
        };
        let levels = self.levels((mean, std))?;
        // Transformers takes the means for it even where it does not normalise.
        let pinpoints = class.and_then(Class::pinpoints);
        let pads = pinpoints.is_none() && fields.flag("do_pad")?.unwrap_or(false);
        let pad = pads.then(|| levels.given_mean.map(|level| (level * 255.0) as u8));
        let tiles = match pinpoints {
            Some(default) => {
                let layout = BestResolution { resolutions: self.tiles(size, default)? };
                Some(Arc::new(layout) as Arc<dyn TileLayout>)
            }
            None => None,
        };
        Ok(ImageProcessor {
            pad,
            resize: resizes.then_some(size),
            filter: self.filter(Filter::Bicubic)?,
            crop,
            rescale: levels.rescale,
            mean: levels.mean,
            std: levels.std,
            tiles,
        })
    }

    /// How levels become numbers, by these means and deviations where the file names none.
    #[expect(clippy::cast_possible_truncation, reason = "numbers to f32")]
    pub(crate) fn levels(&self, (mean, std): ([f64; 3], [f64; 3])) -> Result<Levels, FormatError> {
        let fields = &self.0;
        let given_mean = fields.triple("image_mean", MEAN)?.unwrap_or(mean);
        let std = fields.triple("image_std", DEVIATION)?.unwrap_or(std);
        let normalises = fields.flag("do_normalize")?.unwrap_or(true);
        let (mean, std) = if normalises { (given_mean, std) } else { ([0.0; 3], [1.0; 3]) };
        let factor = fields.real("rescale_factor", FACTOR)?.unwrap_or(1.0 / 255.0);
        let rescales = fields.flag("do_rescale")?.unwrap_or(true);
        Ok(Levels {
            rescale: if rescales { factor as f32 } else { 1.0 },
            mean: mean.map(|value| value as f32),
            std: std.map(|value| value as f32),
            given_mean,
        })
    }

    /// The way of resizing, this one where the file names none.
    pub(crate) fn filter(&self, default: Filter) -> Result<Filter, FormatError> {
        let Some(value) = self.0.get("resample") else { return Ok(default) };
        value.as_u64().and_then(Filter::from_number).ok_or_else(|| {
            let supported = "0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)";
            self.0.refused("resample", supported)
        })
    }

    /// The resolutions that an image may be brought to before it is cut into tiles of a size.
    fn tiles(&self, size: Resize, default: Pinpoints) -> Result<Vec<Resolution>, FormatError> {
        let Resize::Exact { width, height } = size else {
            return Err(self.0.refused("size", "`height` and `width`"));
        };
        self.0.refuse_false(&["do_resize"])?;
        let pinpoints = self.0.get(GRID_PINPOINTS);
        read_pinpoints(pinpoints, default, (width, height)).map_err(
            |PinpointsError { found, supported }| {
                self.0.refused_as(GRID_PINPOINTS, found, supported)
            },
        )
    }

    /// The size of LLaVA-NeXT's tiles. Its class brings the whole image to a square of `size`, cuts tiles of `crop_size`, and then
    /// brings both to the one and crops them to the other, which changes nothing where the two are one square.
    fn square_tile(&self) -> Result<Resize, FormatError> {
        let square = |sides: Resize| match sides {
            Resize::ShortestEdge(side) => Some(side),
            Resize::Exact { width, height } => Some(width).filter(|_| width == height),
            Resize::Budget(_) => None,
        };
        let side = |key| {
            let sides = self.sides(key)?.unwrap_or(Resize::ShortestEdge(224));
            square(sides).ok_or_else(|| self.0.refused(key, "a square"))
        };
        let (size, crop) = (side("size")?, side("crop_size")?);
        if size != crop {
            let supported = format!("the {size} pixels of `size`");
            return Err(self.0.refused_as("crop_size", format!("{crop} pixels"), supported));
        }
        Ok(Resize::Exact { width: size, height: size })
    }

    /// The key that names a class, and the name.
    fn class_name(&self) -> Result<Option<(&'static str, &str)>, FormatError> {
        // The second is the name of old.
        for key in ["image_processor_type", "feature_extractor_type"] {
            if let Some(name) = self.0.text(key)? {
                return Ok(Some((key, name)));
            }
        }
        Ok(None)
    }

    /// `None` in files that name no class; those are CLIP's or look like SigLIP's.
    fn class(&self, own: &[&ImageProcessorFormat]) -> Result<Option<Class>, FormatError> {
        let Some((key, name)) = self.class_name()? else { return Ok(None) };
        let class = stem_of_class(name).and_then(Class::of_stem);
        class.map(Some).ok_or_else(|| {
            let known =
                CLASSES.iter().map(|(stem, _)| *stem).chain(own.iter().map(|(stem, _)| *stem));
            let known: Vec<_> = known.map(|stem| format!("{stem}ImageProcessor")).collect();
            let (last, others) = known.split_last().expect("there are some");
            let supported = format!("{} or {last}", others.join(", "));
            self.0.refused_as(key, shown(&name.into()), supported)
        })
    }

    fn refuse_other_work(&self, class: Option<Class>) -> Result<(), FormatError> {
        let fields = &self.0;
        fields.refuse_false(&["do_convert_rgb"])?;
        // Classes that cut tiles pad batches, not images.
        let pads = matches!(class, Some(Class::Llava | Class::Next | Class::Onevision));
        if fields.flag("do_pad")? == Some(true) && !pads {
            return Err(fields.refused("do_pad", "false (true for LlavaImageProcessor)"));
        }
        if fields.get(GRID_PINPOINTS).is_some() && class.and_then(Class::pinpoints).is_none() {
            let supported =
                "null (a list for LlavaNextImageProcessor and LlavaOnevisionImageProcessor)";
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
            Some(Class::Blip | Class::Onevision) => Resize::Exact { width: 384, height: 384 },
            _ => Resize::ShortestEdge(224),
        }))
    }

    fn crop(&self, class: Option<Class>, size: Resize) -> Result<Option<(u32, u32)>, FormatError> {
        // transformers' class for BLIP has no crop, whatever the file says.
        if class == Some(Class::Blip) {
            return Ok(None);
        }
        // SigLIP's processor, which resizes to an exact size, crops only if the file says so.
        let crops = match class {
            Some(Class::Blip | Class::Siglip | Class::Onevision) => false,
            Some(Class::Clip | Class::Llava | Class::Next) => true,
            None => matches!(size, Resize::ShortestEdge(_)),
        };
        let crop = match self.sides("crop_size")? {
            None => (224, 224),
            Some(Resize::ShortestEdge(side)) => (side, side),
            Some(Resize::Exact { width, height }) => (width, height),
            Some(Resize::Budget(_)) => unreachable!("sides are not a number of pixels"),
        };
        Ok(self.0.flag("do_center_crop")?.unwrap_or(crops).then_some(crop))
    }

    /// A size: a bare number in old files, else an object. Combinations that mean something else are refused.
    fn sides(&self, key: &'static str) -> Result<Option<Resize>, FormatError> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let Value::Object(sides) = value else {
            let side = side(value).ok_or_else(|| self.0.refused(key, SIZES))?;
            return Ok(Some(Resize::ShortestEdge(side)));
        };
        let given = sides.iter().filter(|(_, side)| !side.is_null());
        let given = given.map(|(name, value)| Some((name.as_str(), side(value)?)));
        let mut given = given.collect::<Option<Vec<_>>>().unwrap_or_default();
        given.sort_unstable();
        match given[..] {
            [("shortest_edge", side)] => Ok(Some(Resize::ShortestEdge(side))),
            [("height", height), ("width", width)] => Ok(Some(Resize::Exact { width, height })),
            _ => Err(self.0.refused(key, SIZES)),
        }
    }
}

const SIZES: &str = "a side, `shortest_edge`, or `height` and `width`, each from 1 to 4096,";

/// A side of a size, pixels.
pub(crate) fn side(value: &Value) -> Option<u32> {
    let side = u32::try_from(value.as_u64()?).ok()?;
    (1..=LONGEST_SIDE).contains(&side).then_some(side)
}
