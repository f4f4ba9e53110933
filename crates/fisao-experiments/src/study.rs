//! What the verifier's scores are worth, measured on the model's own captions.
//!
//! Every number comes from two disjoint parts of the images: thresholds, centres and the supervised probe see the
//! calibration part, and all that is reported is measured on the test part.

mod cost;
mod document;
mod measures;
mod needs;
mod page;
mod probe;
mod sample;
mod seed;
mod signals;
mod source;
mod tables;
mod variants;

use std::path::PathBuf;

use anyhow::bail;
use fisao_formats::documents::{check_output_folder, write_bytes, write_json};
use fisao_models::generation::Sampling;
use fisao_runs::bundle::{Pair, PairSource, Policy};
use fisao_runs::device::DeviceChoice;
use fisao_runs::found_vocabulary::{self, FoundVocabulary};
use fisao_runs::score_settings::ScoreSettings;
use fisao_runs::tasks::DamagedImages;
use fisao_runs::vocabulary::{self, Vocabulary};
use fisao_runs::{Refusal, Reporter, locks, text_cache};
use fisao_verifier::regions::RegionWeights;

use self::document::{
    AucSummary, BrierSummary, CostSummary, Detection, LabelFreeSummary, SeedStudy, SpearmanSummary,
    Study,
};
use self::seed::StudyRunner;
use self::source::{Part, Source};

/// Name of what the scores of captions are compared with first.
const HALLUCINATION: &str = "fraction of correct mentions";

/// What is to be studied.
#[derive(Clone, Debug)]
pub struct StudyRequest {
    /// The model, and the verifier that is studied.
    pub pair: PairSource,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Image files with what is in them; scenes of the pair's world if there are none.
    pub images: Option<AnnotatedImages>,
    /// How captions are sampled.
    pub sampling: Sampling,
    /// How many seeds it is repeated with, from 0 on.
    pub seeds: u64,
    /// Images to calibrate on.
    pub calibration: usize,
    /// Other images to measure on; of image files at most what calibration leaves.
    pub count: usize,
    /// File or name of the list of objects.
    pub vocabulary: Option<PathBuf>,
    /// Folder of the results.
    pub output: PathBuf,
}

/// Image files with what is in them.
#[derive(Clone, Debug)]
pub struct AnnotatedImages {
    /// Folder of the images.
    pub folder: PathBuf,
    /// Objects of the images.
    pub annotations: PathBuf,
    /// Captions by people, to compare with.
    pub references: Option<PathBuf>,
    /// What is asked about each image.
    pub prompt: String,
    /// What is done about images that cannot be used.
    pub damaged: DamagedImages,
}

/// A study that is done.
#[derive(Clone, Debug)]
pub struct Studied {
    /// The few numbers that matter, as a table.
    pub summary: String,
    /// All of them as a page.
    pub page: PathBuf,
}

/// Studies the verifier, and writes numbers, tables and a page after every seed.
pub fn study_verifier(request: &StudyRequest, reporter: &Reporter) -> anyhow::Result<Studied> {
    let sampling = request.sampling.clone();
    check_output_folder(&request.output)?;
    let opened = request.device.open(reporter)?;
    let settings = ScoreSettings::default();
    let Pair { policy, verifier: loaded, views } =
        Pair::open(&request.pair, settings, &opened, reporter)?;
    if loaded.verifier.decoder().is_some() {
        bail!(
            Refusal::new("the study compares scores of a contrastive verifier, which the decoder is none")
                .hint("name one with --verifier; the study's decoder-reading says how well the decoder tells mentions apart")
        );
    }
    let scenes = request.images.is_none();
    let named = request.vocabulary.as_deref();
    let finds = vocabulary::is_automatic(named);
    let words = Vocabulary::chosen(named.filter(|_| !finds), scenes, None)?;
    let source = Source::open(request, &words, &policy, reporter)?;
    let longest = source.longest_prompt()?;
    policy.check_length(longest, sampling.max_new_tokens)?;
    let _lock = locks::lock(&request.output, reporter)?;
    let words = if finds {
        let (tasks, models) =
            (source.tasks(Part::Calibration, 0, views.as_ref()), (&policy, &loaded));
        let tasks = (tasks.as_ref(), longest);
        let found = FoundVocabulary::of_images(models, tasks, &sampling, Some(&words), reporter)?;
        found.write(&request.output.join(found_vocabulary::FILE), reporter)?;
        found.into_words()
    } else {
        words
    };
    let vocabulary = words.for_mentions()?;
    let mut known = loaded.verifier.clone();
    text_cache::learn(&loaded, &mut known, &vocabulary, reporter)?;
    // The whole image alone, until a seed has found weights.
    known.set_weights(RegionWeights::default());
    let runner = StudyRunner {
        policy: &policy,
        loaded: &loaded,
        variants: StudyRunner::variants(&loaded, &known, &vocabulary)?,
        verifier: known,
        views: views.as_ref(),
        vocabulary: &vocabulary,
        source: &source,
        sampling,
        reporter,
    };
    let (mut seeds, mut summary) = (Vec::new(), String::new());
    for seed in 0..request.seeds {
        let found = runner.seed(seed)?;
        for (labels, problem) in [
            ("with annotations", &found.calibration.annotated_problem),
            ("without labels", &found.calibration.label_free_problem),
        ] {
            if let Some(problem) = problem {
                reporter.warn(
                    format!("seed {seed}: no calibration {labels}: {problem}"),
                    Some("what follows from it is left out of the tables"),
                );
            }
        }
        seeds.push(found);
        let study = study(request, &policy, &loaded.name, &source, &seeds);
        // After every seed, so that whoever stops early keeps what there is.
        write_json(&request.output.join("study.json"), &study)?;
        let markdown = tables::markdown(&study);
        write_bytes(&request.output.join("study.md"), markdown.as_bytes())?;
        let page = page::render(&study);
        write_bytes(&request.output.join("study.html"), page.as_bytes())?;
        if seed + 1 == request.seeds {
            summary = tables::summary(&study);
        }
    }
    Ok(Studied { summary, page: request.output.join("study.html") })
}

