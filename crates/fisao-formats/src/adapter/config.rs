//! PEFT's `adapter_config.json`.

use std::path::Path;

use fisao_models::lora::LoraConfig;
use serde_json::{Map, Value, json};

use crate::FormatError;
use crate::fields::{Fields, Real, Whole, shortened, shown};

/// What the file is called in messages.
pub(super) const CONFIG: &str = "adapter configuration (adapter_config.json)";

/// Ranks that an update may have.
pub(super) const RANK: Whole =
    Whole { least: 1, most: 1 << 16, said: "a whole number from 1 to 65536" };
/// Numerators of its scale. PEFT takes any number.
pub(super) const ALPHA: Real =
    Real { least: -1e6, most: 1e6, said: "a number from -1000000 to 1000000" };

/// The fields that matter, with PEFT's defaults.
pub(super) struct RawAdapter {
    pub(super) r: usize,
    pub(super) lora_alpha: f64,
    pub(super) use_rslora: bool,
    pub(super) target_modules: Option<Several<String>>,
    pub(super) exclude_modules: Option<Several<String>>,
    pub(super) layers_to_transform: Option<Several<usize>>,
    pub(super) layers_pattern: Option<Several<String>>,
    pub(super) rank_pattern: Option<Map<String, Value>>,
    pub(super) alpha_pattern: Option<Map<String, Value>>,
}

/// What PEFT takes alone or in a list.
pub(super) enum Several<T> {
    One(T),
    Many(Vec<T>),
}

/// Fields of which only absence or emptiness is plain LoRA.
const UNSUPPORTED: [&str; 14] = [
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "megatron_config",
];

/// Initialisations that leave the model's own weights alone; the others (`PiSSA`, `OLoRA`, `LoftQ`, …)
/// change them, and the file holds only half of what was trained.
const HARMLESS_INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Reads the fields that matter, and refuses what would make the adapter compute something other than
/// plain LoRA. `fan_in_fan_out` has no meaning on linear layers, where PEFT ignores it too.
pub(super) fn parse(document: &Value, path: &Path) -> Result<RawAdapter, FormatError> {
    refuse_unsupported(document, path)?;
    let fields = Fields::of_file(CONFIG, path, document)?;
    Ok(RawAdapter {
        r: fields.whole("r", RANK)?.ok_or_else(|| fields.missing("r"))?,
        lora_alpha: fields
            .real("lora_alpha", ALPHA)?
            .ok_or_else(|| fields.missing("lora_alpha"))?,
        use_rslora: fields.flag("use_rslora")?.unwrap_or(false),
        target_modules: names(&fields, "target_modules")?,
        exclude_modules: names(&fields, "exclude_modules")?,
        layers_to_transform: several(&fields, "layers_to_transform", LAYERS, |value| {
            usize::try_from(value.as_u64()?).ok()
        })?,
        layers_pattern: names(&fields, "layers_pattern")?,
        rank_pattern: object(&fields, "rank_pattern")?,
        alpha_pattern: object(&fields, "alpha_pattern")?,
    })
}

const NAMES: &str = "a text or a list of texts";
const LAYERS: &str = "the number of a layer or a list of them";

fn names(fields: &Fields<'_>, key: &str) -> Result<Option<Several<String>>, FormatError> {
    several(fields, key, NAMES, |value| value.as_str().map(str::to_owned))
}

fn several<T>(
    fields: &Fields<'_>,
    key: &str,
    supported: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<Several<T>>, FormatError> {
    let Some(value) = fields.get(key) else { return Ok(None) };
    let found = match value {
        Value::Array(values) => values.iter().map(read).collect::<Option<_>>().map(Several::Many),
        value => read(value).map(Several::One),
    };
    found.map(Some).ok_or_else(|| fields.refused(key, supported))
}

fn object(fields: &Fields<'_>, key: &str) -> Result<Option<Map<String, Value>>, FormatError> {
    let Some(value) = fields.get(key) else { return Ok(None) };
    value.as_object().cloned().map(Some).ok_or_else(|| fields.refused(key, "an object"))
}

fn refuse_unsupported(document: &Value, path: &Path) -> Result<(), FormatError> {
    let text = |field: &str| document.get(field).and_then(Value::as_str);
    if let Some(kind) = text("peft_type").filter(|kind| *kind != "LORA") {
        return Err(unsupported(path, "peft_type", kind, "LORA"));
    }
    if let Some(bias) = text("bias").filter(|bias| *bias != "none") {
        return Err(unsupported(path, "bias", bias, "none"));
    }
    if let Some(init) = text("init_lora_weights")
        && !HARMLESS_INITIALISATIONS.contains(&init)
    {
        let supported = "an initialisation that leaves the model's weights as they are";
        return Err(unsupported(path, "init_lora_weights", init, supported));
    }
    for field in UNSUPPORTED {
        if let Some(value) = document.get(field).filter(|value| !is_empty(value)) {
            let supported = if value.is_boolean() { "false" } else { "an empty value" };
            return Err(unsupported(path, field, &shown(value), supported));
        }
    }
    Ok(())
}

fn unsupported(path: &Path, field: &str, found: &str, supported: &'static str) -> FormatError {
    let (path, field, found) = (path.to_owned(), field.to_owned(), shortened(found));
    FormatError::UnsupportedField { path, field, found, supported: supported.into() }
}

/// The configuration as PEFT 0.21 writes it, with everything that PEFT leaves to defaults. Targets are
/// a regular expression that only the decoder's layers match: bare names such as `q_proj` would also
/// match the vision tower's.
pub(super) fn to_json(
    config: &LoraConfig,
    decoder_module: &str,
    base_model: Option<&str>,
) -> Value {
    let modules = config.target_modules.join("|");
    json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": {},
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": whole(config.alpha),
        "lora_bias": false,
        "lora_dropout": 0.0,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "monteclora_config": null,
        "peft_type": "LORA",
        // The release whose fields these are.
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": config.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": format!(r".*{decoder_module}.*\.({modules})"),
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": config.use_rslora,
        "velora_config": null,
    })
}

/// PEFT's alpha is an integer wherever it is a whole number; vLLM takes nothing else.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it is a whole number of a setting with bounds"
)]
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 { Value::from(value as i64) } else { Value::from(value) }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
