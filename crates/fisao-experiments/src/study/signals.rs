//! Signals about each mention from the base model itself, and what they tell together.

use std::collections::BTreeSet;

use fisao_align::RunControl;
use fisao_align::features::FeatureCache;
use fisao_align::signals::{
    DecoderView, Evidence, NameScales, OTHER_CAPTIONS, Signal, categories_of_others, decoder_views,
    mention_tokens, signals,
};
use fisao_align::tasks::TaskSource;
use fisao_eval::detection::{brier, expected_calibration_error};
use fisao_models::generation::Sampling;
use fisao_verifier::calibration::Combination;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::scorer::VerifierError;

use super::document::{CombinationResult, Detection, SignalResult, SignalStudy};
use super::measures::{calibrated, detection};
use super::sample::{Mention, Sample};
use super::seed::{ImageEmbeddings, Samples, StudyRunner};
use super::source::Part;

/// Penalty of the combinations: a standard normal prior on each weight.
const RIDGE: f64 = 1.0;

/// Signals that are combined.
struct Combined {
    name: &'static str,
    takes: fn(Signal) -> bool,
}

/// What is combined. Patches that were trained to name what they show tell nearly everything, and those of released
/// encoders were not: what the decoder adds is to be seen beside the pooled image, too.
const COMBINED: [Combined; 7] = [
    Combined { name: "pooled", takes: is_pooled },
    Combined {
        name: "pooled and decoder",
        takes: |signal| is_pooled(signal) || is_decoder(signal),
    },
    Combined { name: "all but patches", takes: |signal| !is_patches(signal) },
    Combined { name: "encoder", takes: |signal| is_pooled(signal) || is_patches(signal) },
    Combined { name: "decoder", takes: is_decoder },
    Combined { name: "encoder and decoder", takes: |signal| signal != Signal::Agreement },
    Combined { name: "all", takes: |_| true },
];

fn is_pooled(signal: Signal) -> bool {
    matches!(signal, Signal::Pooled | Signal::PooledCentred | Signal::PooledStandardised)
}

fn is_patches(signal: Signal) -> bool {
    matches!(signal, Signal::Patches | Signal::PatchesCentred)
}

fn is_decoder(signal: Signal) -> bool {
    !is_pooled(signal) && !is_patches(signal) && signal != Signal::Agreement
}

/// Mentions of one part with their signals.
struct Rows {
    mentions: Vec<Mention>,
    signals: Vec<Vec<f64>>,
}

impl Rows {
    /// The mentions under one of their signals.
    fn under(&self, at: usize) -> Vec<Mention> {
        let rows = self.mentions.iter().zip(&self.signals);
        rows.map(|(mention, row)| Mention { score: row[at], ..*mention }).collect()
    }

    /// Some of the signals of every mention.
    fn only(&self, columns: &[usize]) -> Vec<Vec<f64>> {
        let of_row = |row: &Vec<f64>| columns.iter().map(|&at| row[at]).collect();
        self.signals.iter().map(of_row).collect()
    }

    fn correct(&self) -> Vec<bool> {
        self.mentions.iter().map(|mention| mention.correct).collect()
    }
}

/// What was computed of one part.
struct Found {
    views: Vec<DecoderView>,
    others: Vec<Vec<BTreeSet<usize>>>,
}

impl Found {
    fn evidence<'a>(
        &'a self,
        sample: &'a Sample,
        images: &'a [ImageEmbedding],
        tokens: &'a [u32],
    ) -> Evidence<'a> {
        let Self { views, others } = self;
        Evidence { captions: &sample.captions, images, views, tokens, others }
    }
}

