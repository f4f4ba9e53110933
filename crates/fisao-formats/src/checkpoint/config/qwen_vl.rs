//! Qwen2.5-VL's and Qwen3-VL's configuration: `config.json`, and what the image processor says of sizes.

use fisao_models::image::{Filter, ImageProcessor, PixelBudget, Resize};
use fisao_models::llama::{DecoderFamily, LlamaConfig};
use fisao_models::vision_language::VisionLanguageConfig;
use fisao_models::vision_language::qwen_vl::{QwenGeneration, QwenVisionConfig, QwenVlConfig};

use super::{HEADS, LAYERS, PIXELS, THETA, WIDTH, activation, llama, whole};
use crate::FormatError;
use crate::checkpoint::companion_files::{CompanionFiles, token_ids};
use crate::checkpoint::family_format::{FamilyFormat, Naming};
use crate::fields::{Fields, Whole};
use crate::processor::{CLIP_MEAN, CLIP_STD, Levels, ProcessorFields, with_processor_fields};
use crate::weights::Layout;

/// Qwen2.5-VL and Qwen3-VL.
pub(super) const FORMAT: FamilyFormat = FamilyFormat {
    model_types: &[("qwen2_5_vl", read_2_5), ("qwen3_vl", read_3)],
    layout: Layout {
        prefixes: &[
            // In memory since transformers 4.52; Qwen3-VL is published so.
            ("model.visual.merger.", "merger."),
            ("model.visual.deepstack_merger_list.", "deepstack_merger_list."),
            ("model.visual.", "vision_tower."),
            ("model.language_model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
            // As Qwen2.5-VL is published.
            ("visual.merger.", "merger."),
            ("visual.", "vision_tower."),
            ("model.layers.", "language_model.model.layers."),
            ("model.embed_tokens.", "language_model.model.embed_tokens."),
            ("model.norm.", "language_model.model.norm."),
        ],
        releases: &[
            ("visual.", "as published (visual.*, model.layers.*)"),
            ("model.visual.", "as published (model.visual.*, model.language_model.*)"),
        ],
    },
    namings: &[
        Naming { decoder: "model.language_model.", head: "lm_head", others: &IN_MODEL },
        // Before transformers 4.52.
        Naming { decoder: "model.", head: "lm_head", others: &OUTSIDE },
    ],
    image_processors: &[
        ("Qwen2VL", read_image_processor),
        // The first releases of Qwen2.5-VL.
        ("Qwen2_5_VL", read_image_processor),
    ],
    instruction_tokenizer: None,
    parts: &[
        (&["vision_tower."], "vision tower"),
        (&["merger.", "deepstack_merger_list."], "merger"),
        (&["language_model."], "language model"),
    ],
};

/// Modules besides the decoder within the inner model, and outside of it.
const IN_MODEL: [(&str, &str); 3] = [
    ("vision_tower.", "model.visual."),
    ("merger.", "model.visual.merger."),
    ("deepstack_merger_list.", "model.visual.deepstack_merger_list."),
];
const OUTSIDE: [(&str, &str); 2] = [("vision_tower.", "visual."), ("merger.", "visual.merger.")];

/// Patches along a side that become one token.
const MERGE: Whole = Whole { least: 1, most: 16, said: "a whole number from 1 to 16" };
/// Side of a patch, pixels. The least image is a square of a token's patches.
const PATCH: Whole = Whole { least: 1, most: 128, said: "a whole number from 1 to 128" };
/// Frames of a patch.
const FRAMES: Whole = Whole { least: 1, most: 16, said: "a whole number from 1 to 16" };
/// Entries of a table of positions.
const TABLE: Whole = Whole { least: 1, most: 1 << 20, said: "a whole number from 1 to 1048576" };
/// Pixels of an image.
const BUDGET: Whole = Whole { least: 1, most: 1 << 24, said: "a whole number from 1 to 16777216" };

/// transformers' `smart_resize` of `Qwen2VLImageProcessor`.
const LEAST_PIXELS: usize = 56 * 56;
const MOST_PIXELS: usize = 28 * 28 * 1280;

fn read_2_5(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
) -> Result<VisionLanguageConfig, FormatError> {
    let part = vision_part(top, ["qwen2_5_vl", "qwen2_5_vl_vision"])?;
    if part.text("hidden_act")?.is_some_and(|act| act != "silu") {
        return Err(part.refused("hidden_act", "\"silu\""));
    }
    let window_size = whole(&part, "window_size", PIXELS, 112)?;
    let generation = QwenGeneration::Qwen2_5 {
        window_size,
        full_layers: layers(&part, "fullatt_block_indexes", &[7, 15, 23, 31])?,
    };
    // As `Qwen2_5_VLVisionConfig` has it.
    let defaults = Defaults { width: 3584, inner: 3420, depth: 32, patch: 14 };
    let vision = resolve_vision(&part, generation, &defaults)?;
    if window_size < vision.patch_size * vision.merge_size {
        let found = window_size.to_string();
        return Err(part.refused_as(
            "window_size",
            found,
            "at least the side of a token's patches",
        ));
    }
    read(top, beside, (&part, vision), DecoderFamily::Qwen2)
}

fn read_3(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
) -> Result<VisionLanguageConfig, FormatError> {
    let part = vision_part(top, ["qwen3_vl", "qwen3_vl_vision"])?;
    // As `Qwen3VLVisionConfig` has it.
    let defaults = Defaults { width: 1152, inner: 4304, depth: 27, patch: 16 };
    let deep_layers = layers(&part, "deepstack_visual_indexes", &[8, 16, 24])?;
    let depth = whole(&part, "depth", LAYERS, defaults.depth)?;
    let rises = deep_layers.is_sorted_by(|a, b| a < b);
    if !rises || deep_layers.last().is_some_and(|&last| last >= depth) {
        let supported = "layers of the tower in their order, each once";
        return Err(part.refused("deepstack_visual_indexes", supported));
    }
    let generation = QwenGeneration::Qwen3 {
        position_side: whole(&part, "num_position_embeddings", TABLE, 2304)?.isqrt(),
        deep_layers,
        hidden_act: activation(&part, "hidden_act", "gelu_pytorch_tanh")?,
    };
    let vision = resolve_vision(&part, generation, &defaults)?;
    read(top, beside, (&part, vision), DecoderFamily::Qwen3)
}

/// The tower's part of the configuration, under a name of old or of today.
fn vision_part<'a>(top: &Fields<'a>, kinds: [&str; 2]) -> Result<Fields<'a>, FormatError> {
    let part = top.needed_object("vision_config", "vision_config.")?;
    match part.text("model_type")? {
        Some(kind) if !kinds.contains(&kind) => {
            Err(part.refused("model_type", "the vision tower of the model around it"))
        }
        _ => Ok(part),
    }
}

