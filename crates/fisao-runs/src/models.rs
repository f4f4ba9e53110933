//! What a run is made with: a model, its verifier, and the objects that are looked for.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::{self, Display};
use std::path::Path;

use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::run_control::ResponseStore;
use fisao_align::tasks::TaskSource;
use fisao_align::{AlignConfig, AlignError, StopFlag};
use fisao_formats::adapter::Adapter;
use fisao_formats::digest::sha256_tensors;
use fisao_models::generation::Sampling;
use fisao_models::lora::LoraConfig;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::calibration::Calibration;

use crate::bundle::{LoadedVerifier, Policy};
use crate::calibrations::Setting;
use crate::reporter::Reporter;
use crate::response_file::{ResponseFile, record_of};
use crate::scored_captions::{Captioning, ScoredCaptions};
use crate::vocabulary::Vocabulary;

/// A model, its verifier, and the objects that are looked for.
pub(crate) struct Models<'a> {
    /// The model.
    pub policy: &'a Policy,
    /// Its verifier.
    pub verifier: &'a LoadedVerifier,
    /// The objects' names.
    pub words: &'a Vocabulary,
    /// Those that annotations use and rates are measured by: the same, but where `words` were found in captions.
    pub measured_words: &'a Vocabulary,
    /// Reads responses; not calibrated.
    pub scorer: MentionScorer,
}

/// Images that are captioned, with what is known to be in them.
pub(crate) struct ImageSet<'a> {
    /// The images under their prompts.
    pub tasks: &'a dyn TaskSource,
    /// The objects of each image, of those that are annotated; `None` where annotations are not to be used.
    pub truth: Option<Vec<Option<BTreeSet<String>>>>,
}

impl ImageSet<'_> {
    /// Number of images that are annotated.
    pub(crate) fn annotated(&self) -> usize {
        self.truth.iter().flatten().flatten().count()
    }
}

impl Models<'_> {
    /// The scorer on a calibration's scale.
    pub(crate) fn calibrated_scorer(&self, calibration: &Calibration) -> MentionScorer {
        let mut scorer = self.scorer.clone();
        scorer.verifier.apply_calibration(calibration);
        scorer
    }

    /// A file beside `output` in which responses to some tasks are kept until that is there: of the base model, or of one that
    /// an adapter was put on. Returns it with the length of the longest prompt, its image included; tokens.
    pub(crate) fn response_file(
        &self,
        output: &Path,
        (model, tasks): (&VisionLanguageModel, &dyn TaskSource),
        sampling: &Sampling,
        reporter: &Reporter,
    ) -> anyhow::Result<(ResponseFile, usize)> {
        response_file(self.policy, output, (model, tasks), sampling, reporter)
    }

    /// Estimates what scores of correct and hallucinated mentions look like from the model's own sampled captions. Responses
    /// are kept beside `output`, which is where the calibration will be, if it is given; a raised flag ends the work with
    /// [`AlignError::Stopped`]. Captions of the images that are there already are read again instead of made.
    pub(crate) fn calibrate(
        &self,
        config: &AlignConfig,
        (images, captioned): (&ImageSet<'_>, Option<ScoredCaptions>),
        kept: (Option<&Path>, &StopFlag),
        reporter: &Reporter,
    ) -> anyhow::Result<Calibration> {
        with_captioning(self.policy, config, images.tasks, kept, reporter, |captioning| {
            self.calibrate_on(captioning, (images, captioned), reporter)
        })
    }

    /// The same by captions that are made so.
    fn calibrate_on(
        &self,
        captioning: &Captioning<'_>,
        (images, captioned): (&ImageSet<'_>, Option<ScoredCaptions>),
        reporter: &Reporter,
    ) -> anyhow::Result<Calibration> {
        let mut scorer = self.scorer.clone();
        let scored = match captioned {
            Some(mut scored) => {
                scored.read_again(&mut scorer)?;
                scored
            }
            None => captioning.captions("calibrate", &mut scorer)?,
        };
        self.check_mentions(&scored.captions)?;
        let (mut scored, truth) = match &images.truth {
            Some(truth) => {
                let (scored, truth) = scored.annotated(truth);
                (scored, Some(truth))
            }
            None => (scored, None),
        };
        let mut calibration = captioning.calibrate(&mut scored, truth.as_deref(), &mut scorer)?;
        let setting = Setting { verifier: self.verifier, vocabulary: self.words };
        setting.sign(&mut calibration, self.policy, &scored.images, reporter)?;
        Ok(calibration)
    }

    /// Refuses captions that name nothing that is looked for: nothing could be calibrated, and nothing rewarded.
    fn check_mentions(&self, captions: &[ScoredResponse]) -> Result<(), NothingNamed> {
        if captions.iter().any(|caption| !caption.mentions.is_empty()) {
            return Ok(());
        }
        let texts = captions.iter().map(|caption| caption.text.trim());
        let example = texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        Err(NothingNamed {
            objects: self.words.identity().categories,
            captions: captions.len(),
            example: example.chars().take(60).collect(),
        })
    }
}

/// Captions that name no object of the vocabulary.
#[derive(Debug)]
pub(crate) struct NothingNamed {
    objects: usize,
    captions: usize,
    /// How one of them begins.
    example: String,
}

impl Display for NothingNamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { objects, captions, example } = self;
        write!(
            f,
            "none of the vocabulary's {objects} objects is named in {captions} captions, of which one begins \"{example}\""
        )
    }
}

