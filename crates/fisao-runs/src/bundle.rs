//! Models with everything that goes with them, from a folder or from the command itself.

mod identity;
mod verifier;
mod wanted;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use burn::tensor::Device;
use fisao_align::tasks::{Answer, Task};
use fisao_align::team::{Processes, Team};
use fisao_formats::FormatError;
use fisao_formats::adapter::{Adapter, VisionAdapter};
use fisao_formats::chat_template::PromptPart;
use fisao_formats::checkpoint::{Checkpoint, Loaded};
use fisao_formats::weights::LoadDtype;
use fisao_models::generation::Generated;
use fisao_models::image::{ImageProcessor, PixelValues, ProcessorMismatch};
use fisao_models::linear::ActivationDtype;
use fisao_models::text::{DecodedText, TextError, Tokenizer};
use fisao_models::vision::VisionConfig;
use fisao_models::vision_language::{FamilyConfig, ImagePlace, VisionLanguageModel};
use fisao_scenes::{IMAGE_SIZE, WorldKind};
use fisao_verifier::calibration::ModelIdentity;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub use identity::Origin;
pub use verifier::{AloneSource, LoadedVerifier, Views, load_verifier, verifier_or_embedded};
pub(crate) use wanted::Wanted;
pub use wanted::open_wanted;

use crate::device::{OpenDevice, check_precision};
use crate::failure::Refusal;
use crate::model_location::{LocatedModel, ModelLocation, Role};
use crate::processes::Opening;
use crate::prompt::{EncodedPrompt, Prompt, PromptFormat};
use crate::reporter::Reporter;
use crate::score_settings::ScoreSettings;
use crate::verifier_choice::{VerifierSource, matching_verifier};

/// How messages and reports call a world; the clear one's name is what it was before there was another.
pub const fn title(world: WorldKind) -> &'static str {
    match world {
        WorldKind::Clear => "built-in synthetic dataset",
        WorldKind::Hard => "embedded hard world",
    }
}

/// Which model generates, and how it is loaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ModelSource {
    /// The checkpoint; the embedded one if there is none.
    pub model: Option<ModelLocation>,
    /// A LoRA adapter to put on the model.
    pub adapter: Option<ModelLocation>,
    /// What is done with an adapter's matrices of the vision tower.
    pub vision_adapter: VisionAdapter,
    /// Precision in which weights are held; embedded ones are held in f32.
    pub dtype: LoadDtype,
    /// What activations are multiplied as with weights held in bf16.
    pub activation_dtype: ActivationDtype,
}

/// A model, and what verifies it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PairSource {
    /// The model.
    pub model: ModelSource,
    /// The verifier; if there is none, the embedded one beside an embedded model, else what
    /// [goes with](matching_verifier) the model.
    pub verifier: Option<VerifierSource>,
    /// Whether the verifier's vision tower may be another than the model's own.
    pub allow_mismatched_verifier: bool,
    /// Whose embedded models are meant.
    pub world: WorldKind,
}

impl PairSource {
    /// The verifier that was named, or else what goes with the model that was, by its configuration alone, which is said. `None` of
    /// the embedded models.
    fn verifier(&self, reporter: &Reporter) -> anyhow::Result<Option<VerifierSource>> {
        match (&self.verifier, &self.model.model) {
            (Some(named), _) => Ok(Some(named.clone())),
            (None, None) => Ok(None),
            (None, Some(model)) => {
                let checkpoint = model.checkpoint(reporter)?;
                let choice = matching_verifier(checkpoint.vision_language_config()?);
                Ok(Some(choice.told(reporter)))
            }
        }
    }
}

/// A token of a response.
#[derive(Debug, Serialize)]
pub struct SpelledToken {
    /// Its id.
    pub id: u32,
    /// What it spells in the text; empty for the end token.
    pub text: String,
    /// Natural logarithm of its probability when it was chosen.
    pub logprob: f32,
}

/// A model that describes images.
#[derive(Clone)]
pub struct Policy {
    /// The model, with its adapter if it was given one.
    pub model: VisionLanguageModel,
    /// Its tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// That of its image encoder, where it reads what is asked.
    instruction_tokenizer: Option<Arc<dyn Tokenizer>>,
    /// How it wants its images prepared.
    pub processor: ImageProcessor,
    /// How it wants to be spoken to.
    pub format: PromptFormat,
    /// The folder it came from, for reports and adapters.
    pub name: String,
    /// Where its content can be looked up.
    origin: Origin,
    /// The same of its adapter.
    adapter: Option<Origin>,
    /// What the adapter says it was trained on.
    adapter_base: Option<String>,
    /// Those that have opened the same models.
    pub processes: Option<Arc<Processes>>,
}

