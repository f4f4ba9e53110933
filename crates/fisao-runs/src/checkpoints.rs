//! Saved states of a trainer: tensors as safetensors and the rest as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::tensor::TensorData;
use fisao_align::trainer::TrainerState;
use fisao_formats::documents::{read_json, write_json};
use fisao_formats::weights::{MappedFile, StoredDtype, write_safetensors};

use crate::reporter::Reporter;
use crate::state_folders::StateFolders;

const TENSORS: &str = "trainer.safetensors";
const SCALARS: &str = "trainer.json";

/// The states of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    states: StateFolders,
}

impl Checkpoints {
    /// Those in a folder, which need not exist.
    pub fn new(root: PathBuf) -> Self {
        Self { states: StateFolders::new(root, "iteration", &[TENSORS, SCALARS]) }
    }

    /// Saves a state and removes those older than the last `keep`.
    pub fn save(&self, state: &TrainerState, keep: usize) -> anyhow::Result<()> {
        self.states.save(state.iteration, keep, |folder| write(state, folder))
    }

    /// Iterations done in the newest state, if there is one.
    pub fn newest(&self) -> Option<usize> {
        self.states.newest()
    }

    /// The newest state that can be read and that `accept` takes; `None` if none was saved yet. One that is damaged or not
    /// taken is passed over with a warning: the run repeats what lies between.
    pub fn load(
        &self,
        reporter: &Reporter,
        accept: impl Fn(&TrainerState) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<TrainerState>> {
        self.states.load(reporter, |folder| {
            let state = read(folder)?;
            accept(&state)?;
            Ok(state)
        })
    }
}

/// Writes the files of a state.
fn write(state: &TrainerState, folder: &Path) -> anyhow::Result<()> {
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
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&folder.join(TENSORS), named, StoredDtype::F32)?;
    let scalars =
        TrainerState { parameters: BTreeMap::new(), moments: BTreeMap::new(), ..state.clone() };
    write_json(&folder.join(SCALARS), &scalars)?;
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<TrainerState> {
    let mut state: TrainerState = read_json("trainer state", &folder.join(SCALARS))?;
    let path = folder.join(TENSORS);
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::state_folders::{MANIFEST, UNFINISHED};

    fn state(iteration: usize) -> TrainerState {
        let values = vec![iteration as f32, 0.1, f32::MIN_POSITIVE];
        TrainerState {
            iteration,
            parameters: BTreeMap::from([("a.lora_A".to_owned(), values.clone())]),
            moments: BTreeMap::from([("a.lora_A".to_owned(), (values.clone(), values))]),
            optimiser_steps: 3,
            parameter_steps: BTreeMap::from([("a.lora_A".to_owned(), 2)]),
            kl: None,
            baseline: None,
            base_recall: Some(0.1 + 0.2),
            base_correct: None,
            recall: None,
            length: None,
            unrecoverable: 1,
            int8_sampling_left: true,
        }
    }

    #[test]
    fn last_checkpoints_are_kept_and_the_newest_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        let quiet = Reporter::silent();
        let checkpoints = Checkpoints::new(root.path().join("checkpoint"));
        let load = || checkpoints.load(&quiet, |_| Ok(()));
        assert!(load().unwrap().is_none());
        for iteration in [8, 9, 10, 11] {
            checkpoints.save(&state(iteration), 2).unwrap();
        }
        let mut saved = checkpoints.states.saved().unwrap();
        saved.sort_unstable();
        assert_eq!(saved, [10, 11]);
        assert_eq!(load().unwrap(), Some(state(11)));
        let even = |state: &TrainerState| {
            anyhow::ensure!(state.iteration.is_multiple_of(2), "odd");
            Ok(())
        };
        assert_eq!(checkpoints.load(&quiet, even).unwrap(), Some(state(10)));
    }

    #[test]
    fn damaged_or_unfinished_state_falls_back_to_the_previous_one() {
        let root = tempfile::tempdir().unwrap();
        let quiet = Reporter::silent();
        let checkpoints = Checkpoints::new(root.path().to_owned());
        checkpoints.save(&state(5), 2).unwrap();
        checkpoints.save(&state(6), 2).unwrap();
        let tensors = checkpoints.states.folder(6).join(TENSORS);
        let bytes = fs::read(&tensors).unwrap();
        fs::write(&tensors, &bytes[..bytes.len() / 2]).unwrap();
        let unfinished = root.path().join(format!("{UNFINISHED}iteration-7"));
        fs::create_dir(&unfinished).unwrap();
        let load = || checkpoints.load(&quiet, |_| Ok(()));
        assert_eq!(load().unwrap(), Some(state(5)));
        assert!(!unfinished.exists());
        fs::remove_dir_all(checkpoints.states.folder(5)).unwrap();
        assert!(load().is_err(), "a damaged state is not the same as none");
    }

    #[test]
    fn flipped_bit_in_any_checkpoint_file_is_detected() {
        let root = tempfile::tempdir().unwrap();
        let quiet = Reporter::silent();
        let checkpoints = Checkpoints::new(root.path().to_owned());
        checkpoints.save(&state(5), 2).unwrap();
        let load = || checkpoints.load(&quiet, |_| Ok(()));
        for name in [TENSORS, SCALARS, MANIFEST] {
            let path = checkpoints.states.folder(5).join(name);
            let whole = fs::read(&path).unwrap();
            for at in (0..whole.len()).step_by(7) {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                fs::write(&path, &damaged).unwrap();
                let found = load();
                // White space of the manifest means nothing.
                assert!(found.is_err() || name == MANIFEST, "{name}, byte {at}");
                assert!(found.is_err() || found.unwrap() == Some(state(5)));
            }
            fs::write(&path, &whole).unwrap();
        }
        assert_eq!(load().unwrap(), Some(state(5)));
        // As earlier versions saved it.
        fs::remove_file(checkpoints.states.folder(5).join(MANIFEST)).unwrap();
        assert_eq!(load().unwrap(), Some(state(5)));
    }
}
