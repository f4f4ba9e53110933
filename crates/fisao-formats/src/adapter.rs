//! LoRA adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use fisao_models::llava::Llava;
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::ParameterMut;

use crate::FormatError;
use crate::documents::{read_json, write_json};
use crate::weights::{Layout, MappedFile, StoredDtype, write_safetensors};

/// The adapter's configuration.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// The adapter's matrices.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What PEFT writes before the name a parameter has in the model.
const PEFT_PREFIX: &str = "base_model.model.";

/// A LoRA adapter of a LLaVA's language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Rank, scale, and the layers it sits on.
    pub config: LoraConfig,
    /// The model it was trained on: a name or a folder.
    pub base_model: Option<String>,
    /// Its matrices by canonical name, `….q_proj.lora_A.weight` [rank, inputs] and
    /// `….q_proj.lora_B.weight` [outputs, rank], as f32.
    pub tensors: BTreeMap<String, TensorData>,
}

impl Adapter {
    /// The adapter on a model.
    pub fn of(model: &Llava, config: LoraConfig, base_model: Option<String>) -> Self {
        let mut tensors = BTreeMap::new();
        model.clone().visit_lora_mut(&mut |name, parameter| {
            let data = TensorData::new(parameter.values(), parameter.shape());
            tensors.insert(name.to_owned(), data);
        });
        Self { config, base_model, tensors }
    }

    /// Writes the folder, under the keys that current PEFT and transformers write and read.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), FormatError> {
        let named = self.tensors.iter().map(|(name, tensor)| (peft_key(name), tensor));
        let named = named.collect::<Vec<_>>();
        let tensors = named.iter().map(|(key, tensor)| (key.as_str(), *tensor));
        write_safetensors(&folder.join(ADAPTER_WEIGHTS_FILE), tensors, StoredDtype::F32)?;
        let config = config::to_json(&self.config, self.base_model.as_deref());
        write_json(&folder.join(ADAPTER_CONFIG_FILE), &config)
    }

    /// Reads a folder, with keys as old or current PEFT wrote them.
    ///
    /// # Errors
    /// A file is absent or damaged; the adapter is no plain LoRA; it would change the vision tower;
    /// a matrix has no counterpart, or another rank than the configuration says.
    pub fn read(folder: &Path) -> Result<Self, FormatError> {
        let config_path = folder.join(ADAPTER_CONFIG_FILE);
        let raw = read_json("adapter configuration (adapter_config.json)", &config_path)?;
        let raw: config::RawAdapter = raw;
        raw.refuse_unsupported(&config_path)?;

        let path = folder.join(ADAPTER_WEIGHTS_FILE);
        if !path.exists() && folder.join("adapter_model.bin").exists() {
            let file = "adapter_model.bin".to_owned();
            return Err(FormatError::PickleOnly { path: folder.to_owned(), file });
        }
        let tensors = read_tensors(&path)?;
        let modules = tensors.keys().filter_map(|name| module_of(name)).collect::<BTreeSet<_>>();
        raw.check_targets(&config_path, &modules)?;
        let config = LoraConfig {
            rank: raw.r,
            alpha: raw.lora_alpha,
            target_modules: modules.into_iter().map(str::to_owned).collect(),
            use_rslora: raw.use_rslora,
        };
        check_ranks(&path, &tensors, config.rank)?;
        Ok(Self { config, base_model: raw.base_model_name_or_path, tensors })
    }

    /// Puts the adapter on a model that has none. Returns how many matrices it has.
    ///
    /// # Errors
    /// The model has a layer that the adapter lacks, the other way round, or of another shape;
    /// `folder` is where the adapter came from, for the message.
    pub fn apply(&self, model: &mut Llava, folder: &Path) -> Result<usize, FormatError> {
        let path = folder.join(ADAPTER_WEIGHTS_FILE);
        // The seed is of no consequence: every matrix is replaced, or the model is not touched.
        let mut adapted = model.clone();
        adapted.add_lora(&self.config, 0).map_err(|error| FormatError::Weights {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let mut assignment = Assignment::new(&self.tensors, &path);
        adapted.visit_lora_mut(&mut |name, parameter| assignment.assign(name, parameter));
        assignment.finish()?;
        *model = adapted;
        Ok(self.tensors.len())
    }
}

/// The matrices of an adapter on their way into a model.
struct Assignment<'a> {
    path: &'a Path,
    tensors: &'a BTreeMap<String, TensorData>,
    unmatched: BTreeSet<&'a str>,
    missing: Vec<String>,
    misshapen: Option<FormatError>,
}

impl<'a> Assignment<'a> {
    fn new(tensors: &'a BTreeMap<String, TensorData>, path: &'a Path) -> Self {
        let unmatched = tensors.keys().map(String::as_str).collect();
        Self { path, tensors, unmatched, missing: Vec::new(), misshapen: None }
    }

