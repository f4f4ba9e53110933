//! A model's folder.

use std::fmt::Display;

use fisao_formats::FormatError;
use fisao_formats::checkpoint::{Checkpoint, ModelConfig};
use fisao_formats::weights::{LoadDtype, SafetensorsSource};
use fisao_models::llama::{DecoderFamily, LlamaConfig};
use fisao_models::vision::{VisionConfig, VisionFamily};
use fisao_runs::Reporter;
use fisao_runs::bundle::{check_processor, check_size};
use fisao_runs::device::cpu;
use fisao_runs::prompt::PromptFormat;
use fisao_runs::verifier_choice::{VerifierChoice, matching_verifier};

use super::{Inspection, Part, Use, Weighed, weigh};

/// Reads all but the values of the weights, and those too with `check`.
pub(super) fn inspect(
    checkpoint: &Checkpoint,
    check: bool,
    reporter: &Reporter,
) -> anyhow::Result<Inspection> {
    let weights = checkpoint.weights(LoadDtype::AsStored)?;
    let parts = parts(checkpoint.config(), &weights);
    let Weighed { dtypes, files, bytes } = weigh(&weights, check, reporter)?;
    let naming = weights.naming().to_owned();
    drop(weights);
    let (unused, loads) = match unused_tensors(checkpoint) {
        Ok(unused) => (unused, Ok(())),
        Err(error) => (Vec::new(), Err(error.to_string())),
    };
    Ok(Inspection {
        path: checkpoint.folder().display().to_string(),
        kind: checkpoint.config().model_type().to_owned(),
        architecture: architecture(checkpoint.config()),
        parameters: parts.iter().map(|part| part.parameters).sum(),
        parts,
        dtypes,
        files,
        bytes,
        naming,
        unused,
        uses: uses(checkpoint, &loads),
    })
}

/// Parameters by part.
fn parts(config: &ModelConfig, weights: &SafetensorsSource) -> Vec<Part> {
    let known = config.parts();
    let begins = |name: &str, prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
    let part = |(_, name): &(_, &str)| Part { name: (*name).to_owned(), parameters: 0 };
    let mut parts: Vec<Part> = known.iter().map(part).collect();
    for (name, _, _, shape) in weights.sizes() {
        let part = known.iter().position(|(prefixes, _)| begins(name, prefixes));
        parts[part.unwrap_or(known.len() - 1)].parameters += shape.iter().product::<usize>() as u64;
    }
    parts.into_iter().filter(|part| part.parameters > 0).collect()
}

/// Builds the model on the memory map, where nothing is read, and returns what it had no use for.
fn unused_tensors(checkpoint: &Checkpoint) -> Result<Vec<String>, FormatError> {
    Ok(match checkpoint.config() {
        ModelConfig::VisionLanguage(_) => {
            checkpoint.load_vision_language(LoadDtype::AsStored, &cpu())?.unused
        }
        _ => checkpoint.load_contrastive(LoadDtype::AsStored, &cpu())?.unused,
    })
}

fn architecture(config: &ModelConfig) -> String {
    match config {
        ModelConfig::VisionLanguage(config) => {
            let family = config.family();
            let tower = family.vision().map(|config| vision(config) + "; ").unwrap_or_default();
            format!("{tower}{}; {}", family.image_description(), decoder(family.decoder()))
        }
        ModelConfig::Blip2(config) => format!(
            "{}; Q-Former of {} layers, {} wide, {} queries; shared space of {}",
            vision(&config.vision),
            config.qformer.num_hidden_layers,
            config.qformer.hidden_size,
            config.query_tokens,
            config.projection_dim
        ),
        ModelConfig::Clip(config) => format!(
            "{}; text tower of {} layers, {} wide; shared space of {}",
            vision(&config.vision),
            config.text.num_hidden_layers,
            config.text.hidden_size,
            config.projection_dim
        ),
        ModelConfig::Siglip(config) => format!(
            "{}; text tower of {} layers, {} wide; shared space of {}",
            vision(&config.vision),
            config.text.num_hidden_layers,
            config.text.hidden_size,
            config.text.projection_size
        ),
    }
}

