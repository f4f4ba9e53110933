//! Saved states of a trainer: one folder each, tensors as safetensors and the rest as JSON.
//!
//! A state's folder appears complete or not at all, and older ones stay until a newer one is there: whenever a process
//! is killed or a disk fills up, the last state that was saved is whole. Its manifest holds a digest of each of its files, so
//! that one that was damaged later is not taken for what was saved.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::tensor::TensorData;
use fisao_align::trainer::TrainerState;
use fisao_formats::FormatError;
use fisao_formats::digest::sha256_file;
use fisao_formats::documents::{read_json, write_json};
use fisao_formats::weights::{MappedFile, StoredDtype, write_safetensors};
use serde::{Deserialize, Serialize};

use crate::failure::Refusal;
use crate::reporter::Reporter;

const TENSORS: &str = "trainer.safetensors";
const SCALARS: &str = "trainer.json";
/// File of the digests of the others.
const MANIFEST: &str = "manifest.json";
/// Begins the name of a folder that is not complete yet.
const UNFINISHED: &str = ".writing-";

/// SHA-256 of the files of a state by their names.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    sha256: BTreeMap<String, String>,
}

/// The states of one run.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    root: PathBuf,
}

impl Checkpoints {
    /// Those in a folder, which need not exist.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Saves a state and removes those older than the last `keep`.
    pub(crate) fn save(&self, state: &TrainerState, keep: usize) -> anyhow::Result<()> {
        if let Err(error) = write(state, &self.root, &folder(state.iteration)) {
            // What was begun takes room that the next attempt may need.
            let _ = self.saved();
            return Err(error);
        }
        let mut saved = self.saved()?;
        saved.retain(|&iteration| iteration < state.iteration);
        saved.sort_unstable();
        for &iteration in saved.iter().rev().skip(keep.saturating_sub(1)) {
            // A leftover costs space, not correctness.
            let _ = fs::remove_dir_all(self.root.join(folder(iteration)));
        }
        Ok(())
    }

    /// Iterations done in the newest state, if there is one.
    pub(crate) fn newest(&self) -> Option<usize> {
        self.saved().ok()?.into_iter().max()
    }

