//! Progress and saved states of one training stage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use burn::tensor::TensorData;
use fisao_formats::FormatError;
use fisao_formats::weights::{MappedFile, StoredDtype, write_safetensors};
use fisao_runs::reporter::PhaseProgress;
use fisao_runs::state_folders::{StateFolders, note_undigested};
use fisao_runs::{Refusal, Reporter};
use fisao_scenes::recipe::{Observer, StageConfig, StageProgress, StageState, Verdict};

/// The file of a state, in its folder.
const TENSORS: &str = "state.safetensors";
/// Time between saved states.
const INTERVAL: Duration = Duration::from_mins(2);
/// Weight of the newest loss in the running mean that is shown.
const NEWEST: f64 = 0.03;
/// The tensor that holds the number of updates made, which f32 holds exactly up to 2²⁴.
const STEP: &str = "step";
/// Prefix of Muon's momentum.
const MOMENTUM: &str = "momentum/";
/// Prefixes of parameters and of AdamW's two moments.
const KINDS: [&str; 3] = ["param/", "first/", "second/"];

/// Monitors one stage: shows where it is, and saves its state now and then and on Ctrl-C.
pub(super) struct StageMonitor {
    states: StateFolders,
    name: String,
    config: StageConfig,
    reporter: Reporter,
    stop: Arc<AtomicBool>,
    progress: Option<PhaseProgress>,
    loss: Option<f64>,
    saved: Instant,
}

impl StageMonitor {
    /// A monitor of a stage whose states are kept in the folder `root`.
    pub(super) fn new(
        root: PathBuf,
        name: &str,
        config: &StageConfig,
        stop: Arc<AtomicBool>,
        reporter: &Reporter,
    ) -> Self {
        Self {
            states: states_in(root),
            name: name.to_owned(),
            config: config.clone(),
            reporter: reporter.clone(),
            stop,
            progress: None,
            loss: None,
            saved: Instant::now(),
        }
    }

    /// The state that was saved when this stage was interrupted, if it was.
    pub(super) fn resume(&mut self) -> anyhow::Result<Option<StageState>> {
        let read = |folder: &Path| read_state(&folder.join(TENSORS), &self.config);
        let saved = self.states.load(&self.reporter, read).map_err(|error| {
            let root = self.states.root().display();
            let hint = format!("delete {root} to begin this stage again");
            anyhow::Error::from(Refusal::new(format!("{error:#}")).hint(hint))
        })?;
        let earlier = earlier(self.states.root());
        let state = match saved {
            Some(state) => state,
            None if earlier.exists() => {
                note_undigested(&earlier, &self.reporter);
                read_state(&earlier, &self.config)?
            }
            None => return Ok(None),
        };
        self.reporter.note(format_args!("{}: resuming from update {}", self.name, state.step));
        Ok(Some(state))
    }

    /// The stage is done and its model written: its state is needed no more.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        if let Some(progress) = self.progress {
            progress.finish();
        }
        let (root, earlier) = (self.states.root(), earlier(self.states.root()));
        let removed = |path: &Path| format!("cannot remove {}", path.display());
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| removed(root))?;
        }
        if earlier.exists() {
            fs::remove_file(&earlier).with_context(|| removed(&earlier))?;
        }
        Ok(())
    }
}

/// The states of a stage, each in a folder named after the updates made.
fn states_in(root: PathBuf) -> StateFolders {
    StateFolders::new(root, "update", &[TENSORS])
}

/// The file in which earlier versions kept the state of a stage.
fn earlier(root: &Path) -> PathBuf {
    root.with_extension("safetensors")
}

impl Observer for StageMonitor {
    fn progress(&mut self, at: StageProgress) -> Verdict {
        let made = at.step - 1;
        let progress = self
            .progress
            .get_or_insert_with(|| self.reporter.phase_from(&self.name, made, at.steps));
        let loss = self.loss.map_or(at.loss, |mean| mean + NEWEST * (at.loss - mean));
        self.loss = Some(loss);
        progress.message(format_args!("loss {loss:.4}"));
        progress.advance(1);
        if self.stop.load(Ordering::SeqCst) {
            return Verdict::SaveAndStop;
        }
        if self.saved.elapsed() >= INTERVAL {
            self.saved = Instant::now();
            return Verdict::Save;
        }
        Verdict::Continue
    }

    fn save(&mut self, state: StageState) -> Result<(), String> {
        save_state(&self.states, state).map_err(|error| format!("{error:#}"))
    }
}

/// Saves a state in the place of the one before it.
fn save_state(states: &StateFolders, state: StageState) -> anyhow::Result<()> {
    let updates = state.step as usize;
    states.save(updates, 1, |folder| Ok(write_state(&folder.join(TENSORS), state)?))
}