/// Layers that a list names.
fn layers(part: &Fields<'_>, key: &str, default: &[usize]) -> Result<Vec<usize>, FormatError> {
    let Some(value) = part.get(key) else { return Ok(default.to_vec()) };
    let layer = |value: &serde_json::Value| usize::try_from(value.as_u64()?).ok();
    let list = value.as_array().and_then(|list| list.iter().map(layer).collect::<Option<Vec<_>>>());
    list.filter(|list| list.iter().all(|&layer| layer < LAYERS.most))
        .ok_or_else(|| part.refused(key, "a list of layers of the tower"))
}

/// What transformers' configuration class has for sizes that are absent.
struct Defaults {
    width: usize,
    inner: usize,
    depth: usize,
    patch: usize,
}

fn resolve_vision(
    part: &Fields<'_>,
    generation: QwenGeneration,
    defaults: &Defaults,
) -> Result<QwenVisionConfig, FormatError> {
    for key in ["in_channels", "in_chans"] {
        if part.get(key).is_some_and(|channels| channels.as_u64() != Some(3)) {
            return Err(part.refused(key, "3"));
        }
    }
    let hidden_size = whole(part, "hidden_size", WIDTH, defaults.width)?;
    let heads = whole(part, "num_heads", HEADS, 16)?;
    // Half of a head turns with the row, half with the column, both in pairs.
    if !hidden_size.is_multiple_of(4 * heads) {
        let supported = "a multiple of 4 for each of num_heads";
        return Err(part.refused_as("hidden_size", hidden_size.to_string(), supported));
    }
    let rotary = part.object("rope_parameters", "vision_config.rope_parameters.")?;
    let base = rotary.map(|rotary| rotary.real("rope_theta", THETA)).transpose()?;
    Ok(QwenVisionConfig {
        generation,
        hidden_size,
        intermediate_size: whole(part, "intermediate_size", WIDTH, defaults.inner)?,
        num_hidden_layers: whole(part, "depth", LAYERS, defaults.depth)?,
        num_attention_heads: heads,
        patch_size: whole(part, "patch_size", PATCH, defaults.patch)?,
        frames: whole(part, "temporal_patch_size", FRAMES, 2)?,
        merge_size: whole(part, "spatial_merge_size", MERGE, 2)?,
        rope_theta: base.flatten().unwrap_or(10000.0),
    })
}

