//! Calibrating a verifier for one model: what scores of correct and hallucinated mentions look like.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use fisao_align::mentions::MentionScorer;
use fisao_align::tasks::TaskSource as _;
use fisao_align::{AlignConfig, AlignError, StopFlag};
use fisao_eval::chair::Rules;
use fisao_formats::data_record::DataRecord;
use fisao_formats::data_record::{FileDigests, RowDigest};
use fisao_formats::documents::check_output_file;
use fisao_formats::weights::LoadDtype;
use fisao_models::generation::Sampling;
use fisao_verifier::calibration::Calibration;

use crate::bundle::{ModelSource, Pair, PairSource, Policy, warn_of_photographs};
use crate::calibrations::{self, Setting};
use crate::device::DeviceChoice;
use crate::failure::told;
use crate::found_vocabulary::{self, FoundVocabulary};
use crate::ground_truth::{self, Annotations};
use crate::reporter::Reporter;
use crate::response_file::ResponseFile;
use crate::score_settings::ScoreSettings;
use crate::scored_captions::Captioning;
use crate::stop::StopSource;
use crate::tasks::{DamagedImages, ImageTasks, checked_images};
use crate::text_cache;
use crate::vocabulary::{self, Vocabulary};

/// What is to be calibrated, and on what.
#[derive(Clone, Debug)]
pub struct CalibrateRequest {
    /// Settings of the score, and of the run that is to come.
    pub config: AlignConfig,
    /// The model whose captions are scored, and the verifier.
    pub pair: PairSource,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Folder of the images to caption.
    pub images: PathBuf,
    /// What is done about images that cannot be used.
    pub damaged: DamagedImages,
    /// Objects of the images; without them the split of the scores is estimated.
    pub annotations: Option<PathBuf>,
    /// File or name of the list of objects.
    pub vocabulary: Option<PathBuf>,
    /// What is asked about each image.
    pub prompt: String,
    /// How captions are sampled.
    pub sampling: Sampling,
    /// File of the calibration.
    pub output: PathBuf,
}

/// What the captions depend on.
fn record(
    request: &CalibrateRequest,
    policy: &Policy,
    source: &ImageTasks<'_>,
    reporter: &Reporter,
) -> anyhow::Result<DataRecord> {
    let mut files = FileDigests::default();
    files.read((0..source.count()).map(|at| source.file(at)))?;
    let rows =
        (0..source.count()).map(|at| RowDigest::new([source.id(at)], files.of(source.file(at))));
    let Sampling { max_new_tokens, temperature, seed } = request.sampling;
    let adapter =
        policy.adapter_identity(reporter)?.map_or_else(String::new, |adapter| adapter.sha256);
    Ok(DataRecord::new(rows.collect())
        .with_input("version of fisao", env!("CARGO_PKG_VERSION"))
        .with_input("model", policy.identity(reporter)?.sha256)
        .with_input("adapter", adapter)
        .with_input("precision (--dtype, --activation-dtype)", precision(&request.pair.model))
        .with_input("prompt (--prompt)", &request.prompt)
        .with_input("length (--max-new-tokens)", max_new_tokens.to_string())
        .with_input("temperature (--temperature)", temperature.to_string())
        .with_input("seed (--seed)", seed.to_string()))
}

/// As records have it.
fn precision(model: &ModelSource) -> String {
    let weights = match model.dtype {
        LoadDtype::AsStored => "Auto".to_owned(),
        converted => format!("{converted:?}"),
    };
    format!("{weights}, activations {:?}", model.activation_dtype)
}

/// What the user is told after Ctrl-C. Whatever else went wrong would go wrong again with the same responses, but for a full disk.
fn stopped(error: anyhow::Error, kept: ResponseFile) -> anyhow::Error {
    let message = format!(
        "stopped; the responses so far are kept in {}, and the same command resumes",
        kept.path().display()
    );
    if !matches!(error.downcast_ref(), Some(AlignError::Stopped | AlignError::Unkept(_))) {
        kept.finish();
    }
    told(error, || message)
}

