//! Builds a built-in synthetic dataset's model and verifier, the clear one's from nothing, the hard one's from
//! those.
//!
//! Two stages, each of which can be interrupted and resumed; a stage that is done is not done
//! again.

mod quality;
mod recipe_settings;
mod stage_monitor;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fisao_align::StopFlag;
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::checkpoint::{
    CONFIG_FILE, SpecialTokens, TOKENIZER_FILE, write_clip, write_clip_processing, write_llava,
    write_llava_processing,
};
use fisao_formats::documents::{check_output_folder, read_text};
use fisao_formats::tokenizer::HfTokenizer;
use fisao_formats::weights::LoadDtype;
use fisao_formats::weights::SafetensorsSource;
use fisao_formats::weights::StoredDtype;
use fisao_models::vision::VisionTower;
use fisao_runs::bundle::{EmbeddedModels, embedded};
use fisao_runs::device::cpu;
use fisao_runs::failure::{Interrupted, Refusal, told};
use fisao_runs::stop::StopSource;
use fisao_runs::{Reporter, locks};
use fisao_scenes::recipe::vocabularies::{
    CLIP_BOS, CLIP_EOS, LLAMA_BOS, LLAMA_EOS, LLAMA_PAD, TokenizerFile, clip_tokenizer,
    llama_tokenizer,
};
use fisao_scenes::recipe::{
    RecipeConfig, RecipeError, StageConfig, StageState, Start, captioning, contrastive,
    image_processor,
};
use fisao_scenes::{World, WorldKind};

use recipe_settings::{claim_folder, resolve};
use stage_monitor::StageMonitor;

/// Precision of the models on disk.
const DTYPE: StoredDtype = StoredDtype::F16;

/// Which models are to be built.
#[derive(Clone, Debug)]
pub struct PretrainRequest {
    /// Folder for the models; one in which the work was interrupted goes on.
    pub output: PathBuf,
    /// Of which built-in synthetic dataset.
    pub world: WorldKind,
    /// Seed of weights, scenes and captions.
    pub seed: u64,
    /// Changes to the recipe, as `key=value`.
    pub set: Vec<String>,
    /// Whether the models are measured when they are done.
    pub measure: bool,
}

/// Builds a model and its verifier, and measures them: a line for each quantity. A raised flag ends it; the state is saved then.
///
/// # Errors
/// [`Interrupted`] where the flag was raised. Otherwise what cannot be used, or what failed.
pub fn pretrain(
    request: &PretrainRequest,
    stop: StopSource<'_>,
    reporter: &Reporter,
) -> anyhow::Result<Vec<String>> {
    let world = request.world;
    let config = resolve(world, request.seed, &request.set)?;
    // What is hard to see is learned from what is clear to see: half of the way is then done already.
    let easier = (world == WorldKind::Hard).then(|| embedded(WorldKind::Clear)).transpose()?;
    check_output_folder(&request.output)?;
    claim_folder(&request.output, &config)?;
    let _lock = locks::lock(&request.output, reporter)?;
    let (output, world) = (request.output.as_path(), World::of(world));
    let pretraining = Pretraining { config, output, world, easier, stop, reporter };
    let tower = pretraining.clip()?;
    pretraining.llava(&tower)?;
    if !request.measure {
        return Ok(Vec::new());
    }
    let seed = pretraining.config.seed;
    let stop = StopFlag::new(stop()?);
    let measured = quality::report(&request.output, &pretraining.world, seed, &stop, reporter);
    measured.map_err(|error| {
        told(error, || {
            "stopped while measuring the models, which are done; the same command measures them"
                .to_owned()
        })
    })
}

struct Pretraining<'a> {
    config: RecipeConfig,
    output: &'a Path,
    world: World,
    /// The models of an easier world to begin with, if that is not random weights.
    easier: Option<EmbeddedModels>,
    stop: StopSource<'a>,
    reporter: &'a Reporter,
}

