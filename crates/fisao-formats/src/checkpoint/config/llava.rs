//! LLaVA's, LLaVA-NeXT's and LLaVA-OneVision's configuration.

use fisao_models::image::Resolution;
use fisao_models::llama::{DecoderFamily, LlamaConfig};
use fisao_models::vision::VisionConfig;
use fisao_models::vision_language::VisionLanguageConfig;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig, TilingConfig};
use serde_json::Value;

use super::{activation, llama, vision};
use crate::FormatError;
use crate::checkpoint::companion_files::{CompanionFiles, token_ids};
use crate::checkpoint::family_format::{FamilyFormat, Naming};
use crate::fields::Fields;
use crate::processor::{GRID_PINPOINTS, Pinpoints, PinpointsError, read_pinpoints};
use crate::weights::Layout;

/// LLaVA, LLaVA-NeXT and LLaVA-OneVision.
pub(super) const FORMAT: FamilyFormat = FamilyFormat {
    model_types: &[("llava", read), ("llava_next", read_next), ("llava_onevision", read_onevision)],
    layout: LAYOUT,
    namings: &NAMINGS,
    image_processors: &[],
    instruction_tokenizer: None,
    parts: &[
        (&["vision_tower."], "vision tower"),
        (&["multi_modal_projector.", "image_newline"], "projector"),
        (&["language_model."], "language model"),
    ],
};

/// Names under which releases of transformers, PEFT and LLaVA have stored the same tensors. The canonical ones are those of the
/// first `llava-hf` checkpoints.
pub const LAYOUT: Layout = Layout {
    prefixes: PREFIXES,
    releases: &[
        ("model.mm_projector.", "original LLaVA (model.layers.*, model.mm_projector.*)"),
        ("model.language_model.", "transformers in memory (model.language_model.*)"),
        ("language_model.model.", "as published (language_model.model.*)"),
    ],
};