impl Policy {
    /// Loads a checkpoint folder, and an adapter on top.
    pub fn load(
        folder: &Path,
        adapter: Option<(&Path, VisionAdapter)>,
        dtype: LoadDtype,
        device: &Device,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = checkpoint.vision_language_config()?.family();
        let processor = checkpoint.image_processor()?;
        check_processor(folder, &processor, config)?;
        check_precision(&checkpoint, dtype, device, reporter)?;
        let tokenizer = checkpoint.tokenizer()?;
        let own = checkpoint.instruction_tokenizer()?;
        let instruction_tokenizer = own.map(|tokenizer| Arc::new(tokenizer) as Arc<dyn Tokenizer>);
        let started = Instant::now();
        let Loaded { mut model, unused } = checkpoint.load_vision_language(dtype, device)?;
        tracing::debug!(seconds = started.elapsed().as_secs_f64(), "model loaded");
        warn_of_unused(folder, &unused, reporter);
        let unheeded = checkpoint.unheeded_generation()?;
        if !unheeded.is_empty() {
            reporter.warn(
                format!("generation_config.json sets {}, which is not followed", unheeded.join(", ")),
                Some("captions are those of the model itself; transformers applies these settings on top"),
            );
        }
        let mut adapter_base = None;
        if let Some((path, vision)) = adapter {
            let adapter = Adapter::read(path)?;
            adapter_base = adapter.base_model().map(str::to_owned);
            adapter.apply(&mut model, path, vision)?;
        }
        let origin = Origin::of(folder);
        let adapter = adapter.map(|(adapter, _)| Origin::of(adapter));
        let format = PromptFormat::read(folder, &tokenizer, model.config().family())?;
        let tokenizer = Arc::new(tokenizer);
        let name = folder.display().to_string();
        Ok(Self {
            model,
            tokenizer,
            instruction_tokenizer,
            processor,
            format,
            name,
            origin,
            adapter,
            adapter_base,
            processes: None,
        })
    }

    /// Loads a checkpoint from a folder or the Hub, under the name it was asked for by.
    pub fn located(
        model: &ModelLocation,
        adapter: Option<(&Path, VisionAdapter)>,
        dtype: LoadDtype,
        device: &Device,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let LocatedModel { folder, name } = model.locate(Role::Model, reporter)?;
        let policy = Self { name, ..Self::load(&folder, adapter, dtype, device, reporter)? };
        policy.warn_of_another_base(reporter);
        Ok(policy)
    }

    /// Loads the checkpoint that was named, or the embedded one.
    pub fn open(
        source: &ModelSource,
        world: WorldKind,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let device = &opened.device;
        let adapter = source.adapter.as_ref();
        let adapter = adapter.map(|place| place.locate(Role::Adapter, reporter)).transpose()?;
        let vision = source.vision_adapter;
        let adapter = adapter.as_ref().map(|adapter| (adapter.folder.as_path(), vision));
        let mut policy = if let Some(model) = &source.model {
            Self::located(model, adapter, source.dtype, device, reporter)?
        } else {
            let title = title(world);
            reporter.note(format_args!("no --model given: using the {title}'s small model"));
            embedded(world)?.policy(adapter, device, reporter)?
        };
        if source.activation_dtype == ActivationDtype::Bf16
            && policy.model.set_activation_dtype(ActivationDtype::Bf16) == 0
        {
            let name = &policy.name;
            bail!(
                Refusal::new(format!(
                    "--activation-dtype bf16 changes nothing: {name} has no weight held in bf16"
                ))
                .hint("add --dtype bf16, or leave it out")
            );
        }
        opened.copy_model(&mut policy.model, reporter)?;
        Ok(policy)
    }

    /// [Opens](Self::open) it, also in the other processes of the command.
    pub fn open_shared(
        source: &ModelSource,
        world: WorldKind,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let wanted = Wanted::Model(source.clone(), world);
        let opening = Opening::begin(&wanted, opened)?;
        let policy = Self::open(source, world, opened, reporter)?;
        Ok(Self { processes: opening.finish()?, ..policy })
    }

