//! `study.json`.

use std::collections::BTreeMap;

use fisao_eval::statistics::Interval;
use fisao_verifier::calibration::{Combination, Histograms, Intervals};
use serde::Serialize;

/// Everything a study found.
#[derive(Debug, Serialize)]
pub(super) struct Study<'a> {
    /// Layout of this file.
    pub(super) schema: u32,
    /// Version of FiSAO.
    pub(super) fisao: String,
    /// Whose captions were studied.
    pub(super) model: String,
    /// What scored them.
    pub(super) verifier: String,
    /// What was captioned.
    pub(super) images: String,
    /// Temperature captions were sampled at.
    pub(super) temperature: f64,
    /// AUC of detecting hallucinated mentions, means over the seeds.
    pub(super) auc: AucSummary,
    /// Mean squared error of the probability that a word is correct, means over the seeds.
    pub(super) brier: BrierSummary,
    /// Spearman correlation with the fraction of hallucinated mentions of a caption, sign turned so that high scores for few
    /// hallucinations are positive; means over the seeds.
    pub(super) spearman: SpearmanSummary,
    /// How far calibration without labels lands from that with annotations; largest over the seeds.
    pub(super) label_free: LabelFreeSummary,
    /// Means over the seeds.
    pub(super) cost: CostSummary,
    /// What each seed gave.
    pub(super) seeds: &'a [SeedStudy],
}

