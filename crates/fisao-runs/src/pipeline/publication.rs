//! What a run found, as the page and the numbers that it publishes.

use std::path::PathBuf;

use fisao_align::AlignConfig;
use fisao_align::events::IterationMetrics;
use fisao_align::guards::SplitHealth;
use fisao_align::mentions::ScoredResponse;
use fisao_eval::chair::{self, ChairReport, ImageVerdict, Protocol};
use fisao_eval::statistics::{Bootstrap, Interval};
use fisao_formats::digest::sha256_model;
use fisao_models::image::PixelValues;
use fisao_report::{
    ColouredCaption, Curve, DOUBTFUL, GalleryItem, RateIntervals, Report, ReportRow, ScoredBy,
    Scores, VerifierFacts, WordVerdict,
};
use fisao_verifier::calibration::{Calibration, ProbabilityModel};
use fisao_verifier::mentions::TokenMention;
use fisao_verifier::regions::ScoreUnit;
use fisao_verifier::rewards::RewardRule;

use super::estimates::{EstimatedRates, Estimator};
use super::evaluation::EvaluatedCaptions;
use super::{Results, Seconds};
use crate::bundle::Policy;
use crate::models::ImageSet;
use crate::reporter::Reporter;

/// Images of the report's gallery.
const GALLERY: usize = 16;
/// Held-out images that the gallery is chosen from.
const CANDIDATES: usize = GALLERY * 8;

/// An image as the gallery shows it.
pub(crate) struct ShownImage {
    /// A PNG or JPEG file.
    pub image: Vec<u8>,
    /// What the verifier takes of it, and the same as a PNG or JPEG file, where heat maps are wanted.
    pub view: Option<(PixelValues, Vec<u8>)>,
}

/// What a run found, before it is put on a page.
pub(crate) struct Publication<'a> {
    pub config: &'a AlignConfig,
    /// The model before training.
    pub policy: &'a Policy,
    /// Where the trained adapter lies.
    pub adapter: PathBuf,
    /// What every held-out image was captioned with, where that is one prompt.
    pub prompt: Option<String>,
    /// Name of the object vocabulary.
    pub vocabulary: String,
    pub calibration: &'a Calibration,
    pub results: &'a Results,
    pub test: &'a ImageSet<'a>,
    /// Whether rates are estimated, too: where annotations do not say everything.
    pub estimate: bool,
    pub peak_rss_mb: f64,
    pub reporter: &'a Reporter,
}