    /// The newest state that can be read and that `accept` takes; `None` if none was saved yet. One that is damaged or not
    /// taken is passed over with a warning: the run repeats what lies between.
    pub(crate) fn load(
        &self,
        reporter: &Reporter,
        accept: impl Fn(&TrainerState) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<TrainerState>> {
        let mut saved = self.saved()?;
        saved.sort_unstable();
        let mut first = None;
        for iteration in saved.into_iter().rev() {
            let state = read(&self.root.join(folder(iteration)), reporter);
            match state.and_then(|state| accept(&state).map(|()| state)) {
                Ok(state) => return Ok(Some(state)),
                Err(error) => {
                    reporter.warn(
                        format!("the state after iteration {iteration} is passed over: {error:#}"),
                        Some("the one before it is taken, if there is one"),
                    );
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(None), Err)
    }

    /// Iterations done in each of the states, in no order; what was left unfinished is removed.
    fn saved(&self) -> Result<Vec<usize>, FormatError> {
        let failed = |error| FormatError::io("read", &self.root, error);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut saved = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
            saved.extend(name.strip_prefix(PREFIX).and_then(|number| number.parse::<usize>().ok()));
        }
        Ok(saved)
    }
}

/// Begins the name of a state's folder; the iterations done follow.
const PREFIX: &str = "iteration-";

fn folder(iteration: usize) -> String {
    format!("{PREFIX}{iteration}")
}

/// Writes a state as the folder `name` of `root`, in place of one that is there.
fn write(state: &TrainerState, root: &Path, name: &str) -> anyhow::Result<()> {
    let unfinished = root.join(format!("{UNFINISHED}{name}"));
    let failed = |error| FormatError::io("write", &unfinished, error);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
        _ => fs::create_dir_all(&unfinished).map_err(failed)?,
    }
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
    write_safetensors(&unfinished.join(TENSORS), named, StoredDtype::F32)?;
    let scalars =
        TrainerState { parameters: BTreeMap::new(), moments: BTreeMap::new(), ..state.clone() };
    write_json(&unfinished.join(SCALARS), &scalars)?;
    let digest = |name: &str| Ok((name.to_owned(), sha256_file(&unfinished.join(name))?));
    let sha256 = [TENSORS, SCALARS].into_iter().map(digest).collect::<Result<_, FormatError>>()?;
    write_json(&unfinished.join(MANIFEST), &Manifest { sha256 })?;
    let complete = root.join(name);
    if complete.exists() {
        fs::remove_dir_all(&complete).map_err(failed)?;
    }
    fs::rename(&unfinished, &complete).map_err(failed)?;
    // The rename survives a power cut only once the folder is on the disk too.
    #[cfg(unix)]
    File::open(root).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(())
}

/// Compares the files of a state with its manifest. States of earlier versions have none.
fn check(folder: &Path, reporter: &Reporter) -> anyhow::Result<()> {
    let path = folder.join(MANIFEST);
    if !path.exists() {
        let folder = folder.display();
        reporter.note(format!(
            "{folder} has no digests of its files: whether they are damaged is not known"
        ));
        return Ok(());
    }
    let Manifest { sha256 } = read_json("manifest of a state", &path)?;
    for name in [TENSORS, SCALARS] {
        let file = folder.join(name);
        if sha256.get(name) != Some(&sha256_file(&file)?) {
            let message =
                format!("{} is damaged: its bytes are not those that were saved", file.display());
            return Err(Refusal::new(message).into());
        }
    }
    Ok(())
}

fn read(folder: &Path, reporter: &Reporter) -> anyhow::Result<TrainerState> {
    check(folder, reporter)?;
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
    use super::*;

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
            unrecoverable: 1,
        }
    }

    #[test]
    fn the_last_ones_are_kept_and_the_newest_is_read() {
        let root = tempfile::tempdir().unwrap();
        let quiet = Reporter::new(true);
        let checkpoints = Checkpoints::new(root.path().join("checkpoint"));
        let load = || checkpoints.load(&quiet, |_| Ok(()));
        assert!(load().unwrap().is_none());
        for iteration in [8, 9, 10, 11] {
            checkpoints.save(&state(iteration), 2).unwrap();
        }
        let mut saved = checkpoints.saved().unwrap();
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
    fn a_damaged_or_unfinished_state_does_not_hide_the_one_before_it() {
        let root = tempfile::tempdir().unwrap();
        let quiet = Reporter::new(true);
        let checkpoints = Checkpoints::new(root.path().to_owned());
        checkpoints.save(&state(5), 2).unwrap();
        checkpoints.save(&state(6), 2).unwrap();
        let tensors = root.path().join(folder(6)).join(TENSORS);
        let bytes = fs::read(&tensors).unwrap();
        fs::write(&tensors, &bytes[..bytes.len() / 2]).unwrap();
        let unfinished = root.path().join(format!("{UNFINISHED}iteration-7"));
        fs::create_dir(&unfinished).unwrap();
        let load = || checkpoints.load(&quiet, |_| Ok(()));
        assert_eq!(load().unwrap(), Some(state(5)));
        assert!(!unfinished.exists());
        fs::remove_dir_all(root.path().join(folder(5))).unwrap();
        assert!(load().is_err(), "a damaged state is not the same as none");
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let quiet = Reporter::new(true);
        let checkpoints = Checkpoints::new(root.path().to_owned());
        checkpoints.save(&state(5), 2).unwrap();
        let load = || checkpoints.load(&quiet, |_| Ok(()));
        for name in [TENSORS, SCALARS, MANIFEST] {
            let path = root.path().join(folder(5)).join(name);
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
        fs::remove_file(root.path().join(folder(5)).join(MANIFEST)).unwrap();
        assert_eq!(load().unwrap(), Some(state(5)));
    }
}
