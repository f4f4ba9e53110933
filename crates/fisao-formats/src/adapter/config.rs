//! PEFT's `adapter_config.json`.

use std::collections::BTreeSet;
use std::path::Path;

use fisao_models::lora::LoraConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::FormatError;

/// The fields that matter, with PEFT's defaults.
#[expect(clippy::struct_excessive_bools, reason = "the fields are PEFT's")]
#[derive(Deserialize)]
pub(super) struct RawAdapter {
    peft_type: Option<String>,
    pub(super) r: usize,
    pub(super) lora_alpha: f64,
    #[serde(default)]
    pub(super) use_rslora: bool,
    pub(super) base_model_name_or_path: Option<String>,
    target_modules: Option<Value>,
    #[serde(default = "no_bias")]
    bias: String,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    rank_pattern: Option<Value>,
    alpha_pattern: Option<Value>,
    modules_to_save: Option<Value>,
    trainable_token_indices: Option<Value>,
}

impl RawAdapter {
    /// Refuses what would make this adapter compute something other than plain LoRA.
    pub(super) fn refuse_unsupported(&self, path: &Path) -> Result<(), FormatError> {
        let unsupported = |field: &str, found: String, supported| FormatError::UnsupportedField {
            path: path.to_owned(),
            field: field.to_owned(),
            found,
            supported,
        };
        if let Some(kind) = self.peft_type.as_ref().filter(|kind| *kind != "LORA") {
            return Err(unsupported("peft_type", kind.clone(), "LORA"));
        }
        if self.r == 0 {
            return Err(unsupported("r", "0".to_owned(), "a rank above 0"));
        }
        if self.bias != "none" {
            return Err(unsupported("bias", self.bias.clone(), "none"));
        }
        let switches = [
            ("use_dora", self.use_dora),
            ("lora_bias", self.lora_bias),
            ("fan_in_fan_out", self.fan_in_fan_out),
        ];
        if let Some((field, _)) = switches.iter().find(|(_, on)| *on) {
            return Err(unsupported(field, "true".to_owned(), "false"));
        }
        let patterns = [
            ("rank_pattern", &self.rank_pattern),
            ("alpha_pattern", &self.alpha_pattern),
            ("modules_to_save", &self.modules_to_save),
            ("trainable_token_indices", &self.trainable_token_indices),
        ];
        for (field, value) in patterns {
            if let Some(value) = value.as_ref().filter(|value| !is_empty(value)) {
                return Err(unsupported(field, value.to_string(), "an empty value"));
            }
        }
        Ok(())
    }

    /// Refuses a target that no matrix in the file is for. A regular expression is not evaluated:
    /// the matrices themselves say where they belong.
    pub(super) fn check_targets(
        &self,
        path: &Path,
        modules: &BTreeSet<&str>,
    ) -> Result<(), FormatError> {
        let Some(Value::Array(targets)) = &self.target_modules else { return Ok(()) };
        let names = targets.iter().filter_map(Value::as_str);
        for target in names {
            // PEFT matches a target against the end of a module's path.
            let module = target.rsplit('.').next().unwrap_or(target);
            if !modules.contains(module) {
                return Err(FormatError::UnsupportedField {
                    path: path.to_owned(),
                    field: "target_modules".to_owned(),
                    found: format!("{target:?}, for which there is no matrix,"),
                    supported: "a layer that the adapter has matrices for",
                });
            }
        }
        Ok(())
    }
}

/// The configuration as PEFT writes it. Targets are a regular expression that only the decoder's
/// layers match: bare names such as `q_proj` would also match the vision tower's.
pub(super) fn to_json(config: &LoraConfig, base_model: Option<&str>) -> Value {
    let modules = config.target_modules.join("|");
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": null,
        "inference_mode": true,
        "r": config.rank,
        "lora_alpha": whole(config.alpha),
        "use_rslora": config.use_rslora,
        "use_dora": false,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "target_modules": format!(r".*language_model.*\.({modules})"),
        "exclude_modules": null,
        "modules_to_save": null,
        "layers_to_transform": null,
        "layers_pattern": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "auto_mapping": null,
    })
}

/// PEFT's alpha is an integer wherever it is a whole number.
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 { Value::from(value as i64) } else { Value::from(value) }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn no_bias() -> String {
    "none".to_owned()
}