impl StudyRunner<'_> {
    /// Computes all signals of both parts, and combines them by what the calibration part's truth says. `embeddings` hold the
    /// patches of the images.
    pub(super) fn signals(
        &self,
        samples: &Samples,
        embeddings: &ImageEmbeddings,
        seed: u64,
    ) -> anyhow::Result<SignalStudy> {
        let both = [&samples.calibration, &samples.test];
        let tokens = mention_tokens(both.iter().flat_map(|sample| &sample.captions));
        let count = both.iter().map(|sample| sample.captions.len()).sum::<usize>();
        let progress = self.reporter.phase("read signals", (count * (1 + OTHER_CAPTIONS)) as u64);
        let advance = |done: usize| progress.advance(done as u64);
        let calibration = self.found(samples, Part::Calibration, &tokens, seed, &advance)?;
        let test = self.found(samples, Part::Test, &tokens, seed, &advance)?;
        progress.finish();
        let known = calibration.evidence(&samples.calibration, &embeddings.calibration, &tokens);
        let unseen = test.evidence(&samples.test, &embeddings.test, &tokens);
        let captions = both.iter().flat_map(|sample| &sample.captions);
        let scales = NameScales::new(&known, &self.verifier, captions);
        let rows = |sample: &Sample, evidence: &Evidence<'_>| {
            let mentions = sample.mentions(&self.verifier, &sample.images, self.vocabulary)?;
            let signals = signals(evidence, &self.verifier, &scales);
            Ok::<_, VerifierError>(Rows { mentions, signals })
        };
        let calibration = rows(&samples.calibration, &known)?;
        let test = rows(&samples.test, &unseen)?;
        let each = Signal::ALL.iter().enumerate().map(|(at, signal)| SignalResult {
            name: signal.name().to_owned(),
            detection: detection(&test.under(at), calibrated(&calibration.under(at)).as_ref()),
        });
        Ok(SignalStudy {
            other_captions: OTHER_CAPTIONS,
            each: each.collect(),
            combined: COMBINED.iter().filter_map(|of| combined(of, &calibration, &test)).collect(),
        })
    }

    fn found(
        &self,
        samples: &Samples,
        part: Part,
        tokens: &[u32],
        seed: u64,
        advance: &(dyn Fn(usize) + Sync),
    ) -> anyhow::Result<Found> {
        let sample = if part == Part::Calibration { &samples.calibration } else { &samples.test };
        let tasks = self.source.tasks(part, seed, self.views);
        let tasks = tasks.as_ref();
        let length = self.source.longest_prompt()? + self.sampling.max_new_tokens;
        let sampling = Sampling { seed, ..self.sampling.clone() };
        let (model, mut scorer) = (&self.policy.model, self.scorer());
        let (mut cache, control) = (FeatureCache::none(), RunControl::new(advance));
        let views = decoder_views(model, tasks, (&sample.captions, &cache), tokens, control)?;
        let seen = (&mut scorer, &mut cache);
        let others = categories_of_others(model, seen, tasks, length, &sampling, control)?;
        Ok(Found { views, others })
    }

    /// Decoder passes over captions of the given tasks: what is timed.
    pub(super) fn decoder_pass(
        &self,
        tasks: &dyn TaskSource,
        sample: &Sample,
    ) -> anyhow::Result<()> {
        let captions = &sample.captions[..tasks.count()];
        let tokens = mention_tokens(captions);
        let (captions, control) = ((captions, &FeatureCache::none()), RunControl::new(&|_| {}));
        decoder_views(&self.policy.model, tasks, captions, &tokens, control)?;
        Ok(())
    }
}

/// Fits to the calibration part, measures on the test part; `None` where a class is missing.
fn combined(what: &Combined, calibration: &Rows, test: &Rows) -> Option<CombinationResult> {
    let taken = Signal::ALL.iter().enumerate().filter(|(_, signal)| (what.takes)(**signal));
    let (columns, names): (Vec<usize>, Vec<&str>) =
        taken.map(|(at, signal)| (at, signal.name())).unzip();
    let (train, truth) = (calibration.only(&columns), calibration.correct());
    let combination = Combination::fit(&names, &train, &truth, RIDGE).ok()?;
    let rows = test.only(&columns);
    let probabilities: Vec<f64> = rows.iter().map(|row| combination.probability(row)).collect();
    let mentions = test.mentions.iter().zip(&rows);
    let mentions: Vec<Mention> = mentions
        .map(|(mention, row)| Mention { score: combination.logit(row), ..*mention })
        .collect();
    let truth = test.correct();
    let detection = detection(&mentions, None).map(|found| Detection {
        brier: brier(&probabilities, &truth),
        calibration_error: expected_calibration_error(&probabilities, &truth, 10),
        ..found
    });
    Some(CombinationResult { name: what.name.to_owned(), detection, combination })
}