fn study<'a>(
    request: &StudyRequest,
    policy: &Policy,
    verifier: &str,
    source: &Source<'_>,
    seeds: &'a [SeedStudy],
) -> Study<'a> {
    let over = |pick: &dyn Fn(&SeedStudy) -> Option<f64>| mean(seeds.iter().map(pick));
    let variant = |default: bool| {
        move |seed: &SeedStudy| {
            let plain = |name: &str| name == variants::PLAIN.name;
            let mut variants = seed.variants.iter();
            let found = variants.find(|v| if default { v.default } else { plain(&v.name) });
            Some(found?.detection.as_ref()?.auc)
        }
    };
    let correlation = |pick: fn(&document::Correlation) -> Option<f64>| {
        mean(seeds.iter().map(|seed| {
            let mut correlations = seed.correlations.iter();
            pick(correlations.find(|correlation| correlation.target == HALLUCINATION)?)
        }))
    };
    let probe = |seed: &SeedStudy| Some(seed.probe.as_ref()?.detection.as_ref()?.auc);
    let combined = |name: &'static str, pick: fn(&Detection) -> Option<f64>| {
        mean(seeds.iter().map(|seed| {
            let mut combined = seed.signals.combined.iter();
            pick(combined.find(|found| found.name == name)?.detection.as_ref()?)
        }))
    };
    let default_brier = |seed: &SeedStudy| {
        seed.variants.iter().find(|variant| variant.default)?.detection.as_ref()?.brier
    };
    let worst = |pick: fn(&SeedStudy) -> Option<f64>| {
        // One seed without an estimate leaves the whole without one.
        let found: Option<Vec<f64>> = seeds.iter().map(pick).collect();
        found?.into_iter().reduce(f64::max)
    };
    Study {
        schema: 1,
        fisao: env!("CARGO_PKG_VERSION").to_owned(),
        model: policy.name.clone(),
        verifier: verifier.to_owned(),
        images: source.name(),
        temperature: request.sampling.temperature,
        auc: AucSummary {
            plain: over(&variant(false)),
            default: over(&variant(true)),
            probe: over(&probe),
            encoder_and_decoder: combined("encoder and decoder", |found| Some(found.auc)),
            all_signals: combined("all", |found| Some(found.auc)),
        },
        brier: BrierSummary {
            default: over(&default_brier),
            encoder_and_decoder: combined("encoder and decoder", |found| found.brier),
            all_signals: combined("all", |found| found.brier),
        },
        spearman: SpearmanSummary {
            token: correlation(|correlation| correlation.token),
            sentence: correlation(|correlation| correlation.sentence),
        },
        label_free: LabelFreeSummary {
            mu_correct_error: worst(|seed| seed.calibration.mu_correct_error),
            mu_hallucinated_error: worst(|seed| seed.calibration.mu_hallucinated_error),
        },
        cost: CostSummary {
            fraction_of_rollout: mean(seeds.iter().map(|seed| Some(seed.cost.fraction_of_rollout))),
            fraction_of_iteration: mean(seeds.iter().map(|seed| seed.cost.fraction_of_iteration)),
        },
        seeds,
    }
}

/// Mean over the seeds, of which none may lack the number.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Option<Vec<f64>> = values.collect();
    let values = values.filter(|values| !values.is_empty())?;
    Some(values.iter().sum::<f64>() / values.len() as f64)
}
