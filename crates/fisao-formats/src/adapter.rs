//! LoRA adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter is applied as PEFT applies it: a linear layer has one exactly where the file holds its A and B,
//! with the rank and scale that PEFT's own rules give it. What PEFT would pass over in silence is
//! refused.

mod config;
mod fit;
mod names;
mod rules;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use fisao_models::lora::{LoraConfig, LowRank};
use fisao_models::parameters::floats;
use fisao_models::vision_language::VisionLanguageModel;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FormatError;
use crate::checkpoint::FamilyFormat;
use crate::documents::{read_settings, write_json};
use crate::weights::{MappedFile, StoredDtype, write_safetensors};
pub(crate) use fit::{LinearSizes, check};
use names::{Side, canonical_name, key, parse_key};
use rules::Rules;

/// The adapter's configuration.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// The adapter's matrices.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A LoRA adapter of a vision-language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// `adapter_config.json`, whole.
    pub config: Value,
    /// What is added to which layer, by the linear layer's canonical name.
    pub updates: BTreeMap<String, LinearUpdate>,
}

/// What is added to the weight of one linear layer: `scale · B A`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearUpdate {
    /// Where the linear layer is in the model that PEFT saw, which its patterns are matched against.
    pub path: String,
    /// `[rank, inputs]`, as f32.
    pub a: TensorData,
    /// `[outputs, rank]`, as f32.
    pub b: TensorData,
    /// Alpha over the rank, or over its root.
    pub scale: f64,
    /// The weight that this is added to, `[outputs, inputs]`, where the file holds it: PEFT saves that
    /// of an adapted output matrix, and on loading puts it in the place of the model's.
    pub base: Option<TensorData>,
}

impl LinearUpdate {
    /// Rows of A and columns of B.
    pub fn rank(&self) -> usize {
        self.a.shape()[0]
    }
}

/// What becomes of an adapter on the vision tower, which the model shares with its verifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VisionAdapter {
    /// It is an error.
    #[default]
    Refuse,
    /// It is applied to the model's tower.
    Apply,
}

impl Adapter {
    /// The adapter that training put on a model.
    pub fn of(model: &VisionLanguageModel, config: &LoraConfig, base_model: Option<&str>) -> Self {
        let (naming, mut updates) = (&FamilyFormat::of(model.config()).namings[0], BTreeMap::new());
        model.clone().visit_linears_mut(&mut |name, layer| {
            if let Some(LowRank { a, b, scale }) = &layer.adapter {
                let path = naming.path(name);
                let data = |matrix| TensorData::new(floats(matrix), matrix.dims());
                let update =
                    LinearUpdate { path, a: data(a), b: data(b), scale: *scale, base: None };
                updates.insert(name.to_owned(), update);
            }
        });
        Self { config: config::to_json(config, naming.decoder_module(), base_model), updates }
    }

    /// Writes the folder, under the keys that the adapter was read from or that current PEFT and
    /// transformers write and read.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), FormatError> {
        let mut named = Vec::new();
        for LinearUpdate { path, a, b, base, .. } in self.updates.values() {
            named.extend([(key(path, Side::A), a), (key(path, Side::B), b)]);
            named.extend(base.as_ref().map(|base| (key(path, Side::Base), base)));
        }
        let tensors = named.iter().map(|(key, tensor)| (key.as_str(), *tensor));
        write_safetensors(&folder.join(ADAPTER_WEIGHTS_FILE), tensors, StoredDtype::F32)?;
        write_json(&folder.join(ADAPTER_CONFIG_FILE), &self.config)
    }

    /// Reads a folder, with keys as old or current PEFT wrote them.
    ///
    /// # Errors
    /// A file is absent or damaged; the adapter is no plain LoRA; a tensor is no matrix of one, lacks
    /// its counterpart, or has another rank than the configuration says.
    pub fn read(folder: &Path) -> Result<Self, FormatError> {
        let config_path = folder.join(ADAPTER_CONFIG_FILE);
        let config = read_settings(config::CONFIG, &config_path)?;
        let rules = Rules::new(&config::parse(&config, &config_path)?, &config_path)?;

        let path = folder.join(ADAPTER_WEIGHTS_FILE);
        refuse_pickles(folder, &path)?;
        let (mut updates, mut missing) = (BTreeMap::new(), Vec::new());
        for (name, found) in read_matrices(&path)? {
            match found.into_update(&rules)? {
                Ok(update) => {
                    updates.insert(name, update);
                }
                Err(key) => missing.push(key),
            }
        }
        if !missing.is_empty() || updates.is_empty() {
            return Err(FormatError::AdapterMismatch { path, unmatched: Vec::new(), missing });
        }
        check_ranks(&path, &rules, &updates)?;
        Ok(Self { config, updates })
    }

    /// The model it was trained on, as its configuration says: a name or a folder.
    pub fn base_model(&self) -> Option<&str> {
        self.config.get("base_model_name_or_path")?.as_str()
    }

    /// How many linear layers of the vision tower it changes.
    pub fn vision_layers(&self) -> usize {
        self.updates.keys().filter(|name| names::is_vision(name)).count()
    }

    /// Puts the adapter on a model, in the place of any other. Returns how many linear layers it changes.
    ///
    /// # Errors
    /// It does not fit the model, or touches the vision tower and is not to; the model is left as it
    /// was. `folder` is where the adapter came from, for the message.
    pub fn apply(
        &self,
        model: &mut VisionLanguageModel,
        folder: &Path,
        vision: VisionAdapter,
    ) -> Result<usize, FormatError> {
        let mut layers = LinearSizes::new();
        let mut adapted = model.without_lora();
        adapted.visit_linears_mut(&mut |name, layer| {
            layers.insert(name.to_owned(), layer.size());
        });
        check(self, &layers, folder, vision)?;
        let device = model.device().inner();
        adapted.visit_linears_mut(&mut |name, layer| {
            let Some(update) = self.updates.get(name) else { return };
            let tensor = |data: &TensorData| Tensor::from_data(data.clone(), &device);
            if let Some(base) = &update.base {
                layer.set_weight(tensor(base));
            }
            let (a, b) = (tensor(&update.a), tensor(&update.b));
            layer.adapter = Some(LowRank { a, b, scale: update.scale });
        });
        *model = adapted;
        Ok(self.updates.len())
    }

    fn rules(&self, path: &Path) -> Result<Rules, FormatError> {
        Rules::new(&config::parse(&self.config, path)?, path)
    }
}

