//! The protocol of a CHAIR report: what the report knows itself, and what lies beside the captions.

use std::path::Path;

use fisao_eval::chair::{ChairReport, MadeCaptions, Protocol};
use serde_json::Value;

use super::arguments::ChairArguments;

/// The protocol of captions that were made with these settings, where they are known.
pub(super) fn of(
    chair: &ChairReport,
    arguments: &ChairArguments,
    made_with: Option<&Value>,
) -> Protocol {
    let vocabulary = match &arguments.truth.vocabulary {
        Some(named) => file_name(named),
        None if arguments.world.is_some() => "world".to_owned(),
        None => "coco".to_owned(),
    };
    let protocol = Protocol { vocabulary: Some(vocabulary), ..Protocol::of(chair) };
    let Some(made_with) = made_with else { return protocol };
    let text = |key: &str| made_with.get(key).and_then(Value::as_str).map(str::to_owned);
    let whole = |key: &str| made_with.get(key).and_then(Value::as_u64);
    let dtype = match (text("dtype"), text("activation_dtype")) {
        (Some(weights), Some(activations)) => Some(format!("{weights}, activations {activations}")),
        (weights, _) => weights,
    };
    Protocol {
        prompt: text("prompt"),
        model: text("model"),
        model_digest: text("model_digest"),
        adapter: text("adapter"),
        adapter_sha256: text("adapter_sha256"),
        dtype,
        temperature: made_with.get("temperature").and_then(Value::as_f64),
        seed: whole("seed"),
        max_new_tokens: whole("max_new_tokens"),
        ..protocol
    }
}

/// Adds what the rows of captions say themselves.
pub(super) fn add_rows(protocol: &mut Protocol, made: &MadeCaptions, chair: &ChairReport) {
    if protocol.prompt.is_none() {
        protocol.prompt = made.prompt().map(str::to_owned);
    }
    // Rows of captions that were not judged are among them otherwise.
    if chair.captions_without_ground_truth == 0 {
        protocol.tokens = made.tokens();
        protocol.cut_off = made.cut_off();
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