#[derive(Debug, Serialize)]
pub(super) struct AucSummary {
    /// Of the plain cosine.
    pub(super) plain: Option<f64>,
    /// Of what commands do by default.
    pub(super) default: Option<f64>,
    /// Of a supervised reader of the same features.
    pub(super) probe: Option<f64>,
    /// Of the default's encoder and the model's decoder combined, from one caption.
    pub(super) encoder_and_decoder: Option<f64>,
    /// Of all signals combined, other captions of the image included.
    pub(super) all_signals: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct BrierSummary {
    /// Of what commands do by default.
    pub(super) default: Option<f64>,
    /// Of encoder and decoder combined, from one caption.
    pub(super) encoder_and_decoder: Option<f64>,
    /// Of all signals combined.
    pub(super) all_signals: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct SpearmanSummary {
    /// Of the mean probability of a caption's words.
    pub(super) token: Option<f64>,
    /// Of the cosine of the whole caption.
    pub(super) sentence: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct LabelFreeSummary {
    /// |μ₊ − μ₊(annotated)| / σ.
    pub(super) mu_correct_error: Option<f64>,
    /// |μ₋ − μ₋(annotated)| / σ.
    pub(super) mu_hallucinated_error: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct CostSummary {
    /// Time to encode the images and to score the mentions, over the time to generate the captions.
    pub(super) fraction_of_rollout: Option<f64>,
    /// The same over a whole iteration of training; of the built-in synthetic dataset only.
    pub(super) fraction_of_iteration: Option<f64>,
}

/// What one seed gave.
#[derive(Debug, Serialize)]
pub(super) struct SeedStudy {
    pub(super) seed: u64,
    /// Captions that were measured.
    pub(super) captions: usize,
    /// Captions that name nothing of the vocabulary.
    pub(super) captions_without_mention: usize,
    /// Words that name something.
    pub(super) mentions: usize,
    /// Those of them that are not in the image.
    pub(super) hallucinated: usize,
    /// Mentions left out as the text denies them.
    pub(super) negated: usize,
    /// How well each variant detects.
    pub(super) variants: Vec<VariantResult>,
    /// The supervised reader.
    pub(super) probe: Option<ProbeResult>,
    /// What else the model itself knows about its words.
    pub(super) signals: SignalStudy,
    /// The variants on images that the verifier, and not the model, sees in lower resolution.
    pub(super) coarse: Vec<CoarseResult>,
    /// How scores of words and of captions go with the quality of captions.
    pub(super) correlations: Vec<Correlation>,
    /// Thresholds with annotations and without.
    pub(super) calibration: CalibrationResult,
    /// How well calibration does on fewer images.
    pub(super) calibration_images: Vec<CalibrationSize>,
    /// How much a shorter list of objects finds.
    pub(super) vocabulary: Vec<VocabularySize>,
    /// Scores of the test images' words by the default variant.
    pub(super) distribution: Option<Histograms>,
    pub(super) cost: Cost,
}

/// How well scores detect hallucinated mentions.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Detection {
    /// Probability that a correct mention outscores a hallucinated one.
    pub(super) auc: f64,
    /// 95 %, captions resampled.
    pub(super) auc_interval: Option<Interval>,
    /// Of finding the hallucinated mentions, lowest scores first.
    pub(super) average_precision: f64,
    /// Area under risk and coverage: wrong words among those kept, highest scores first.
    pub(super) aurc: f64,
    /// Fraction of wrong words among the best four fifths.
    pub(super) risk_at_80: Option<f64>,
    /// Risk over coverage.
    pub(super) risk_coverage: Vec<(f64, f64)>,
    /// Mean squared error of the calibrated probability.
    pub(super) brier: Option<f64>,
    /// Expected calibration error, 10 bins.
    pub(super) calibration_error: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct VariantResult {
    pub(super) name: String,
    /// Whether commands score like this by default.
    pub(super) default: bool,
    pub(super) detection: Option<Detection>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProbeResult {
    /// Penalty chosen on the calibration images.
    pub(super) ridge: f64,
    pub(super) detection: Option<Detection>,
}

/// Signals about the words, each by itself and combined.
#[derive(Debug, Serialize)]
pub(super) struct SignalStudy {
    /// Other captions of each image that were sampled for the fraction of them that agree.
    pub(super) other_captions: usize,
    /// How well each signal detects.
    pub(super) each: Vec<SignalResult>,
    /// How well logistic regressions on several of them do, fitted with the truth about the calibration images.
    pub(super) combined: Vec<CombinationResult>,
}

#[derive(Debug, Serialize)]
pub(super) struct SignalResult {
    pub(super) name: String,
    pub(super) detection: Option<Detection>,
}

#[derive(Debug, Serialize)]
pub(super) struct CombinationResult {
    pub(super) name: String,
    pub(super) detection: Option<Detection>,
    /// Weights.
    pub(super) combination: Combination,
}

#[derive(Debug, Serialize)]
pub(super) struct CoarseResult {
    /// Pixels of the image to one that is left, along each side.
    pub(super) coarseness: f64,
    /// AUC of each variant.
    pub(super) auc: BTreeMap<String, Option<f64>>,
    /// Spearman of the words' mean probability with the fraction of correct mentions, by the default score.
    pub(super) spearman_token: Option<f64>,
    /// The same of the whole caption's cosine.
    pub(super) spearman_sentence: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Correlation {
    /// What the scores are compared with.
    pub(super) target: String,
    /// Spearman of the mean probability of a caption's words.
    pub(super) token: Option<f64>,
    pub(super) token_interval: Option<Interval>,
    /// Spearman of the cosine of the whole caption.
    pub(super) sentence: Option<f64>,
    pub(super) sentence_interval: Option<Interval>,
    /// Of token − sentence, captions resampled.
    pub(super) difference_interval: Option<Interval>,
    /// Captions compared.
    pub(super) captions: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct CalibrationResult {
    /// Absent where the mentions do not allow it; `annotated_problem` then says why.
    pub(super) annotated: Option<Moments>,
    pub(super) annotated_problem: Option<String>,
    /// Absent where two kinds of words could not be told apart; `label_free_problem` then says why.
    pub(super) label_free: Option<Moments>,
    pub(super) label_free_problem: Option<String>,
    /// Mean score of names against other images, the lower anchor without labels.
    pub(super) mu_mismatched: f64,
    /// |μ₊ − μ₊(annotated)| / σ.
    pub(super) mu_correct_error: Option<f64>,
    /// |μ₋ − μ₋(annotated)| / σ.
    pub(super) mu_hallucinated_error: Option<f64>,
    /// |μ(mismatched) − μ₋(annotated)| / σ: what the plain estimate would be off by.
    pub(super) mismatched_error: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Moments {
    pub(super) mu_correct: f64,
    pub(super) sigma_correct: f64,
    pub(super) mu_hallucinated: f64,
    pub(super) sigma_hallucinated: f64,
    pub(super) prior_correct: f64,
    pub(super) auc: f64,
    pub(super) intervals: Option<Intervals>,
}

#[derive(Debug, Serialize)]
pub(super) struct CalibrationSize {
    pub(super) images: usize,
    /// Draws of so many images that held enough words of both kinds.
    pub(super) draws: usize,
    /// Means over the draws, against all calibration images, in σ.
    pub(super) mu_correct_error: Option<f64>,
    pub(super) mu_hallucinated_error: Option<f64>,
    /// Mean squared error of the probability on the test images, mean over the draws.
    pub(super) brier: Option<f64>,
    /// On the test images, centred by these images alone; mean over the draws.
    pub(super) auc: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct VocabularySize {
    /// Categories of the vocabulary.
    pub(super) categories: usize,
    /// Their fraction of all.
    pub(super) fraction: f64,
    pub(super) auc: Option<f64>,
    /// Hallucinated mentions found over those that all categories find.
    pub(super) hallucinations_covered: f64,
}

/// Milliseconds a caption takes, and fractions.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    /// To write it, image features included.
    pub(super) generate_ms: f64,
    /// To encode its image.
    pub(super) encode_ms: f64,
    /// To find and score its words, their embeddings being known.
    pub(super) words_ms: f64,
    /// To score it as a whole, which takes a pass of the text encoder.
    pub(super) sentence_ms: f64,
    /// Decoder passes over its mentions: one pass of the prompt, two of prompt and caption, adapter off.
    pub(super) decoder_ms: f64,
    /// (encode + words) / generate.
    pub(super) fraction_of_rollout: f64,
    /// (encode + sentence) / generate.
    pub(super) sentence_fraction_of_rollout: f64,
    /// Scoring over a whole iteration of training with the demo's settings.
    pub(super) fraction_of_iteration: Option<f64>,
    /// Text searched for mentions, on one core.
    pub(super) mentions_mb_per_second: f64,
}