/// The matrices of one linear layer, on their way out of a file.
#[derive(Debug, Default)]
struct Found {
    path: String,
    a: Option<TensorData>,
    b: Option<TensorData>,
    base: Option<TensorData>,
}

impl Found {
    fn slot(&mut self, side: Side) -> &mut Option<TensorData> {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
            Side::Base => &mut self.base,
        }
    }

    /// The update; an error is the key that is missing.
    fn into_update(self, rules: &Rules) -> Result<Result<LinearUpdate, String>, FormatError> {
        let Self { path, a, b, base } = self;
        let scale = rules.scale(&path)?;
        Ok(match (a, b) {
            (Some(a), Some(b)) => Ok(LinearUpdate { path, a, b, scale, base }),
            (None, _) => Err(key(&path, Side::A)),
            (_, None) => Err(key(&path, Side::B)),
        })
    }
}

/// Reads the matrices by canonical name; refuses tensors that are none.
fn read_matrices(path: &Path) -> Result<BTreeMap<String, Found>, FormatError> {
    let file = MappedFile::open(path)?;
    let empty = |key: &String| file.tensor(key).is_some_and(|tensor| tensor.shape().contains(&0));
    let mut keys = file.keys().into_iter().filter(empty).collect::<Vec<_>>();
    keys.sort_unstable();
    if !keys.is_empty() {
        return Err(FormatError::AdapterEmptyTensors { path: path.to_owned(), keys });
    }
    let mut unmatched = Vec::new();
    let mut layers = BTreeMap::<String, Found>::new();
    for stored in file.keys() {
        let tensor = file.tensor(&stored).expect("the key is the file's own");
        let Some((path_of_layer, side)) = parse_key(&stored).filter(|_| tensor.shape().len() == 2)
        else {
            unmatched.push(stored);
            continue;
        };
        let Some(data) = tensor.to_f32(tensor.shape()) else {
            let (path, found) = (path.to_owned(), tensor.dtype_name());
            return Err(FormatError::TensorDtype { path, tensor: stored, found });
        };
        let canonical = canonical_name(path_of_layer);
        let layer = layers.entry(canonical.clone()).or_default();
        if layer.slot(side).is_some() {
            let (path, first) = (path.to_owned(), key(&layer.path, side));
            return Err(FormatError::DuplicateTensor { path, first, second: stored, canonical });
        }
        *layer.slot(side) = Some(data);
        path_of_layer.clone_into(&mut layer.path);
    }
    if unmatched.is_empty() {
        return Ok(layers);
    }
    Err(FormatError::AdapterMismatch { path: path.to_owned(), unmatched, missing: Vec::new() })
}

/// A and B of every linear layer have the rank that the configuration gives it.
fn check_ranks(
    path: &Path,
    rules: &Rules,
    updates: &BTreeMap<String, LinearUpdate>,
) -> Result<(), FormatError> {
    let mut ranks = Vec::new();
    for update in updates.values() {
        let expected = rules.rank(&update.path)?;
        let [a, b] = names::keys(&update.path);
        for (key, found) in [(a, update.a.shape()[0]), (b, update.b.shape()[1])] {
            if found != expected {
                ranks.push((key, found, expected));
            }
        }
    }
    if ranks.is_empty() {
        return Ok(());
    }
    Err(FormatError::AdapterRanks { path: path.to_owned(), ranks })
}

/// An error if matrices, or what was trained beside them, are only there as pickles.
fn refuse_pickles(folder: &Path, weights: &Path) -> Result<(), FormatError> {
    let pickle = |file: &str| FormatError::PickleOnly { path: folder.into(), file: file.into() };
    if !weights.exists() && folder.join("adapter_model.bin").exists() {
        return Err(pickle("adapter_model.bin"));
    }
    // The original LLaVA repository saves the projector it trained beside the adapter.
    let beside = "non_lora_trainables.bin";
    if folder.join(beside).exists() { Err(pickle(beside)) } else { Ok(()) }
}