    /// An adapter fits every model of the same shape, and is of use to one.
    fn warn_of_another_base(&self, reporter: &Reporter) {
        let last = |name: &str| name.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
        let base = self.adapter_base.as_deref().filter(|base| !base.is_empty());
        if let Some(base) = base.filter(|base| last(base) != last(&self.name)) {
            reporter.warn(
                format!("the adapter was trained on {base}, and this is {}", self.name),
                Some("if that is another model under the same shape, the adapter does harm"),
            );
        }
    }

    /// How work with it is shared; see [`Team::of`].
    pub fn team(&self, exact: bool) -> Option<Team<'_>> {
        Team::of(self.processes.as_deref(), exact)
    }

    /// Whether it is one of those that come with the command.
    pub fn is_embedded(&self) -> bool {
        self.origin.is_embedded()
    }

    /// Name and content of the checkpoint.
    pub fn identity(&self, reporter: &Reporter) -> anyhow::Result<ModelIdentity> {
        self.origin.identity(Some(&self.name), reporter)
    }

    /// Name and content of the adapter, if there is one.
    pub fn adapter_identity(&self, reporter: &Reporter) -> anyhow::Result<Option<ModelIdentity>> {
        self.adapter.as_ref().map(|adapter| adapter.identity(None, reporter)).transpose()
    }

    /// Where the adapter lies, if there is one.
    pub fn adapter_name(&self) -> Option<String> {
        self.adapter.as_ref().map(|adapter| adapter.folder().display().to_string())
    }

    /// Digest that tells the checkpoint from another, of its settings and of a sample of its weights.
    pub fn sample(&self) -> Result<String, FormatError> {
        self.origin.sample()
    }

    /// Token ids of a prompt, with one placeholder for the image; see [`PromptFormat::prompt`].
    pub fn prompt(&self, text: &str) -> anyhow::Result<EncodedPrompt> {
        self.encoded(self.format.prompt(text)?)
    }

    /// The same for several images and what is said about them, in this order.
    ///
    /// # Errors
    /// As [`Policy::prompt`]; there are several images, and the model was not trained on such prompts.
    pub fn question(&self, parts: &[PromptPart<'_>]) -> anyhow::Result<EncodedPrompt> {
        let shown = parts.iter().filter(|part| **part == PromptPart::Image).count();
        let family = self.model.config().family();
        if shown > 1 && !family.shows_several_images() {
            bail!(
                Refusal::new(format!(
                    "the prompt shows {shown} images, and `{}` models were trained on one",
                    family.model_type()
                ))
                .hint("ask about one image; SmolVLM, Qwen2.5-VL and Qwen3-VL take several")
            );
        }
        self.encoded(self.format.question(parts)?)
    }

    fn encoded(&self, prompt: Prompt) -> anyhow::Result<EncodedPrompt> {
        let Prompt { text, add_special_tokens } = prompt;
        let mut ids = self.tokenizer.encode(&text, add_special_tokens)?;
        if self.format.image_place() == ImagePlace::BeforeText {
            ids.insert(0, self.model.tokens().image);
        }
        let instruction = match &self.instruction_tokenizer {
            Some(tokenizer) => tokenizer.encode(&text, true)?,
            None => Vec::new(),
        };
        Ok(EncodedPrompt { ids, instruction })
    }

    /// Token ids of a whole response, the end token last.
    pub fn response(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut tokens = self.tokenizer.encode(text, false)?;
        tokens.push(self.model.tokens().eos);
        Ok(tokens)
    }

    /// The text of a response, and what each of its tokens spells.
    pub fn spelled(&self, response: &Generated) -> Result<(String, Vec<SpelledToken>), TextError> {
        let DecodedText { text, spans } = self.tokenizer.decode(&response.tokens)?;
        let tokens = response.tokens.iter().zip(&response.logprobs).zip(spans);
        let spelled = |((&id, &logprob), span): ((&u32, &f32), Range<usize>)| SpelledToken {
            id,
            text: text[span].to_owned(),
            logprob,
        };
        let tokens = tokens.map(spelled).collect();
        Ok((text, tokens))
    }

    /// Positions that a prompt of this length leaves for a response.
    pub fn room(&self, prompt: usize) -> usize {
        let context = self.model.language_model().config().max_position_embeddings;
        context.saturating_sub(prompt)
    }

    /// Refuses a length that the model's positions do not reach. `prompt` is the length of the longest
    /// prompt with its image, tokens.
    pub fn check_length(&self, prompt: usize, max_new_tokens: usize) -> anyhow::Result<()> {
        let context = self.model.language_model().config().max_position_embeddings;
        let room = self.room(prompt);
        if max_new_tokens > room {
            bail!(
                Refusal::new(format!(
                    "{max_new_tokens} new tokens do not fit: the prompt with its image takes {prompt} \
                     of the model's {context} positions"
                ))
                .hint(format!("ask for at most --max-new-tokens {room}, or shorten the prompt"))
            );
        }
        Ok(())
    }

    /// One image with one prompt, whose placeholder is expanded.
    ///
    /// # Errors
    /// See [`FamilyConfig::expand_image_token`].
    pub fn task(
        &self,
        id: String,
        image: &RgbImage,
        prompt: &EncodedPrompt,
    ) -> Result<Task, TextError> {
        self.task_about(id, [image], prompt)
    }

    /// Images that one prompt shows, at least one, in the order of their placeholders, which are expanded.
    ///
    /// # Errors
    /// See [`FamilyConfig::expand_image_tokens`].
    pub fn task_about<'a>(
        &self,
        id: String,
        images: impl IntoIterator<Item = &'a RgbImage>,
        prompt: &EncodedPrompt,
    ) -> Result<Task, TextError> {
        let mut images = images.into_iter().map(|image| self.processor.process(image));
        let image = images.next().expect("a prompt shows an image");
        let further_images: Vec<PixelValues> = images.collect();
        let EncodedPrompt { ids, instruction } = prompt;
        let shown = [&image].into_iter().chain(&further_images);
        let sizes: Vec<(u32, u32)> = shown.map(|image| image.original_size).collect();
        let prompt = self.model.config().family().expand_image_tokens(ids, &sizes)?;
        let (verifier_images, answer) = (Vec::new(), Answer::None);
        let instruction = instruction.clone();
        Ok(Task { id, image, further_images, verifier_images, prompt, instruction, answer })
    }
}

