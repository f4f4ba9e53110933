//! Checkpoints whose weights are numbers of 8 bits or fewer with scales beside them.

use serde_json::Value;

use crate::FormatError;
use crate::fields::{Fields, shortened};

/// Where configurations say so, the second one of old releases of compressed-tensors.
const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

/// Refuses a configuration that says how its weights were quantised.
pub(super) fn refuse(top: &Fields<'_>) -> Result<(), FormatError> {
    let text = top.get("text_config");
    for key in KEYS {
        let inner = text.and_then(|text| text.get(key)).filter(|value| !value.is_null());
        let Some(settings) = top.get(key).or(inner) else { continue };
        let bits = bits(settings);
        return Err(FormatError::Quantised {
            path: top.path().to_owned(),
            by: format!(
                "{}{}",
                method(settings),
                bits.map(|bits| format!(" to {bits} bits")).unwrap_or_default()
            ),
        });
    }
    Ok(())
}

/// The library or the format.
fn method(settings: &Value) -> String {
    let name = settings.get("quant_method").or_else(|| settings.get("quant_algo"));
    match name.and_then(Value::as_str) {
        Some("gptq") => "GPTQ".to_owned(),
        Some("awq") => "AWQ".to_owned(),
        Some("fp8" | "fbgemm_fp8" | "finegrained_fp8") => "FP8".to_owned(),
        Some(name) => shortened(name),
        None => "a method that is not named".to_owned(),
    }
}

fn bits(settings: &Value) -> Option<u64> {
    let set = |key: &str| settings.get(key).and_then(Value::as_bool) == Some(true);
    if set("load_in_4bit") {
        return Some(4);
    }
    if set("load_in_8bit") {
        return Some(8);
    }
    let named = ["bits", "w_bit"].iter().find_map(|key| settings.get(key)?.as_u64());
    // compressed-tensors has settings for groups of layers.
    let groups = settings.get("config_groups").and_then(Value::as_object);
    let group = groups.and_then(|groups| groups.values().next()?.get("weights")?.get("num_bits"));
    named.or_else(|| group?.as_u64())
}