/// Prefixes of all layouts and what stands for them in the canonical one.
const PREFIXES: &[(&str, &str)] = &[
    // In memory since transformers 4.52, and stored so by some releases since.
    ("model.language_model.", "language_model.model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
    // The original LLaVA repository; its tower is wrapped twice.
    ("model.vision_tower.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.layers.", "language_model.model.layers."),
    ("model.embed_tokens.", "language_model.model.embed_tokens."),
    ("model.norm.", "language_model.model.norm."),
    // transformers 5 leaves out `vision_model` inside vision-language models.
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("vision_tower.vision_model.", "vision_tower.vision_model."),
    ("vision_tower.", "vision_tower.vision_model."),
];

/// Canonical names of the other modules.
const PROJECTOR: [&str; 2] = ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"];
const TOWER: &str = "vision_tower.vision_model.";

/// What releases call the modules, newest first.
const NAMINGS: [Naming; 5] = [
    // transformers 5 leaves out `vision_model` inside vision-language models.
    Naming {
        decoder: "model.language_model.",
        head: "lm_head",
        others: &[
            (PROJECTOR[0], "model.multi_modal_projector.linear_1"),
            (PROJECTOR[1], "model.multi_modal_projector.linear_2"),
            (TOWER, "model.vision_tower."),
        ],
    },
    // Since transformers 4.52.
    Naming {
        decoder: "model.language_model.",
        head: "lm_head",
        others: &[
            (PROJECTOR[0], "model.multi_modal_projector.linear_1"),
            (PROJECTOR[1], "model.multi_modal_projector.linear_2"),
            (TOWER, "model.vision_tower.vision_model."),
        ],
    },
    // Before; these are the canonical names.
    Naming { decoder: "language_model.model.", head: "language_model.lm_head", others: &[] },
    // The original LLaVA repository, and adapters of its language model alone.
    Naming {
        decoder: "model.",
        head: "lm_head",
        others: &[
            (PROJECTOR[0], "model.mm_projector.0"),
            (PROJECTOR[1], "model.mm_projector.2"),
            (TOWER, "model.vision_tower.vision_tower.vision_model."),
        ],
    },
    // Adapters of the language model alone without its output matrix (transformers' `LlamaModel`).
    Naming { decoder: "", head: "lm_head", others: &[] },
];

/// The names of the image placeholder, old and new.
const IMAGE_TOKEN: [&str; 2] = ["image_token_index", "image_token_id"];
/// More tiles' worth of tokens no image takes.
const MOST_TILES: usize = 1024;

/// `eos_token_id` of `LlamaConfig` and `MistralConfig`.
const LLAMA_END: u32 = 2;

/// What transformers' configuration class has for fields that are absent.
struct Defaults {
    vision_feature_layer: i64,
    vision_feature_select_strategy: &'static str,
    image_token_id: Option<u32>,
}

/// `LlavaConfig`.
const LLAVA: Defaults = Defaults {
    vision_feature_layer: -2,
    vision_feature_select_strategy: "default",
    image_token_id: None,
};

/// `LlavaNextConfig`.
const NEXT: Defaults = Defaults { image_token_id: Some(32000), ..LLAVA };

/// `LlavaOnevisionConfig`.
const ONEVISION: Defaults = Defaults {
    vision_feature_layer: -1,
    vision_feature_select_strategy: "full",
    image_token_id: Some(151_646),
};

fn read(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
) -> Result<VisionLanguageConfig, FormatError> {
    Ok(resolve(top, beside, &LLAVA)?.into())
}

fn read_next(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
) -> Result<VisionLanguageConfig, FormatError> {
    let mut config = resolve(top, beside, &NEXT)?;
    one_token_for_each_patch(top, &config)?;
    let resolutions = resolutions(top, &config.vision, Pinpoints::Next)?;
    config.tiling = Some(TilingConfig { resolutions, max_tiles: None });
    Ok(config.into())
}

fn read_onevision(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
) -> Result<VisionLanguageConfig, FormatError> {
    let mut config = resolve(top, beside, &ONEVISION)?;
    one_token_for_each_patch(top, &config)?;
    let resolutions = resolutions(top, &config.vision, Pinpoints::Onevision)?;
    config.tiling = Some(TilingConfig { resolutions, max_tiles: Some(max_tiles(top)?) });
    Ok(config.into())
}

/// Refuses a class token among those that are laid out over an image.
fn one_token_for_each_patch(top: &Fields<'_>, config: &LlavaConfig) -> Result<(), FormatError> {
    if config.tile_tokens() != config.vision.patches() {
        let key = "vision_feature_select_strategy";
        let found = match config.vision_feature_select_strategy {
            FeatureSelect::Default => "\"default\"",
            FeatureSelect::Full => "\"full\"",
        };
        let supported = "what leaves one token for each patch";
        return Err(top.refused_as(key, found.to_owned(), supported));
    }
    Ok(())
}

fn resolve(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
    defaults: &Defaults,
) -> Result<LlavaConfig, FormatError> {
    let text = top.needed_object("text_config", "text_config.")?;
    let vision = top.needed_object("vision_config", "vision_config.")?;
    if top.flag("multimodal_projector_bias")? == Some(false) {
        return Err(top.refused("multimodal_projector_bias", "true"));
    }
    let decoder = llama::resolve(&text, top.flag("tie_word_embeddings")?.unwrap_or(false))?;
    let vision = vision::resolve_either(&vision)?;
    let vocabulary = decoder.vocab_size;
    let token = |key: &str| top.token(key, vocabulary);
    let own = |key: &str| text.token(key, vocabulary);
    let ends = end_tokens([&text, top], beside, &decoder)?;
    let bos = own("bos_token_id")?.or(token("bos_token_id")?).unwrap_or(1);
    let pad = token("pad_token_id")?.or(own("pad_token_id")?);
    let image = image_token(top, defaults.image_token_id, vocabulary)?;
    Ok(LlavaConfig {
        tokens: token_ids(image, Some(bos), pad, ends),
        vision_feature_layer: feature_layer(top, defaults, vision.num_hidden_layers)?,
        vision_feature_select_strategy: feature_select(top, defaults)?,
        projector_hidden_act: activation(top, "projector_hidden_act", "gelu")?,
        text: decoder,
        vision,
        tiling: None,
    })
}

/// The tokens that end a response, at least one: those of `generation_config.json`, else of the decoder's part of the
/// configuration, else of its top. Where none is named, Llama and Mistral have transformers' default, and Qwen2, which has no
/// default, the end that its tokenizer names.
fn end_tokens(
    config: [&Fields<'_>; 2],
    beside: &CompanionFiles<'_>,
    decoder: &LlamaConfig,
) -> Result<Vec<u32>, FormatError> {
    let vocabulary = decoder.vocab_size;
    let ends = beside.named_ends(&config, vocabulary)?;
    if !ends.is_empty() {
        return Ok(ends);
    }
    match decoder.family {
        DecoderFamily::Llama | DecoderFamily::Mistral if vocabulary > LLAMA_END as usize => {
            Ok(vec![LLAMA_END])
        }
        DecoderFamily::Llama | DecoderFamily::Mistral => Err(config[0].missing("eos_token_id")),
        family => Ok(vec![beside.end_of_tokenizer(family.name(), vocabulary)?]),
    }
}

/// The placeholder under its old name, its new one, or both if they agree.
fn image_token(
    top: &Fields<'_>,
    default: Option<u32>,
    vocabulary: usize,
) -> Result<u32, FormatError> {
    let [old, new] = IMAGE_TOKEN;
    match (top.token(old, vocabulary)?, top.token(new, vocabulary)?) {
        (Some(first), Some(second)) if first != second => {
            let found = format!("{second}, while `{old}` is {first}");
            Err(top.refused_as(new, found, "the same id under both names"))
        }
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => match default {
            Some(id) if (id as usize) < vocabulary => Ok(id),
            _ => Err(top.missing(old)),
        },
    }
}

/// One layer, alone or in a list of one.
fn feature_layer(top: &Fields<'_>, defaults: &Defaults, layers: usize) -> Result<i64, FormatError> {
    let key = "vision_feature_layer";
    let layer = match top.get(key) {
        None => Some(defaults.vision_feature_layer),
        Some(Value::Array(list)) if list.len() == 1 => list[0].as_i64(),
        Some(value) => value.as_i64(),
    };
    let layer = layer.ok_or_else(|| top.refused(key, "the index of one layer"))?;
    let layers = i64::try_from(layers).unwrap_or(i64::MAX);
    if (-layers - 1..=layers).contains(&layer) {
        Ok(layer)
    } else {
        let supported = "a layer that the vision tower has";
        Err(top.refused_as(key, layer.to_string(), supported))
    }
}

fn feature_select(top: &Fields<'_>, defaults: &Defaults) -> Result<FeatureSelect, FormatError> {
    let key = "vision_feature_select_strategy";
    match top.text(key)?.unwrap_or(defaults.vision_feature_select_strategy) {
        "default" => Ok(FeatureSelect::Default),
        "full" => Ok(FeatureSelect::Full),
        _ => Err(top.refused(key, "\"default\" or \"full\"")),
    }
}

/// The sizes that images may be brought to, all of them whole tiles.
fn resolutions(
    top: &Fields<'_>,
    vision: &VisionConfig,
    default: Pinpoints,
) -> Result<Vec<Resolution>, FormatError> {
    let side = u32::try_from(vision.image_size).expect("sides have a bound");
    let pinpoints = top.get(GRID_PINPOINTS);
    read_pinpoints(pinpoints, default, (side, side)).map_err(
        |PinpointsError { found, supported }| top.refused_as(GRID_PINPOINTS, found, supported),
    )
}

/// The number at the end of `anyres_max_9`.
fn max_tiles(top: &Fields<'_>) -> Result<usize, FormatError> {
    let key = "vision_aspect_ratio";
    let ratio = top.text(key)?.unwrap_or("anyres_max_9");
    let number = ratio.strip_prefix("anyres_max_").and_then(|number| number.parse().ok());
    number
        .filter(|tiles| (1..=MOST_TILES).contains(tiles))
        .ok_or_else(|| top.refused(key, "anyres_max_N, N from 1 to 1024,"))
}

/// Refuses the flat configuration of the original LLaVA repository, whose weights lack the image tower.
pub(super) fn refuse_original(top: &Fields<'_>, kind: Option<&str>) -> Result<(), FormatError> {
    if top.get("text_config").is_some() {
        return Ok(());
    }
    let class = top.get("architectures").and_then(|classes| classes.get(0)?.as_str());
    let class = class.filter(|class| class.starts_with("Llava") && class.ends_with("ForCausalLM"));
    let own_type =
        kind.is_some_and(|kind| kind.starts_with("llava_") && FORMAT.reader(kind).is_none());
    if class.is_none() && !own_type && top.get("mm_vision_tower").is_none() {
        return Ok(());
    }
    let described = class.or(kind).unwrap_or("llava").to_owned();
    Err(FormatError::OriginalLlava {
        path: top.path().to_owned(),
        class: crate::fields::shortened(&described),
        conversion: conversion(top, &described),
    })
}

/// The conversion of an original checkpoint, by what tells kinds and sizes apart.
fn conversion(top: &Fields<'_>, class: &str) -> &'static str {
    let width = top.get("hidden_size").and_then(Value::as_u64);
    let next = top.get("image_aspect_ratio").and_then(Value::as_str) == Some("anyres");
    match width {
        _ if class.to_lowercase().contains("mistral") => "llava-hf/llava-v1.6-mistral-7b-hf",
        Some(896) => "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        Some(3584) => "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        Some(7168) => "llava-hf/llava-v1.6-34b-hf",
        Some(5120) if next => "llava-hf/llava-v1.6-vicuna-13b-hf",
        Some(5120) => "llava-hf/llava-1.5-13b-hf",
        _ if next => "llava-hf/llava-v1.6-vicuna-7b-hf",
        _ => "llava-hf/llava-1.5-7b-hf",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_llava_layout_has_the_same_canonical_names() {
        let q = "language_model.model.layers.3.self_attn.q_proj.weight";
        let fc = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias";
        let cases = [
            (q, q),
            ("model.language_model.layers.3.self_attn.q_proj.weight", q),
            ("model.layers.3.self_attn.q_proj.weight", q),
            ("model.language_model.norm.weight", "language_model.model.norm.weight"),
            ("model.norm.weight", "language_model.model.norm.weight"),
            ("model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
            ("lm_head.weight", "language_model.lm_head.weight"),
            ("language_model.lm_head.weight", "language_model.lm_head.weight"),
            (fc, fc),
            ("vision_tower.encoder.layers.0.mlp.fc1.bias", fc),
            ("model.vision_tower.encoder.layers.0.mlp.fc1.bias", fc),
            ("model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias", fc),
            ("model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias", fc),
            ("model.multi_modal_projector.linear_2.bias", "multi_modal_projector.linear_2.bias"),
            ("model.image_newline", "image_newline"),
            ("image_newline", "image_newline"),
            ("model.mm_projector.0.weight", "multi_modal_projector.linear_1.weight"),
            ("model.mm_projector.2.weight", "multi_modal_projector.linear_2.weight"),
        ];
        for (stored, canonical) in cases {
            assert_eq!(LAYOUT.canonical(stored), canonical, "{stored}");
        }
    }

    #[test]
    fn canonical_names_are_fixed_points() {
        for (_, canonical) in PREFIXES {
            let name = format!("{canonical}weight");
            assert_eq!(LAYOUT.canonical(&name), name);
        }
    }
}