/// A model and its verifier, with what the verifier needs of images besides the model's own pixels.
pub struct Pair {
    /// The model.
    pub policy: Policy,
    /// What verifies it.
    pub verifier: LoadedVerifier,
    /// What the verifier needs of images besides the model's own pixels.
    pub views: Option<Views>,
}

impl Pair {
    /// Loads the two that were named, or the embedded ones.
    pub fn open(
        source: &PairSource,
        settings: ScoreSettings,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let wanted = Wanted::Pair(source.clone(), settings.clone());
        let opening = Opening::begin(&wanted, opened)?;
        let device = &opened.device;
        let (world, allow) = (source.world, source.allow_mismatched_verifier);
        let load = |verifier: Option<&ModelLocation>| {
            verifier_or_embedded(verifier, world, settings.clone(), device, reporter)
        };
        // First, as it is small: a name that leads nowhere is found before a large model is fetched.
        let contrastive = match source.verifier(reporter)? {
            None => Some(load(None)?),
            Some(VerifierSource::Checkpoint(location)) => Some(load(Some(&location))?),
            Some(VerifierSource::Decoder) => None,
        };
        let mut policy = Policy::open(&source.model, world, opened, reporter)?;
        let mut verifier = match contrastive {
            Some(verifier) => verifier,
            None => LoadedVerifier::of_decoder(&policy, settings)?,
        };
        let views = verifier.views_beside(&policy, allow, reporter)?;
        verifier.use_card(Some(&policy), opened, reporter)?;
        policy.processes = opening.finish()?;
        Ok(Self { policy, verifier, views })
    }
}

/// What to do instead of showing photographs to embedded models.
pub const NAME_MODELS: &str = "name a model with --model, and a verifier with --verifier";

/// What embedded models cannot do.
pub fn embedded_remark() -> String {
    format!(
        "the built-in model was trained on drawn scenes of {IMAGE_SIZE} × {IMAGE_SIZE} pixels: what it says of \
         photographs means nothing"
    )
}

/// Warns when embedded models are shown images that cannot be scenes of theirs. `sizes` are width and height in pixels.
pub fn warn_of_photographs(
    embedded: bool,
    sizes: impl IntoIterator<Item = (u32, u32)>,
    reporter: &Reporter,
) {
    let other = |&size: &(u32, u32)| size != (IMAGE_SIZE, IMAGE_SIZE);
    if let Some((width, height)) = sizes.into_iter().find(other).filter(|_| embedded) {
        reporter.warn(
            format!(
                "the embedded model was trained on drawn scenes of {IMAGE_SIZE} × {IMAGE_SIZE} pixels, and an image has \
                 {width} × {height}: what it says of photographs means nothing"
            ),
            Some(NAME_MODELS),
        );
    }
}