    fn assign(&mut self, name: &str, mut parameter: ParameterMut<'_>) {
        let Some(tensor) = self.tensors.get(name) else {
            self.missing.push(name.to_owned());
            return;
        };
        self.unmatched.remove(name);
        let (expected, found) = (parameter.shape(), tensor.shape().to_vec());
        if expected == found {
            let values = tensor.try_to_vec::<f32>().expect("an adapter's matrices are kept as f32");
            parameter.set_values(values);
        } else if self.misshapen.is_none() {
            self.misshapen = Some(FormatError::TensorShape {
                path: self.path.to_owned(),
                tensor: peft_key(name),
                expected,
                found,
            });
        }
    }

    fn finish(self) -> Result<(), FormatError> {
        if !self.unmatched.is_empty() || !self.missing.is_empty() || self.tensors.is_empty() {
            return Err(FormatError::AdapterMismatch {
                path: self.path.to_owned(),
                unmatched: self.unmatched.into_iter().map(peft_key).collect(),
                missing: self.missing,
            });
        }
        self.misshapen.map_or(Ok(()), Err)
    }
}

/// Reads the matrices under canonical names; refuses keys that are no LoRA matrix of the decoder.
fn read_tensors(path: &Path) -> Result<BTreeMap<String, TensorData>, FormatError> {
    let file = MappedFile::open(path)?;
    let (mut touching, mut unmatched) = (Vec::new(), Vec::new());
    let mut tensors = BTreeMap::new();
    for key in file.keys() {
        let canonical = canonical_name(&key);
        if canonical.contains("vision_tower.") || canonical.contains("vision_model.") {
            touching.push(key);
            continue;
        }
        if module_of(&canonical).is_none() {
            unmatched.push(key);
            continue;
        }
        let tensor = file.tensor(&key).expect("the key is the file's own");
        let Some(data) = tensor.to_f32(tensor.shape()) else {
            return Err(FormatError::TensorDtype {
                path: path.to_owned(),
                tensor: key,
                found: tensor.dtype_name(),
            });
        };
        tensors.insert(canonical, data);
    }
    if !touching.is_empty() {
        return Err(FormatError::AdapterTouchesVision { path: path.into(), keys: touching });
    }
    if !unmatched.is_empty() || tensors.is_empty() {
        return Err(FormatError::AdapterMismatch { path: path.into(), unmatched, missing: vec![] });
    }
    Ok(tensors)
}

/// Every A has its B, and both have the rank of the configuration.
fn check_ranks(
    path: &Path,
    tensors: &BTreeMap<String, TensorData>,
    rank: usize,
) -> Result<(), FormatError> {
    let mut missing = Vec::new();
    for (name, tensor) in tensors {
        let is_down = name.ends_with(".lora_A.weight");
        let counterpart = if is_down {
            name.replace(".lora_A.", ".lora_B.")
        } else {
            name.replace(".lora_B.", ".lora_A.")
        };
        if !tensors.contains_key(&counterpart) {
            missing.push(counterpart);
        }
        let found = tensor.shape().to_vec();
        let expected = match (is_down, found.as_slice()) {
            (true, &[_, inputs]) => vec![rank, inputs],
            (false, &[outputs, _]) => vec![outputs, rank],
            _ => vec![rank, rank],
        };
        if found != expected {
            let (path, tensor) = (PathBuf::from(path), peft_key(name));
            return Err(FormatError::TensorShape { path, tensor, expected, found });
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(FormatError::AdapterMismatch { path: path.into(), unmatched: vec![], missing })
    }
}

/// The canonical name of a key as any PEFT release wrote it.
fn canonical_name(key: &str) -> String {
    let key = key.strip_prefix(PEFT_PREFIX).unwrap_or(key);
    // Saved through torch rather than by PEFT, keys keep the adapter's own name.
    let key = key.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.");
    Layout::Llava.canonical(&key)
}

/// The key that current PEFT writes for a canonical name.
fn peft_key(canonical: &str) -> String {
    match canonical.strip_prefix("language_model.model.") {
        Some(rest) => format!("{PEFT_PREFIX}model.language_model.{rest}"),
        None => format!("{PEFT_PREFIX}{canonical}"),
    }
}

/// The kind of layer ("`q_proj`") that a decoder's LoRA matrix sits on; `None` for any other name.
fn module_of(canonical: &str) -> Option<&str> {
    let path = canonical.strip_prefix("language_model.model.layers.")?;
    let path =
        path.strip_suffix(".lora_A.weight").or_else(|| path.strip_suffix(".lora_B.weight"))?;
    path.rsplit('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_old_and_new_peft_have_one_canonical_name() {
        let name = "language_model.model.layers.0.self_attn.q_proj.lora_A.weight";
        let keys = [
            "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight",
        ];
        for key in keys {
            assert_eq!(canonical_name(key), name, "{key}");
        }
        assert_eq!(peft_key(name), keys[0]);
        assert_eq!(module_of(name), Some("q_proj"));
        assert_eq!(module_of("multi_modal_projector.linear_1.lora_A.weight"), None);
    }
}
