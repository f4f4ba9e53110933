//! What releases of transformers call a map of the model, as an adapter's keys and patterns do.

use crate::weights::Layout;

/// What the canonical names of the language model's linear layers begin with.
const DECODER: &str = "language_model.";
/// What PEFT writes before the path that a linear layer has in the model.
const PEFT_PREFIX: &str = "base_model.model.";

/// Which matrix of a linear layer a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// `[rank, inputs]`.
    A,
    /// `[outputs, rank]`.
    B,
    /// The map's own weight, `[outputs, inputs]`, which PEFT saves with an update of the output matrix.
    Base,
}

/// The paths of one generation of code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Naming {
    decoder: &'static str,
    head: &'static str,
    projector: [&'static str; 2],
    tower: &'static str,
}

/// Newest first; the first one is written.
pub(super) const NAMINGS: [Naming; 5] = [
    // transformers 5 leaves out `vision_model` inside vision-language models.
    Naming {
        decoder: "model.language_model.",
        head: "lm_head",
        projector: ["model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"],
        tower: "model.vision_tower.",
    },
    // Since transformers 4.52.
    Naming {
        decoder: "model.language_model.",
        head: "lm_head",
        projector: ["model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"],
        tower: "model.vision_tower.vision_model.",
    },
    // Before; these are the canonical names.
    Naming {
        decoder: "language_model.model.",
        head: "language_model.lm_head",
        projector: ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"],
        tower: "vision_tower.vision_model.",
    },
    // The original LLaVA repository, and adapters of its language model alone.
    Naming {
        decoder: "model.",
        head: "lm_head",
        projector: ["model.mm_projector.0", "model.mm_projector.2"],
        tower: "model.vision_tower.vision_tower.vision_model.",
    },
    // Adapters of the language model alone without its output matrix (transformers' `LlamaModel`).
    Naming {
        decoder: "",
        head: "lm_head",
        projector: ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"],
        tower: "vision_tower.vision_model.",
    },
];

impl Naming {
    /// Whether the model that was trained may have been the language model alone: the original LLaVA repository, too, puts
    /// adapters on its language model before there is a vision tower.
    pub(super) fn is_of_decoder_alone(&self) -> bool {
        matches!(self.decoder, "model." | "")
    }

    /// Whether its paths are those of the decoder's inner model, which patterns for a whole model do not know.
    pub(super) fn is_of_inner_model(&self) -> bool {
        self.decoder.is_empty()
    }

    /// The path of a linear layer, given its canonical name.
    pub(super) fn path(&self, canonical: &str) -> String {
        match canonical {
            "language_model.lm_head" => return self.head.to_owned(),
            "multi_modal_projector.linear_1" => return self.projector[0].to_owned(),
            "multi_modal_projector.linear_2" => return self.projector[1].to_owned(),
            _ => {}
        }
        let prefixes =
            [("language_model.model.", self.decoder), ("vision_tower.vision_model.", self.tower)];
        for (prefix, named) in prefixes {
            if let Some(rest) = canonical.strip_prefix(prefix) {
                return format!("{named}{rest}");
            }
        }
        canonical.to_owned()
    }
}

/// Splits a key into the linear layer's path and the matrix it is for; `None` for any other tensor.
pub(super) fn parse_key(key: &str) -> Option<(&str, Side)> {
    let path = key.strip_prefix(PEFT_PREFIX).unwrap_or(key);
    // Saved through torch rather than by PEFT, keys keep the adapter's own name.
    let endings = [
        (".lora_A.weight", Side::A),
        (".lora_B.weight", Side::B),
        (".base_layer.weight", Side::Base),
        (".lora_A.default.weight", Side::A),
        (".lora_B.default.weight", Side::B),
    ];
    endings.into_iter().find_map(|(ending, side)| Some((path.strip_suffix(ending)?, side)))
}

/// The key of a linear layer's matrix, given the linear layer's path.
pub(super) fn key(path: &str, side: Side) -> String {
    let matrix = match side {
        Side::A => "lora_A",
        Side::B => "lora_B",
        Side::Base => "base_layer",
    };
    format!("{PEFT_PREFIX}{path}.{matrix}.weight")
}

/// The keys of a linear layer's A and B.
pub(super) fn keys(path: &str) -> [String; 2] {
    [key(path, Side::A), key(path, Side::B)]
}

/// The canonical name of the linear layer at a path.
pub(super) fn canonical_name(path: &str) -> String {
    if path.starts_with("layers.") {
        return format!("{DECODER}model.{path}");
    }
    // Layouts are told apart by whole components of a tensor's name.
    let name = Layout::Llava.canonical(&format!("{path}."));
    name.strip_suffix('.').unwrap_or(&name).to_owned()
}

/// Whether a canonical name is of the language model.
pub(super) fn is_decoder(canonical: &str) -> bool {
    canonical.starts_with(DECODER)
}

/// Whether a canonical name is of the vision tower.
pub(super) fn is_vision(canonical: &str) -> bool {
    canonical.starts_with("vision_tower.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_naming_leads_back_to_the_canonical_name() {
        let names = [
            "language_model.model.layers.0.self_attn.q_proj",
            "language_model.lm_head",
            "multi_modal_projector.linear_1",
            "multi_modal_projector.linear_2",
            "vision_tower.vision_model.encoder.layers.1.mlp.fc1",
        ];
        for (name, naming) in names.iter().flat_map(|name| NAMINGS.iter().map(move |n| (name, n))) {
            assert_eq!(canonical_name(&naming.path(name)), *name, "{naming:?}");
        }
        assert_eq!(NAMINGS[0].path(names[0]), "model.language_model.layers.0.self_attn.q_proj");
    }

    #[test]
    fn keys_of_old_and_new_peft_are_taken_apart() {
        let path = "model.language_model.layers.0.self_attn.q_proj";
        for key in [
            "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
        ] {
            assert_eq!(parse_key(key), Some((path, Side::A)), "{key}");
        }
        assert_eq!(parse_key(&key(path, Side::B)), Some((path, Side::B)));
        for other in ["lora_embedding_A", "lora_magnitude_vector", "q_proj.lora_B.bias"] {
            assert_eq!(parse_key(&format!("base_model.model.{other}")), None);
        }
    }
}