fn write_state(path: &Path, state: StageState) -> Result<(), FormatError> {
    let vector = |values: Vec<f32>| {
        let length = values.len();
        TensorData::new(values, [length])
    };
    let [param, first, second] = KINDS;
    let mut tensors = vec![(STEP.to_owned(), vector(vec![state.step as f32]))];
    for (name, values) in state.parameters {
        tensors.push((format!("{param}{name}"), vector(values)));
    }
    for (name, values) in state.muon.momentum {
        tensors.push((format!("{MOMENTUM}{name}"), vector(values)));
    }
    for (name, moments) in state.adamw.moments {
        tensors.push((format!("{first}{name}"), vector(moments.first)));
        tensors.push((format!("{second}{name}"), vector(moments.second)));
    }
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(path, tensors, StoredDtype::F32)
}

fn read_state(path: &Path, config: &StageConfig) -> anyhow::Result<StageState> {
    let file = MappedFile::open(path)?;
    let (adamw, muon) = (config.adamw(), config.muon());
    let mut state = StageState { step: 0, parameters: BTreeMap::new(), adamw, muon };
    for key in file.keys() {
        let tensor = file.tensor(&key).expect("the key is the file's own");
        let values = tensor
            .to_f32(tensor.shape())
            .and_then(|data| data.try_into_vec::<f32>().ok())
            .ok_or_else(|| damaged(path, &key))?;
        let [param, first, second] = KINDS;
        if key == STEP {
            state.step = *values.first().ok_or_else(|| damaged(path, &key))? as u64;
        } else if let Some(name) = key.strip_prefix(param) {
            state.parameters.insert(name.to_owned(), values);
        } else if let Some(name) = key.strip_prefix(MOMENTUM) {
            state.muon.momentum.insert(name.to_owned(), values);
        } else if let Some(name) = key.strip_prefix(first) {
            state.adamw.moments.entry(name.to_owned()).or_default().first = values;
        } else if let Some(name) = key.strip_prefix(second) {
            state.adamw.moments.entry(name.to_owned()).or_default().second = values;
        } else {
            return Err(damaged(path, &key).into());
        }
    }
    state.adamw.step = state.step;
    // Every parameter that this optimiser has is updated in every step.
    state.adamw.moments.values_mut().for_each(|moments| moments.steps = state.step);
    Ok(state)
}

fn damaged(path: &Path, key: &str) -> FormatError {
    let reason = format!("`{key}` is not part of a saved training state");
    FormatError::Weights { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use fisao_formats::checkpoint::named_tensors;
    use fisao_formats::tokenizer::HfTokenizer;
    use fisao_models::clip::Clip;
    use fisao_scenes::World;
    use fisao_scenes::recipe::vocabularies::clip_tokenizer;
    use fisao_scenes::recipe::{RecipeConfig, RecipeError, Start, contrastive};

    /// Stops after some update and keeps the state.
    struct Stopping<'a> {
        after: u64,
        states: &'a StateFolders,
    }

    impl Observer for Stopping<'_> {
        fn progress(&mut self, at: StageProgress) -> Verdict {
            if at.step == self.after { Verdict::SaveAndStop } else { Verdict::Continue }
        }

        fn save(&mut self, state: StageState) -> Result<(), String> {
            save_state(self.states, state).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn resumed_stage_equals_an_uninterrupted_one_bit_for_bit() {
        let mut config = RecipeConfig::default();
        config.contrastive = StageConfig { steps: 4, batch: 2, warmup: 1, ..config.contrastive };
        let world = World::new();
        let file = clip_tokenizer(&world, config.seed).unwrap();
        let tokenizer = HfTokenizer::from_json(&file.json.to_string()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let states = states_in(folder.path().join("state-clip"));
        let quiet = Reporter::silent();
        let load =
            || states.load(&quiet, |folder| read_state(&folder.join(TENSORS), &config.contrastive));
        let train = |state: Option<StageState>, after| -> Result<Clip, RecipeError> {
            let mut observer = Stopping { after, states: &states };
            let device = Device::flex();
            contrastive::train_clip(
                &config,
                &world,
                &file,
                &tokenizer,
                &device,
                state.map_or(Start::Random, Start::Saved),
                &mut observer,
            )
        };
        let uninterrupted = named_tensors(&train(None, u64::MAX).unwrap());
        assert!(matches!(train(None, 2), Err(RecipeError::Stopped { step: 2 })));
        let state = load().unwrap().unwrap();
        assert_eq!((state.step, state.adamw.step), (2, 2));
        let resumed = named_tensors(&train(Some(state), u64::MAX).unwrap());
        for ((name, expected), (_, found)) in uninterrupted.iter().zip(&resumed) {
            assert_eq!(expected.as_bytes(), found.as_bytes(), "{name}");
        }
        // A bit of a weight, which makes another weight and no broken file.
        let file = states.folder(2).join(TENSORS);
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(read_state(&file, &config.contrastive).is_ok());
        let error = load().map(|_| ()).unwrap_err().to_string();
        let said =
            format!("{} is damaged: its bytes are not those that were saved", file.display());
        assert_eq!(error, said);
    }
}