fn vision(config: &VisionConfig) -> String {
    let family = match config.family {
        VisionFamily::Clip => "CLIP",
        VisionFamily::Siglip => "SigLIP",
        VisionFamily::Eva => "EVA",
    };
    let VisionConfig { num_hidden_layers, hidden_size, image_size, patch_size, .. } = config;
    format!(
        "{family} tower of {num_hidden_layers} layers, {hidden_size} wide, {image_size} px in patches of \
         {patch_size}"
    )
}

fn decoder(config: &LlamaConfig) -> String {
    let family = match config.family {
        DecoderFamily::Llama => "Llama",
        DecoderFamily::Qwen2 => "Qwen2",
        DecoderFamily::Mistral => "Mistral",
        DecoderFamily::Qwen3 => "Qwen3",
    };
    format!(
        "{family} decoder of {} layers, {} wide, {} heads and {} key heads, vocabulary of {}, context \
         of {}",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
        config.max_position_embeddings
    )
}

/// What can be done with it. `loads` says what is wrong with its weights.
fn uses(checkpoint: &Checkpoint, loads: &Result<(), String>) -> Vec<Use> {
    let loads = loads.as_ref().err().cloned();
    let wrong = loads.clone().or_else(|| preparation(checkpoint).err());
    let usable = |command, note: &str| match &wrong {
        Some(wrong) => Use::not(command, wrong),
        None if note.is_empty() => Use::ready(command),
        None => Use::with(command, note),
    };
    if let ModelConfig::VisionLanguage(config) = checkpoint.config() {
        let family = config.family().vision().map(|vision| match vision.family {
            VisionFamily::Clip => "CLIP",
            VisionFamily::Siglip => "SigLIP",
            VisionFamily::Eva => "BLIP-2 (Salesforce/blip2-itm-vit-g)",
        });
        let other = match (matching_verifier(config), family) {
            (VerifierChoice::Checkpoint { id, .. }, _) => format!("verified by {id} by default"),
            (VerifierChoice::Decoder, Some(family)) => format!(
                "needs the {family} checkpoint that its tower is from as --verifier; else its own decoder verifies"
            ),
            (VerifierChoice::Decoder, None) => {
                "verified by its own decoder (--verifier decoder): no contrastive model has its tower".to_owned()
            }
        };
        vec![
            usable("caption", ""),
            usable("calibrate", &other),
            usable("align", &other),
            match &loads {
                Some(wrong) => Use::not("merge", wrong),
                None => Use::with("merge", "needs an adapter"),
            },
            usable("score", "with --model and --verifier decoder: it has no text tower"),
        ]
    } else {
        let other = "as the --verifier of a model with this tower";
        vec![
            usable("score", ""),
            usable("calibrate", other),
            usable("align", other),
            Use::not("caption", "it writes no text"),
        ]
    }
}

/// Tokenizer, image processing and prompts; the error says what is missing.
fn preparation(checkpoint: &Checkpoint) -> Result<(), String> {
    fn told(error: impl Display) -> String {
        error.to_string()
    }
    let folder = checkpoint.folder();
    let tokenizer = checkpoint.tokenizer().map_err(told)?;
    checkpoint.instruction_tokenizer().map_err(told)?;
    let processor = checkpoint.image_processor().map_err(told)?;
    if let ModelConfig::VisionLanguage(config) = checkpoint.config() {
        PromptFormat::read(folder, &tokenizer, config.family()).map_err(told)?;
        return check_processor(folder, &processor, config.family()).map_err(told);
    }
    let tower = checkpoint.contrastive_vision().map_err(told)?;
    check_size(folder, &processor, tower).map_err(told)
}