impl Pretraining<'_> {
    /// Stage 1; returns the image tower as it will be read back, rounded to the stored precision.
    fn clip(&self) -> anyhow::Result<VisionTower> {
        let folder = self.output.join("clip");
        if !self.is_done(&folder) {
            let easier = self.easier.as_ref().map(EmbeddedModels::clip);
            let file = match &easier {
                Some(folder) => tokenizer_file(folder)?,
                None => clip_tokenizer(&self.world, self.config.seed)?,
            };
            let tokenizer = HfTokenizer::from_json(&file.json.to_string())?;
            let mut monitor =
                self.monitor("clip", "stage 1: verifier", &self.config.contrastive)?;
            let state = monitor.resume()?;
            if state.is_some() {
                check_tokenizer(&folder, &tokenizer)?;
            } else {
                let special = special_tokens(CLIP_BOS, CLIP_EOS, CLIP_EOS, CLIP_EOS);
                let longest = self.config.clip(&file).text.max_position_embeddings;
                let images = image_processor();
                write_clip_processing(&folder, longest, &tokenizer, &special, &images)?;
            }
            let mut weights = easier.as_deref().map(weights).transpose()?;
            let clip = contrastive::train_clip(
                &self.config,
                &self.world,
                &file,
                &tokenizer,
                &cpu(),
                begin(state, weights.as_mut()),
                &mut monitor,
            );
            write_clip(&folder, &clip.map_err(|error| self.stopped(error))?, DTYPE)?;
            monitor.finish()?;
        }
        let clip = Checkpoint::open(&folder)?.load_clip(LoadDtype::default(), &cpu())?.model;
        Ok(clip.vision)
    }

    /// Stage 2.
    fn llava(&self, tower: &VisionTower) -> anyhow::Result<()> {
        let folder = self.output.join("llava");
        if self.is_done(&folder) {
            return Ok(());
        }
        let easier = self.easier.as_ref().map(EmbeddedModels::llava);
        let file = match &easier {
            Some(folder) => tokenizer_file(folder)?,
            None => llama_tokenizer(&self.world, self.config.seed)?,
        };
        let tokenizer = HfTokenizer::from_json(&file.json.to_string())?;
        let mut monitor = self.monitor("llava", "stage 2: model", &self.config.captioning)?;
        let state = monitor.resume()?;
        if state.is_some() {
            check_tokenizer(&folder, &tokenizer)?;
        } else {
            let special = special_tokens(LLAMA_BOS, LLAMA_EOS, LLAMA_PAD, LLAMA_PAD);
            let config = self.config.llava(tower.config().clone(), &file);
            let images = image_processor();
            write_llava_processing(&folder, &config, &tokenizer, &special, &images)?;
        }
        let mut weights = easier.as_deref().map(weights).transpose()?;
        let llava = captioning::train_llava(
            &self.config,
            &self.world,
            tower,
            &file,
            &tokenizer,
            &cpu(),
            begin(state, weights.as_mut()),
            &mut monitor,
        );
        write_llava(&folder, &llava.map_err(|error| self.stopped(error))?, DTYPE)?;
        monitor.finish()
    }

    /// `config.json` is the last file of a checkpoint to be written.
    fn is_done(&self, folder: &Path) -> bool {
        let done = folder.join(CONFIG_FILE).is_file();
        if done {
            self.reporter.note(format_args!("{} is there already", folder.display()));
        }
        done
    }

    fn monitor(
        &self,
        stage: &str,
        name: &str,
        config: &StageConfig,
    ) -> anyhow::Result<StageMonitor> {
        let states: PathBuf = self.output.join(format!("state-{stage}"));
        let stop = (self.stop)().context("cannot report the progress of training")?;
        Ok(StageMonitor::new(states, name, config, stop, self.reporter))
    }

    fn stopped(&self, error: RecipeError) -> anyhow::Error {
        match error {
            RecipeError::Stopped { step } => Interrupted {
                message: format!(
                    "stopped at update {step}; the state is saved. To resume, run the same command \
                     again with --output {}",
                    self.output.display()
                ),
            }
            .into(),
            error => error.into(),
        }
    }
}

/// The weights of a checkpoint.
fn weights(folder: &Path) -> anyhow::Result<SafetensorsSource> {
    Ok(Checkpoint::open(folder)?.weights(LoadDtype::F32)?)
}

/// What a stage begins with: its own saved state, else the weights of an easier world, else random ones.
fn begin(state: Option<StageState>, easier: Option<&mut SafetensorsSource>) -> Start<'_> {
    match (state, easier) {
        (Some(state), _) => Start::Saved(state),
        (None, Some(weights)) => Start::Weights(weights),
        (None, None) => Start::Random,
    }
}

/// The tokenizer of a checkpoint, as the recipe takes it.
fn tokenizer_file(folder: &Path) -> anyhow::Result<TokenizerFile> {
    let text = read_text("tokenizer (tokenizer.json)", &folder.join(TOKENIZER_FILE))?;
    Ok(TokenizerFile::new(serde_json::from_str(&text)?))
}

/// Refuses to go on with a tokenizer that numbers its tokens otherwise than the one a stage was begun
/// with: every embedding would stand for another token.
fn check_tokenizer(folder: &Path, tokenizer: &HfTokenizer) -> anyhow::Result<()> {
    let path = folder.join(TOKENIZER_FILE);
    let begun = HfTokenizer::open(&path)?.to_json()?;
    if begun != tokenizer.to_json()? {
        bail!(
            Refusal::new(format!(
                "the saved state was made with another tokenizer: {}",
                path.display()
            ))
            .hint("delete the output folder and start again")
        );
    }
    Ok(())
}

fn special_tokens(bos: &str, eos: &str, pad: &str, unk: &str) -> SpecialTokens {
    SpecialTokens { bos: bos.into(), eos: eos.into(), pad: pad.into(), unk: unk.into() }
}
