//! SmolVLM's configuration: `config.json`, and what image processor and tokenizer say of tiles.

use std::path::Path;
use std::sync::Arc;

use fisao_images::resample::Filter;
use fisao_models::image::{ImageProcessor, Resize, TileLayout};
use fisao_models::text::Tokenizer as _;
use fisao_models::vision::VisionFamily;
use fisao_models::vision_language::VisionLanguageConfig;
use fisao_models::vision_language::smolvlm::{SmolVlmConfig, SplitImage, TileTokens};

use super::{expect_type, llama, vision, whole};
use crate::FormatError;
use crate::checkpoint::companion_files::{CompanionFiles, token_ids};
use crate::checkpoint::family_format::{FamilyFormat, Naming};
use crate::fields::{Fields, Whole};
use crate::processor::{Levels, ProcessorFields, side, with_processor_fields};
use crate::tokenizer::{HfTokenizer, TOKENIZER_FILE};
use crate::weights::Layout;

/// SmolVLM and SmolVLM2.
pub(super) const FORMAT: FamilyFormat = FamilyFormat {
    model_types: &[("smolvlm", read)],
    layout: Layout {
        prefixes: &[
            ("model.vision_model.", "vision_tower.vision_model."),
            ("model.connector.", "connector."),
            ("model.text_model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
        ],
        releases: &[("model.text_model.", "as published (model.text_model.*)")],
    },
    namings: &[Naming {
        decoder: "model.text_model.",
        head: "lm_head",
        others: &[
            ("connector.", "model.connector."),
            ("vision_tower.vision_model.", "model.vision_model."),
        ],
    }],
    image_processors: &[("SmolVLM", read_image_processor)],
    instruction_tokenizer: None,
    parts: &[
        (&["vision_tower."], "vision tower"),
        (&["connector."], "connector"),
        (&["language_model."], "language model"),
    ],
};

/// Patches along a side that become one token.
const SCALE: Whole = Whole { least: 1, most: 64, said: "a whole number from 1 to 64" };
/// Rows and columns that are looked for in a tokenizer.
const MOST_PLACES: usize = 64;
/// `SmolVLMVisionConfig`.
const VISION: vision::Defaults = vision::Defaults {
    family: VisionFamily::Siglip,
    width: 1152,
    intermediate_size: 3072,
    layers: 12,
    heads: 16,
    patch_size: 32,
    layer_norm_eps: 1e-6,
    hidden_act: "gelu_pytorch_tanh",
};
/// What tokenizers call things.
const FENCE: &str = "<fake_token_around_image>";
const WHOLE_IMAGE: &str = "<global-img>";

fn read(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
) -> Result<VisionLanguageConfig, FormatError> {
    let text = top.needed_object("text_config", "text_config.")?;
    let vision = top.needed_object("vision_config", "vision_config.")?;
    let decoder = llama::resolve_with_epsilon(
        &text,
        top.flag("tie_word_embeddings")?.unwrap_or(false),
        1e-5,
    )?;
    expect_type(&vision, "smolvlm_vision")?;
    let vision = vision::resolve(&vision, &VISION)?;
    let scale_factor = whole(top, "scale_factor", SCALE, 2)?;
    if !vision.side().is_multiple_of(scale_factor) {
        let found = scale_factor.to_string();
        return Err(top.refused_as("scale_factor", found, "a divisor of the patches along a side"));
    }
    let vocabulary = decoder.vocab_size;
    let own = |key: &str| {
        Ok::<_, FormatError>(text.token(key, vocabulary)?.or(top.token(key, vocabulary)?))
    };
    let ends = beside.ends(&[&text], "llama", vocabulary)?;
    let tile_tokens = tile_tokens(beside.tokenizer()?, &beside.folder.join(TOKENIZER_FILE))?;
    let split = with_processor_fields(beside.folder, |fields| split(&fields.0))?;
    let image = top.token("image_token_id", vocabulary)?;
    let image = image.ok_or_else(|| top.missing("image_token_id"))?;
    let pad = top.token("pad_token_id", vocabulary)?.or(own("pad_token_id")?);
    Ok(SmolVlmConfig {
        tokens: token_ids(image, own("bos_token_id")?, pad, ends),
        text: decoder,
        vision,
        scale_factor,
        split,
        tile_tokens,
    }
    .into())
}

/// The tokens that tell tiles apart.
fn tile_tokens(tokenizer: &HfTokenizer, tokenizer_file: &Path) -> Result<TileTokens, FormatError> {
    let known = |token: &str| tokenizer.token_id(token);
    let needed = |token: &'static str| {
        known(token)
            .ok_or_else(|| FormatError::NoTileToken { path: tokenizer_file.to_owned(), token })
    };
    let places = (1..=MOST_PLACES).map_while(|row| {
        let columns =
            (1..=MOST_PLACES).map_while(|column| known(&format!("<row_{row}_col_{column}>")));
        let columns: Vec<u32> = columns.collect();
        (!columns.is_empty()).then_some(columns)
    });
    let encoded = |text: &str| {
        tokenizer.encode(text, false).map_err(|error| FormatError::Malformed {
            what: "tokenizer",
            path: tokenizer_file.to_owned(),
            reason: error.to_string(),
        })
    };
    Ok(TileTokens {
        fence: needed(FENCE)?,
        whole: needed(WHOLE_IMAGE)?,
        places: places.collect(),
        line_break: encoded("\n")?,
        line_breaks: encoded("\n\n")?,
    })
}

/// How images are cut, by transformers' defaults where the file says nothing.
fn split(fields: &Fields<'_>) -> Result<SplitImage, FormatError> {
    let longest = |key: &str, default: u32| -> Result<u32, FormatError> {
        let Some(size) = fields.get(key) else { return Ok(default) };
        size.get("longest_edge")
            .and_then(side)
            .ok_or_else(|| fields.refused(key, "`longest_edge` from 1 to 4096"))
    };
    let tile = longest("max_image_size", 364)?;
    let longest_side = longest("size", 4 * 364)?;
    let splits = fields.flag("do_image_splitting")?.unwrap_or(true);
    Ok(SplitImage { tile, longest_side, splits })
}

/// `SmolVLMImageProcessor`.
fn read_image_processor(processor: &ProcessorFields<'_>) -> Result<ImageProcessor, FormatError> {
    let split = split(&processor.0)?;
    processor.0.refuse_false(&["do_resize", "do_convert_rgb"])?;
    let Levels { rescale, mean, std, .. } = processor.levels(([0.5; 3], [0.5; 3]))?;
    Ok(ImageProcessor {
        pad: None,
        resize: Some(Resize::Exact { width: split.tile, height: split.tile }),
        filter: processor.filter(Filter::Lanczos)?,
        crop: None,
        rescale,
        mean,
        std,
        tiles: Some(Arc::new(split) as Arc<dyn TileLayout>),
    })
}
