//! InstructBLIP's configuration, and what it has in common with BLIP-2's.

use fisao_models::qformer::QFormerConfig;
use fisao_models::vision::VisionConfig;
use fisao_models::vision_language::VisionLanguageConfig;
use fisao_models::vision_language::instructblip::InstructBlipConfig;

use super::{
    EPSILON, LAYERS, TOKENS, WIDTH, activation, expect_type, llama, vision, whole, width_and_heads,
};
use crate::FormatError;
use crate::checkpoint::companion_files::{CompanionFiles, token_ids};
use crate::checkpoint::family_format::{FamilyFormat, Naming};
use crate::fields::{Fields, Whole};
use crate::weights::Layout;

/// InstructBLIP with a Vicuna decoder.
pub(super) const FORMAT: FamilyFormat = FamilyFormat {
    model_types: &[("instructblip", read)],
    layout: Layout {
        prefixes: &[
            ("vision_model.", "vision_tower.vision_model."),
            // In memory, and stored so where a whole `InstructBlipModel` was wrapped.
            ("model.vision_model.", "vision_tower.vision_model."),
            ("model.qformer.", "qformer."),
            ("model.query_tokens", "query_tokens"),
            ("model.language_projection.", "language_projection."),
            ("model.language_model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
        ],
        releases: &[("language_model.model.", "as published (language_model.model.*)")],
    },
    namings: &[Naming {
        decoder: "language_model.model.",
        head: "language_model.lm_head",
        others: &[("vision_tower.vision_model.", "vision_model.")],
    }],
    image_processors: &[],
    instruction_tokenizer: Some("qformer_tokenizer"),
    parts: &[
        (&["vision_tower."], "vision tower"),
        (&["query_tokens", "qformer.", "language_projection."], "Q-Former and projection"),
        (&["language_model."], "language model"),
    ],
};

/// Queries of a Q-Former.
const QUERIES: Whole = Whole { least: 1, most: 4096, said: "a whole number from 1 to 4096" };
/// Decoders that are read, for people.
const DECODERS: &str =
    "llama, the decoder of instructblip-vicuna-7b and -13b (those with T5 are not read)";

fn read(
    top: &Fields<'_>,
    beside: &CompanionFiles<'_>,
) -> Result<VisionLanguageConfig, FormatError> {
    let text = top.needed_object("text_config", "text_config.")?;
    if text.text("model_type")?.is_some_and(|kind| kind != "llama") {
        return Err(text.refused("model_type", DECODERS));
    }
    let decoder = llama::resolve(&text, top.flag("tie_word_embeddings")?.unwrap_or(false))?;
    let vision = top.needed_object("vision_config", "vision_config.")?;
    let vision = vision::resolve_eva(&vision, "instructblip_vision_model")?;
    let qformer = top.needed_object("qformer_config", "qformer_config.")?;
    expect_type(&qformer, "instructblip_qformer")?;
    let vocabulary = decoder.vocab_size;
    // Published configurations name 0 and 1, which end nothing.
    let ends = match beside.end_of_tokenizer("llama", vocabulary) {
        Ok(end) => vec![end],
        Err(unnamed) => {
            let named = beside.named_ends(&[&text, top], vocabulary)?;
            if named.is_empty() {
                return Err(unnamed);
            }
            named
        }
    };
    let own = |key: &str| text.token(key, vocabulary);
    // Since it is never embedded, an id of its own serves where none is named.
    let image = image_token(top)?.unwrap_or(u32::try_from(vocabulary).unwrap_or(u32::MAX));
    let bos = match beside.beginning_of_tokenizer(vocabulary)? {
        Some(id) => Some(id),
        None => own("bos_token_id")?,
    };
    Ok(InstructBlipConfig {
        query_tokens: queries(top)?,
        tokens: token_ids(image, bos, own("pad_token_id")?, ends),
        qformer: resolve_qformer(&qformer, &vision)?,
        text: decoder,
        vision,
    }
    .into())
}

/// The placeholder under either of its names. It may lie behind the vocabulary.
fn image_token(top: &Fields<'_>) -> Result<Option<u32>, FormatError> {
    for key in ["image_token_index", "image_token_id"] {
        if let Some(id) = top.whole(key, TOKENS)? {
            return Ok(u32::try_from(id).ok());
        }
    }
    Ok(None)
}

/// Number of queries.
pub(super) fn queries(top: &Fields<'_>) -> Result<usize, FormatError> {
    whole(top, "num_query_tokens", QUERIES, 32)
}

/// The Q-Former's configuration; defaults are those of transformers' `InstructBlipQFormerConfig`, which are `Blip2QFormerConfig`'s.
pub(super) fn resolve_qformer(
    part: &Fields<'_>,
    vision: &VisionConfig,
) -> Result<QFormerConfig, FormatError> {
    if part.text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return Err(part.refused("position_embedding_type", "\"absolute\""));
    }
    let (hidden_size, num_attention_heads) = width_and_heads(part, (768, 12))?;
    Ok(QFormerConfig {
        vocab_size: whole(part, "vocab_size", TOKENS, 30522)?,
        hidden_size,
        intermediate_size: whole(part, "intermediate_size", WIDTH, 3072)?,
        num_hidden_layers: whole(part, "num_hidden_layers", LAYERS, 12)?,
        num_attention_heads,
        cross_attention_frequency: whole(part, "cross_attention_frequency", LAYERS, 2)?,
        // transformers takes the tower's width whatever the file says.
        encoder_hidden_size: vision.hidden_size,
        max_position_embeddings: whole(part, "max_position_embeddings", TOKENS, 512)?,
        layer_norm_eps: part.real("layer_norm_eps", EPSILON)?.unwrap_or(1e-12),
        hidden_act: activation(part, "hidden_act", "gelu")?,
    })
}