impl Publication<'_> {
    /// The report; `show` is asked for the images of its gallery by their places.
    pub(crate) fn report(
        &self,
        title: &str,
        attribution: &str,
        show: &dyn Fn(usize) -> anyhow::Result<ShownImage>,
    ) -> anyhow::Result<Report> {
        let training = &self.results.training;
        let scored_by = match self.results.scorer.verifier.unit() {
            ScoreUnit::LogProbability => ScoredBy::Decoder,
            ScoreUnit::LogOdds => ScoredBy::Matching,
            _ => ScoredBy::Contrastive,
        };
        Ok(Report {
            title: title.to_owned(),
            seed: self.config.seed,
            before_after: self.rows()?,
            verifier: verifier_facts(self.config, self.calibration, scored_by)?,
            curves: curves(&training.metrics, &training.health),
            gallery: self.gallery(show)?,
            facts: self.facts(),
            warnings: training.warnings.clone(),
            attribution: attribution.to_owned(),
        })
    }

    /// Measured rates first, then estimated ones.
    fn rows(&self) -> anyhow::Result<Vec<ReportRow>> {
        let mut rows = self.measured_rows()?;
        if self.estimate {
            let all = self.results.pairs().map(|(_, base, aligned)| [base, aligned]).concat();
            let captions: Vec<&[ScoredResponse]> =
                all.iter().map(|evaluated| evaluated.captions.as_slice()).collect();
            let estimator = Estimator::new(self.calibration, &captions)?;
            let pairs = self.results.pairs().into_iter();
            rows.extend(pairs.map(|pair| estimated(&estimator, pair)));
        }
        Ok(rows)
    }

    /// Rates of annotated images, where there are any.
    fn measured_rows(&self) -> anyhow::Result<Vec<ReportRow>> {
        if self.results.base.greedy.chair.is_none() {
            return Ok(Vec::new());
        }
        let before = self.before()?;
        let models = [before.clone(), self.after(before)?];
        let measured = |pair| self.measured(pair, &models);
        Ok(self.results.pairs().into_iter().filter_map(measured).collect())
    }

    fn measured(
        &self,
        (decoding, base, aligned): (&str, &EvaluatedCaptions, &EvaluatedCaptions),
        models: &[Protocol; 2],
    ) -> Option<ReportRow> {
        let (before, after) = (base.chair.as_ref()?, aligned.chair.as_ref()?);
        let [of_base, of_aligned] = models;
        let protocols = [by(base.protocol()?, of_base), by(aligned.protocol()?, of_aligned)];
        let intervals = self.estimate.then(|| [before, after].map(measured_intervals));
        Some(ReportRow {
            decoding: decoding.to_owned(),
            base: scores(before, base.mean_length),
            aligned: scores(after, aligned.mean_length),
            changes: chair::changes(before, after, Bootstrap::default()),
            estimated: false,
            intervals,
            protocols: Some(Box::new(protocols)),
        })
    }

    /// What rates depend on of the model before training, and of what is asked of both.
    fn before(&self) -> anyhow::Result<Protocol> {
        let adapter = self.policy.adapter_identity(self.reporter)?;
        Ok(Protocol {
            vocabulary: Some(self.vocabulary.clone()),
            prompt: self.prompt.clone(),
            model: Some(self.policy.name.clone()),
            model_digest: Some(self.policy.sample()?),
            adapter: self.policy.adapter_name(),
            adapter_sha256: adapter.map(|adapter| adapter.sha256),
            ..Protocol::default()
        })
    }

    /// The same of the trained model.
    fn after(&self, before: Protocol) -> anyhow::Result<Protocol> {
        Ok(Protocol {
            adapter: self.adapter.file_name().map(|name| name.to_string_lossy().into_owned()),
            adapter_sha256: Some(sha256_model(&self.adapter, &|_| {})?),
            ..before
        })
    }

    fn facts(&self) -> Vec<(String, String)> {
        let seconds = |value: f64| format!("{value:.0} s");
        let Seconds { calibrate, align, evaluate, total } = self.results.seconds;
        vec![
            ("calibrate".into(), seconds(calibrate)),
            ("align".into(), seconds(align)),
            ("evaluate".into(), seconds(evaluate)),
            ("total".into(), seconds(total)),
            ("peak memory".into(), format!("{:.0} MB", self.peak_rss_mb)),
            ("iterations".into(), self.config.align.iterations.to_string()),
            ("images per iteration".into(), self.config.align.images_per_iteration.to_string()),
            ("version".into(), env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }

    /// Whether the base model's caption of an image names something that is not there, as annotations or else the verifier say.
    fn is_wrong(&self, index: usize) -> bool {
        let base = &self.results.base.greedy;
        if let Some(verdict) = base.verdict(index) {
            return verdict.mentions.iter().any(|mention| mention.hallucinated);
        }
        base.captions[index].scores.iter().any(|&score| self.probability(score) < DOUBTFUL)
    }

    fn probability(&self, score: f64) -> f64 {
        self.calibration.probability(score, ProbabilityModel::default())
    }

    /// Held-out images, those first whose base caption hallucinated, in their order.
    fn gallery(
        &self,
        show: &dyn Fn(usize) -> anyhow::Result<ShownImage>,
    ) -> anyhow::Result<Vec<GalleryItem>> {
        let candidates = self.test.tasks.count().min(CANDIDATES);
        let mut order: Vec<usize> = (0..candidates).collect();
        // Three of four show the disease, the fourth whatever comes next.
        order.sort_by_key(|&index| (!self.is_wrong(index), index));
        let sick = order.iter().filter(|&&index| self.is_wrong(index)).count().min(GALLERY * 3 / 4);
        let wrong = |index: &usize| !self.is_wrong(*index);
        let healthy: Vec<usize> =
            order.iter().copied().filter(wrong).take(GALLERY - sick).collect();
        let mut shown: Vec<usize> = order.into_iter().take(sick).chain(healthy).collect();
        shown.sort_unstable();
        shown.into_iter().map(|index| self.item(index, show(index)?)).collect()
    }

    fn item(&self, index: usize, shown: ShownImage) -> anyhow::Result<GalleryItem> {
        let truth = self.test.truth.as_ref().and_then(|truth| truth[index].as_ref());
        let view = shown.view.as_ref().map(|(pixels, _)| pixels);
        let coloured = |evaluated: &EvaluatedCaptions| {
            let (caption, verdict) = (&evaluated.captions[index], evaluated.verdict(index));
            self.coloured(caption, verdict, view)
        };
        let (base, aligned) = (&self.results.base.greedy, &self.results.aligned.greedy);
        Ok(GalleryItem {
            image_id: base.ids[index].clone(),
            truth: truth.into_iter().flatten().cloned().collect(),
            before: coloured(base)?,
            after: coloured(aligned)?,
            image: shown.image,
            verifier_view: shown.view.map(|(_, file)| file),
        })
    }

    /// A caption with its words, and where in the image those that are flagged are seen.
    fn coloured(
        &self,
        caption: &ScoredResponse,
        verdict: Option<&ImageVerdict>,
        view: Option<&PixelValues>,
    ) -> anyhow::Result<ColouredCaption> {
        let scorer = &self.results.scorer;
        let word = |(unit, &score): (&TokenMention, &f64)| {
            let judged = verdict.and_then(|verdict| {
                verdict.mentions.iter().find(|mention| mention.start == unit.span.start)
            });
            WordVerdict {
                start: unit.span.start,
                end: unit.span.end,
                category: scorer.vocabulary.category(unit.category).to_owned(),
                score,
                probability: self.probability(score),
                hallucinated: judged.map(|mention| mention.hallucinated),
                heat_map: None,
            }
        };
        let mut words: Vec<WordVerdict> =
            caption.mentions.iter().zip(&caption.scores).map(word).collect();
        let flagged = |word: &WordVerdict| word.hallucinated.unwrap_or(word.probability < DOUBTFUL);
        let forms = caption.mentions.iter().zip(&words).filter(|(_, word)| flagged(word));
        let forms: Vec<&str> = forms.map(|(unit, _)| unit.form.as_str()).collect();
        if let Some(view) = view.filter(|_| !forms.is_empty()) {
            let maps = scorer.verifier.heat_maps(view, &forms)?.unwrap_or_default();
            let flagged = words.iter_mut().filter(|word| flagged(word));
            flagged.zip(maps).for_each(|(word, map)| word.heat_map = Some(map));
        }
        Ok(ColouredCaption { text: caption.text.clone(), words })
    }
}

/// What rates of captions depend on, the model among it.
fn by(captions: Protocol, model: &Protocol) -> Protocol {
    let Protocol { vocabulary, prompt, model, model_digest, adapter, adapter_sha256, .. } =
        model.clone();
    Protocol { vocabulary, prompt, model, model_digest, adapter, adapter_sha256, ..captions }
}

/// A row of what the verifier estimates.
fn estimated(
    estimator: &Estimator<'_>,
    (decoding, base, aligned): (&str, &EvaluatedCaptions, &EvaluatedCaptions),
) -> ReportRow {
    let rates = [base, aligned].map(|evaluated| estimator.rates(&evaluated.captions));
    let scores = |rates: &EstimatedRates, evaluated: &EvaluatedCaptions| Scores {
        chair_i: rates.chair_i,
        chair_s: rates.chair_s,
        recall: rates.recall,
        mean_length: evaluated.mean_length,
        captions: evaluated.captions.len(),
    };
    ReportRow {
        decoding: format!("{decoding}, estimated"),
        base: scores(&rates[0], base),
        aligned: scores(&rates[1], aligned),
        changes: estimator.changes(&base.captions, &aligned.captions),
        estimated: true,
        intervals: Some([rates[0].intervals, rates[1].intervals]),
        protocols: None,
    }
}

fn measured_intervals(report: &ChairReport) -> RateIntervals {
    let [chair_s, chair_i, recall, ..]: [Option<Interval>; 5] =
        chair::intervals(&[report], Bootstrap::default());
    RateIntervals { chair_i, chair_s, recall }
}

/// A rate over nothing, as of captions that name no object, is shown as 0.
fn scores(report: &ChairReport, mean_length: f64) -> Scores {
    let ChairReport { chair_i, chair_s, recall, captions, .. } = *report;
    let [chair_i, chair_s, recall] = [chair_i, chair_s, recall].map(|rate| rate.unwrap_or(0.0));
    Scores { chair_i, chair_s, recall, mean_length, captions }
}

fn verifier_facts(
    config: &AlignConfig,
    calibration: &Calibration,
    scored_by: ScoredBy,
) -> anyhow::Result<VerifierFacts> {
    let marks = RewardRule::new(&config.reward, calibration)?.score_marks();
    let histograms = &calibration.histograms;
    Ok(VerifierFacts {
        scored_by,
        auc: calibration.auc,
        mu_correct: calibration.mu_correct,
        sigma_correct: calibration.sigma_correct,
        mu_hallucinated: calibration.mu_hallucinated,
        sigma_hallucinated: calibration.sigma_hallucinated,
        tau_plus: marks.thresholds.map(|(plus, _)| plus),
        tau_minus: marks.thresholds.map(|(_, minus)| minus),
        full_reward: marks.full_reward,
        full_penalty: marks.full_penalty,
        boundary: marks.boundary,
        correct_hist: histograms.correct.counts.clone(),
        hallucinated_hist: histograms.hallucinated.counts.clone(),
        hist_range: (histograms.correct.low, histograms.correct.high),
    })
}

/// What training recorded, as charts.
fn curves(metrics: &[IterationMetrics], health: &[(usize, SplitHealth)]) -> Vec<Curve> {
    let over = |name: &str, unit: &str, value: fn(&IterationMetrics) -> Option<f64>| Curve {
        name: name.to_owned(),
        unit: unit.to_owned(),
        points: metrics
            .iter()
            .filter_map(|m| value(m).map(|value| (m.iteration as f64, value)))
            .collect(),
    };
    let validation_tasks = |name: &str, unit: &str, value: fn(&SplitHealth) -> Option<f64>| Curve {
        name: name.to_owned(),
        unit: unit.to_owned(),
        points: health
            .iter()
            .filter_map(|(at, health)| value(health).map(|value| (*at as f64, value)))
            .collect(),
    };
    vec![
        over("Reward", "per caption", |m| Some(m.reward_mean)),
        over("KL from the reference", "nats per caption", |m| m.kl),
        over("Penalised mentions", "fraction", |m| m.penalised_fraction),
        over("Repeated mentions", "fraction", |m| m.repeated_fraction),
        over("Length", "tokens", |m| Some(m.length_mean)),
        validation_tasks("Recall on the calibration split", "fraction", |health| health.recall),
        over("Correct objects named, estimated", "per caption", |m| m.expected_correct),
        over("Correct objects named by the base model", "per caption", |m| m.expected_correct_base),
        over("Estimated recall against the base model", "relative change", |m| m.recall_surplus),
        over("Length against the base model", "ratio, greedy", |m| m.length_ratio),
        over("Length bonus", "reward per token", |m| m.length_bonus),
        over("Break-even precision", "probability", |m| m.break_even),
    ]
}
