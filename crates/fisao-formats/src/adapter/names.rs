//! What releases of transformers call a linear layer of the model, as an adapter's keys and patterns do.

use crate::checkpoint::FamilyFormat;

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
    /// The layer's own weight, `[outputs, inputs]`, which PEFT saves with an update of the output matrix.
    Base,
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
    FamilyFormat::canonical_name(path)
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
    fn every_naming_maps_back_to_the_canonical_name() {
        let names = [
            "language_model.model.layers.0.self_attn.q_proj",
            "language_model.lm_head",
            "multi_modal_projector.linear_1",
            "multi_modal_projector.linear_2",
            "vision_tower.vision_model.encoder.layers.1.mlp.fc1",
        ];
        let pairs =
            names.iter().flat_map(|name| FamilyFormat::all_namings().map(move |n| (name, n)));
        for (name, naming) in pairs {
            assert_eq!(canonical_name(&naming.path(name)), *name, "{naming:?}");
        }
        let newest = FamilyFormat::all_namings().next().expect("a family");
        assert_eq!(newest.path(names[0]), "model.language_model.layers.0.self_attn.q_proj");
    }

    #[test]
    fn keys_of_old_and_new_peft_are_parsed() {
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