fn read(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
    (part, vision): (&Fields<'_>, QwenVisionConfig),
    family: DecoderFamily,
) -> Result<VisionLanguageConfig, FormatError> {
    // The first releases of Qwen2.5-VL have the decoder's settings beside the others.
    let text = top.object("text_config", "text_config.")?.unwrap_or(*top);
    let tied = top.flag("tie_word_embeddings")?.unwrap_or(false);
    let text_config: LlamaConfig = llama::resolve_multimodal(&text, tied, family)?;
    let out = whole(part, "out_hidden_size", WIDTH, text_config.hidden_size)?;
    if out != text_config.hidden_size {
        return Err(part.refused("out_hidden_size", "the decoder's hidden_size"));
    }
    let vocabulary = text_config.vocab_size;
    let ends = beside.ends(&[&text, top], family.name(), vocabulary)?;
    let own = |key: &str| {
        Ok::<_, FormatError>(text.token(key, vocabulary)?.or(top.token(key, vocabulary)?))
    };
    let budget = with_processor_fields(beside.folder, |fields| budget(&fields.0))?;
    let factor = u32::try_from(vision.patch_size * vision.merge_size).unwrap_or(u32::MAX);
    let image = top.token("image_token_id", vocabulary)?;
    let image = image.ok_or_else(|| top.missing("image_token_id"))?;
    Ok(QwenVlConfig {
        tokens: token_ids(image, own("bos_token_id")?, own("pad_token_id")?, ends),
        text: text_config,
        budget: PixelBudget { factor, ..budget },
        vision,
    }
    .into())
}

/// What images are brought to: bounds under their names of old, or as a size, of which the first count.
fn budget(fields: &Fields<'_>) -> Result<PixelBudget, FormatError> {
    let size = fields.object("size", "size.")?;
    let bound = |old: &str, new: &str, default: usize| -> Result<u64, FormatError> {
        let of_size = |key: &str| match &size {
            Some(size) => size.whole(key, BUDGET),
            None => Ok(None),
        };
        let found = match (fields.whole(old, BUDGET)?, of_size(new)?) {
            (Some(pixels), _) | (None, Some(pixels)) => pixels,
            (None, None) => of_size(old)?.unwrap_or(default),
        };
        Ok(found as u64)
    };
    let least = bound("min_pixels", "shortest_edge", LEAST_PIXELS)?;
    let most = bound("max_pixels", "longest_edge", MOST_PIXELS)?;
    if least > most {
        let supported = "a size whose least pixels are not more than its most";
        return Err(fields.refused_as("size", format!("{least} to {most} pixels"), supported));
    }
    let patch = whole(fields, "patch_size", PATCH, 14)?;
    let factor = patch * whole(fields, "merge_size", MERGE, 2)?;
    Ok(PixelBudget { factor: u32::try_from(factor).unwrap_or(u32::MAX), least, most })
}

/// `Qwen2VLImageProcessor`.
fn read_image_processor(processor: &ProcessorFields<'_>) -> Result<ImageProcessor, FormatError> {
    processor.0.refuse_false(&["do_resize", "do_convert_rgb"])?;
    let Levels { rescale, mean, std, .. } = processor.levels((CLIP_MEAN, CLIP_STD))?;
    Ok(ImageProcessor {
        pad: None,
        resize: Some(Resize::Budget(budget(&processor.0)?)),
        filter: processor.filter(Filter::Bicubic)?,
        crop: None,
        rescale,
        mean,
        std,
        tiles: None,
    })
}