impl Error for NothingNamed {}

/// Work on captions that the model writes of some images with a run's settings, of which responses are kept beside `output`, where it
/// is given; a raised flag ends the work with [`AlignError::Stopped`].
pub(crate) fn with_captioning<T>(
    policy: &Policy,
    config: &AlignConfig,
    tasks: &dyn TaskSource,
    (output, stop): (Option<&Path>, &StopFlag),
    reporter: &Reporter,
    work: impl FnOnce(&Captioning<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let sampling = Sampling {
        max_new_tokens: config.max_new_tokens,
        temperature: config.align.temperature,
        seed: config.seed,
    };
    let model = &policy.model;
    let open = |output| response_file(policy, output, (model, tasks), &sampling, reporter);
    let kept = output.map(open).transpose()?;
    let longest = match &kept {
        Some((_, longest)) => *longest,
        None => longest_prompt(tasks)?,
    };
    work(&Captioning {
        model,
        source: tasks,
        sampling: &sampling,
        length: longest + sampling.max_new_tokens,
        cache_mb: config.align.feature_cache_mb,
        kept: kept.as_ref().map(|(kept, _)| kept as &dyn ResponseStore),
        stop,
        team: policy.team(config.align.exact),
        reporter,
    })
}

/// See [`Models::response_file`].
pub(crate) fn response_file(
    policy: &Policy,
    output: &Path,
    (model, tasks): (&VisionLanguageModel, &dyn TaskSource),
    sampling: &Sampling,
    reporter: &Reporter,
) -> anyhow::Result<(ResponseFile, usize)> {
    let (record, longest) = record_of(tasks, sampling)?;
    let record = record
        .with_input("model", policy.identity(reporter)?.sha256)
        .with_input("adapter", adapter_digest(model));
    Ok((ResponseFile::open_or_renew(output, record, reporter)?, longest))
}

/// Length of the longest prompt of some tasks, its image included; tokens.
fn longest_prompt(tasks: &dyn TaskSource) -> Result<usize, AlignError> {
    let lengths = (0..tasks.count()).map(|at| Ok(tasks.task(at)?.prompt.len()));
    Ok(lengths.collect::<Result<Vec<_>, AlignError>>()?.into_iter().max().unwrap_or(0))
}

/// Digest of the matrices that were put on a model; of nothing where none were.
fn adapter_digest(model: &VisionLanguageModel) -> String {
    let adapter = Adapter::of(model, &LoraConfig::default(), None);
    let matrices = adapter
        .updates
        .iter()
        .flat_map(|(name, update)| [(name.as_str(), &update.a), (name.as_str(), &update.b)]);
    sha256_tensors(matrices)
}
