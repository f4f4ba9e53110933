//! The names under which releases of transformers, PEFT and LLaVA have stored the same tensors.
//!
//! Models ask for one canonical name, the one of the first `llava-hf` and `openai/clip` checkpoints;
//! keys of every other layout are translated when a file is opened.

/// The family of names a file's keys belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A LLaVA checkpoint or an adapter of one.
    Llava,
    /// A CLIP or SigLIP checkpoint; they have only ever had one layout.
    Contrastive,
}

/// Prefixes of LLaVA layouts and what stands for them in the canonical one; the first that matches
/// is taken, so a prefix stands before its own beginnings.
const LLAVA_PREFIXES: &[(&str, &str)] = &[
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

impl Layout {
    /// The canonical name of a stored key; a key of no known layout is its own.
    pub fn canonical(self, key: &str) -> String {
        if self == Self::Llava {
            for (prefix, canonical) in LLAVA_PREFIXES {
                if let Some(rest) = key.strip_prefix(prefix) {
                    return format!("{canonical}{rest}");
                }
            }
        }
        key.to_owned()
    }

    /// What wrote tensors under these names, as a person would say it.
    pub(super) fn release<'a>(mut keys: impl Iterator<Item = &'a str> + Clone) -> &'static str {
        let some = |prefix: &str| keys.clone().any(|key| key.starts_with(prefix));
        if some("model.mm_projector.") {
            "original LLaVA (model.layers.*, model.mm_projector.*)"
        } else if some("model.language_model.") {
            "transformers in memory (model.language_model.*)"
        } else if some("language_model.model.") {
            "as published (language_model.model.*)"
        } else if keys.any(|key| key.starts_with("text_model.")) {
            "as published (text_model.*, vision_model.*)"
        } else {
            "unknown"
        }
    }
}

/// Tensors that old releases stored although they are constants of the architecture.
pub(crate) fn is_constant(key: &str) -> bool {
    key.ends_with(".position_ids") || key.ends_with(".rotary_emb.inv_freq")
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
            assert_eq!(Layout::Llava.canonical(stored), canonical, "{stored}");
        }
    }

    #[test]
    fn canonical_names_are_fixed_points() {
        for (_, canonical) in LLAVA_PREFIXES {
            let name = format!("{canonical}weight");
            assert_eq!(Layout::Llava.canonical(&name), name);
        }
    }
}