/// The models that come with the command, unpacked for as long as this lives.
#[derive(Debug)]
pub struct EmbeddedModels {
    world: WorldKind,
    folder: Arc<TempDir>,
}

/// Name and content of a checkpoint's files.
type Files = &'static [(&'static str, &'static [u8])];

/// Folders of a world's embedded models, with their files.
fn assets(world: WorldKind) -> [(&'static str, Files); 2] {
    match world {
        WorldKind::Clear => [("llava", fisao_demo_llava::FILES), ("clip", fisao_demo_clip::CLEAR)],
        WorldKind::Hard => {
            [("llava", fisao_demo_llava_hard::FILES), ("clip", fisao_demo_clip::HARD)]
        }
    }
}

/// Name of one of a world's embedded models; those of the clear world keep what they were called before there was another.
pub fn embedded_name(world: WorldKind, model: &str) -> String {
    match world {
        WorldKind::Clear => format!("fisao-embedded-{model}"),
        WorldKind::Hard => format!("fisao-embedded-hard-{model}"),
    }
}

/// Unpacks a world's models, which come with the command, into a temporary folder.
pub fn embedded(world: WorldKind) -> anyhow::Result<EmbeddedModels> {
    let unpacking = "cannot unpack the embedded models";
    let folder = tempfile::Builder::new().prefix("fisao-").tempdir().context(unpacking)?;
    for (model, files) in assets(world) {
        let folder = folder.path().join(model);
        fs::create_dir_all(&folder).context(unpacking)?;
        for (name, content) in files {
            fs::write(folder.join(name), content).context(unpacking)?;
        }
    }
    Ok(EmbeddedModels { folder: Arc::new(folder), world })
}

impl EmbeddedModels {
    /// Folder of the LLaVA checkpoint.
    pub fn llava(&self) -> PathBuf {
        self.folder.path().join("llava")
    }

    /// Folder of the CLIP checkpoint.
    pub fn clip(&self) -> PathBuf {
        self.folder.path().join("clip")
    }

    /// The model, under a name that outlives the temporary folder.
    pub fn policy(
        &self,
        adapter: Option<(&Path, VisionAdapter)>,
        device: &Device,
        reporter: &Reporter,
    ) -> anyhow::Result<Policy> {
        let policy = Policy::load(&self.llava(), adapter, LoadDtype::F32, device, reporter)?;
        let origin = policy.origin.unpacked(&self.folder);
        let policy = Policy { name: embedded_name(self.world, "llava"), origin, ..policy };
        policy.warn_of_another_base(reporter);
        Ok(policy)
    }

    /// Its verifier.
    pub fn verifier(
        &self,
        settings: ScoreSettings,
        device: &Device,
        reporter: &Reporter,
    ) -> anyhow::Result<LoadedVerifier> {
        let loaded = load_verifier(&self.clip(), settings, LoadDtype::F32, device, reporter)?;
        Ok(loaded.unpacked(&embedded_name(self.world, "clip"), &self.folder))
    }
}

/// Tensors that nothing asked for mean that the checkpoint is not quite what it is taken for.
fn warn_of_unused(folder: &Path, unused: &[String], reporter: &Reporter) {
    let Some(first) = unused.first() else { return };
    let (folder, count) = (folder.display(), unused.len());
    reporter.warn(
        format!("{folder}: {count} of its tensors are not used, first `{first}`"),
        Some("the model may compute something else than it was made for; see `fisao inspect`"),
    );
}

/// Image processing that yields something else than the model takes is a folder put together wrongly.
pub fn check_processor(
    folder: &Path,
    processor: &ImageProcessor,
    config: &dyn FamilyConfig,
) -> anyhow::Result<()> {
    config.check_processor(processor).map_err(|mismatch| mismatched(folder, &mismatch).into())
}

/// The same for a contrastive model's tower.
pub fn check_size(
    folder: &Path,
    processor: &ImageProcessor,
    vision: &VisionConfig,
) -> anyhow::Result<()> {
    let checked = processor.check_size(vision.image_size as u32);
    checked.map_err(|mismatch| mismatched(folder, &mismatch).into())
}

fn mismatched(folder: &Path, mismatch: &ProcessorMismatch) -> Refusal {
    Refusal::new(format!("{}: {mismatch}", folder.display()))
        .hint("preprocessor_config.json and config.json must come from the same model")
}