/// Captions images and calibrates the verifier on what the captions name; writes the calibration. Responses are kept beside it on the
/// way, and a raised flag ends the work after its current step.
///
/// # Errors
/// [`Interrupted`](crate::failure::Interrupted) where the flag was raised. Otherwise what cannot be used, or what failed.
pub fn calibrate(
    request: &CalibrateRequest,
    stop: StopSource<'_>,
    reporter: &Reporter,
) -> anyhow::Result<Calibration> {
    check_output_file(&request.output)?;
    let folder = std::slice::from_ref(&request.images);
    let images = checked_images(folder, request.damaged, reporter)?;
    let opened = request.device.open(reporter)?;
    let score = ScoreSettings::of_run(&request.config);
    let Pair { policy, verifier: loaded, views } =
        Pair::open(&request.pair, score, &opened, reporter)?;
    let embedded = policy.is_embedded();
    warn_of_photographs(embedded, images.iter().map(|image| image.size), reporter);
    let named = request.vocabulary.as_deref();
    let finds = vocabulary::is_automatic(named);
    // Of a list that is to be found, what annotations use.
    let mut words = Vocabulary::chosen(named.filter(|_| !finds), embedded, None)?;
    let truth = match &request.annotations {
        Some(path) => {
            let (files, vocabulary) = (std::slice::from_ref(path), words.for_chair()?);
            let truth = ground_truth::read(files, Rules::Strict, &vocabulary, reporter)?;
            Some(Annotations::new(truth))
        }
        None => None,
    };
    let tokenizer = Arc::clone(&policy.tokenizer);
    let mut scorer = if finds {
        MentionScorer::of_nothing(tokenizer, loaded.verifier.clone())
    } else {
        text_cache::scorer(&loaded, tokenizer, &words, reporter)?
    };
    let source = ImageTasks::new(&policy, images, &request.prompt)?.with_verifier(views);
    let views = |at| Ok(source.task_with(at, Some(&loaded.views))?.verifier_images);
    loaded.report_drift(source.count(), &views, reporter)?;
    policy.check_length(source.longest_prompt(), request.sampling.max_new_tokens)?;
    let truth: Option<Vec<BTreeSet<String>>> = truth
        .as_ref()
        .map(|truth| (0..source.count()).map(|at| truth.objects_of(&source.id(at))).collect())
        .transpose()?;
    let stop = StopFlag::new(stop()?);
    let record = record(request, &policy, &source, reporter)?;
    let kept = ResponseFile::open(&request.output, record, |at| source.id(at), reporter)?;
    let captioning = Captioning {
        model: &policy.model,
        source: &source,
        sampling: &request.sampling,
        length: source.longest_prompt() + request.sampling.max_new_tokens,
        cache_mb: request.config.align.feature_cache_mb,
        kept: Some(&kept),
        stop: &stop,
        team: policy.team(request.config.align.exact),
        reporter,
    };
    let mut work = || {
        let mut scored = captioning.captions("caption", &mut scorer)?;
        if finds {
            let labelled = truth.as_ref().map(|_| &words);
            let found = FoundVocabulary::of_captions(&captioning, &scored, &scorer, labelled)?;
            found.write(&found_vocabulary::beside(&request.output), reporter)?;
            words = found.into_words();
            scorer = text_cache::scorer(&loaded, Arc::clone(&scorer.tokenizer), &words, reporter)?;
            scored.read_again(&mut scorer)?;
        }
        let calibration = captioning.calibrate(&mut scored, truth.as_deref(), &mut scorer)?;
        anyhow::Ok((calibration, scored.images))
    };
    let (mut calibration, images) = match work() {
        Ok(found) => found,
        Err(error) => return Err(stopped(error, kept)),
    };
    let setting = Setting { verifier: &loaded, vocabulary: &words };
    setting.sign(&mut calibration, &policy, &images, reporter)?;
    calibrations::write(&request.output, &calibration)?;
    kept.finish();
    Ok(calibration)
}
