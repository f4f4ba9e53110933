//! The trainer's state on disk: tensors as safetensors, the rest as JSON, both written atomically.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use burn::tensor::TensorData;
use fisao_align::trainer::TrainerState;
use fisao_formats::documents::{read_json, write_json};
use fisao_formats::weights::{MappedFile, StoredDtype, write_safetensors};

const TENSORS: &str = "trainer.safetensors";
const SCALARS: &str = "trainer.json";

/// Writes the state into `folder`.
///
/// The tensors carry the iteration in their file name, and the JSON, written last, names it: an
/// interruption between the two leaves the previous state valid.
pub(crate) fn save(folder: &Path, state: &TrainerState) -> anyhow::Result<()> {
    let mut tensors = Vec::new();
    let mut add = |kind: &str, name: &str, values: &[f32]| {
        tensors.push((format!("{kind}/{name}"), TensorData::new(values.to_vec(), [values.len()])));
    };
    for (name, values) in &state.parameters {
        add("value", name, values);
    }
    for (name, (first, second)) in &state.moments {
        add("first", name, first);
        add("second", name, second);
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&folder.join(file(state.iteration)), named, StoredDtype::F32)?;
    let scalars =
        TrainerState { parameters: BTreeMap::new(), moments: BTreeMap::new(), ..state.clone() };
    let previous: Option<TrainerState> = read_json("trainer state", &folder.join(SCALARS)).ok();
    write_json(&folder.join(SCALARS), &scalars)?;
    if let Some(previous) = previous.filter(|previous| previous.iteration != state.iteration) {
        // A leftover file costs space, not correctness.
        let _ = std::fs::remove_file(folder.join(file(previous.iteration)));
    }
    Ok(())
}

/// Reads the state in `folder`.
pub(crate) fn load(folder: &Path) -> anyhow::Result<TrainerState> {
    let mut state: TrainerState = read_json("trainer state", &folder.join(SCALARS))?;
    let path = folder.join(file(state.iteration));
    let mapped = MappedFile::open(&path)?;
    for key in mapped.keys() {
        let (kind, name) = key
            .split_once('/')
            .with_context(|| format!("{}: unknown tensor `{key}`", path.display()))?;
        let tensor = mapped.tensor(&key).with_context(|| format!("tensor `{key}`"))?;
        let values = tensor
            .to_f32(tensor.shape())
            .and_then(|data| data.try_into_vec_as::<f32>().ok())
            .with_context(|| format!("{}: tensor `{key}` is not a float tensor", path.display()))?;
        match kind {
            "value" => drop(state.parameters.insert(name.to_owned(), values)),
            "first" => state.moments.entry(name.to_owned()).or_default().0 = values,
            "second" => state.moments.entry(name.to_owned()).or_default().1 = values,
            _ => anyhow::bail!("{}: unknown tensor `{key}`", path.display()),
        }
    }
    Ok(state)
}

fn file(iteration: usize) -> String {
    TENSORS.replace('.', &format!("-{iteration}."))
}
