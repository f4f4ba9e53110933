//! Comparing a detector with labels.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;

use super::counts::{
    Counted, Counts, MACRO_NUMBERS, SPAN_NUMBERS, ScoredToken, TOKEN_NUMBERS, TYPE_NUMBERS, Totals,
};
use super::labels::{LabelledText, Labels};
use super::offsets::overlap;
use super::pairing::{PairingFault, Unmatched, pair};
use super::predictions::{PredictedText, Predictions};
use super::report::{LocalizationReport, Measured, Measures, TextRow, TypeMeasures};
use super::spans::SpanMatches;
use super::tokens::words;
use crate::image_id::canonical;
use crate::statistics::{Bootstrap, Interval};

/// Points of the curve in a report.
const CURVE: usize = 100;

/// What tokens are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenization {
    /// Words of the text, as [`words`](super::words) finds them.
    #[default]
    Words,
    /// The tokens that the labels give.
    Labels,
}

/// How a detector is compared with labels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LocalizationOptions {
    /// What tokens are.
    pub tokenization: Tokenization,
    /// Score from which a token or span is flagged, in place of the detector's own verdicts.
    pub threshold: Option<f64>,
    /// Whether texts that only one file has are left out instead of refused.
    pub skip_unmatched: bool,
    /// How intervals are drawn, over images.
    pub bootstrap: Bootstrap,
}

/// A detector that cannot be compared with labels.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalizationError {
    /// Predictions are about other texts.
    #[error(transparent)]
    Pairing(#[from] PairingFault),
    /// No labels.
    #[error(
        "there is no labelled text to compare with; {skipped} were left out as their labels do not fit"
    )]
    NoLabels {
        /// How many labels do not fit.
        skipped: usize,
    },
    /// Nothing in common.
    #[error(
        "no labelled text has a prediction: {} predictions are of images or ids without labels, {} of other texts",
        unmatched.unknown, unmatched.other_text
    )]
    NothingInCommon {
        /// What the files have instead.
        unmatched: Unmatched,
    },
    /// The labels give no tokens.
    #[error("the labels of '{text}' give no tokens; measure by words instead")]
    NoTokens {
        /// Id or image of the first text without.
        text: String,
    },
}

/// Compares what a detector says of texts with their labels.
///
/// # Errors
/// Texts that only one side has, unless they are skipped; no text in common; no tokens where the labels' own are wanted.
pub fn evaluate(
    labels: &Labels,
    predictions: &Predictions,
    options: &LocalizationOptions,
) -> Result<LocalizationReport, LocalizationError> {
    if labels.texts.is_empty() {
        return Err(LocalizationError::NoLabels { skipped: labels.skipped.total() });
    }
    let pairing = pair(&labels.texts, &predictions.texts, options.skip_unmatched)?;
    let spans = predictions.texts.iter().flat_map(|text| &text.spans);
    let decides =
        options.threshold.is_some() || spans.into_iter().all(|span| span.verdict.is_some());
    let types = labels.types.len();
    let mut counted = Counted { images: Vec::new(), scored: Vec::new(), types, decides };
    let (mut images, mut per_text, mut ignored) = (HashMap::new(), Vec::new(), 0);
    for (position, (label, prediction)) in labels.texts.iter().zip(&pairing.predictions).enumerate()
    {
        let Some(prediction) = prediction.map(|at| &predictions.texts[at]) else { continue };
        let name = label.image.as_ref().map_or_else(|| Err(position), |image| Ok(canonical(image)));
        let image = *images.entry(name).or_insert_with(|| {
            counted.images.push(Counts::of_types(types));
            counted.images.len() - 1
        });
        let compared = Compared::of(label, prediction, options, types)?;
        ignored += compared.ignored;
        counted.images[image].absorb(&compared.counts);
        counted.scored.extend(compared.scored.iter().map(|&(score, types)| ScoredToken {
            score,
            types,
            image,
        }));
        per_text.push(compared.row(label, decides));
    }
    if per_text.is_empty() {
        return Err(LocalizationError::NothingInCommon { unmatched: pairing.unmatched });
    }
    counted.scored.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let totals = counted.totals(&vec![1; counted.images.len()]);
    let measured = measured(&counted, &totals, options.bootstrap);
    let Totals { counts, sweep, .. } = totals;
    let numbers = Numbers::of(measured, labels, &counts, decides);
    Ok(LocalizationReport {
        texts: per_text.len(),
        images: counted.images.len(),
        tokenization: options.tokenization,
        orientation: predictions.orientation,
        threshold: options.threshold,
        tokens: counts.tokens.total(),
        hallucinated: sweep.positive(),
        ignored,
        without_opinion: counts.no_opinion.iter().sum(),
        hallucinated_without_opinion: counts.no_opinion[0],
        labelled_spans: counts.spans.labelled,
        flagged_spans: decides.then_some(counts.spans.predicted),
        token_measures: numbers.tokens,
        best_threshold: sweep.best_f1(),
        span_measures: numbers.spans,
        types: numbers.types,
        over_types: numbers.over_types,
        risk_coverage: sweep.risk_coverage().map(|curve| curve.points(CURVE)).unwrap_or_default(),
        paired_by: pairing.by,
        unmatched: pairing.unmatched,
        skipped_labels: labels.skipped.clone(),
        skipped_predictions: predictions.skipped.clone(),
        per_text,
    })
}

/// One text: its tokens and spans, and what the detector says of them.
struct Compared {
    counts: Counts,
    /// Score and types of tokens with an opinion.
    scored: Vec<(f64, u64)>,
    ignored: usize,
}

impl Compared {
    fn of(
        label: &LabelledText,
        prediction: &PredictedText,
        options: &LocalizationOptions,
        types: usize,
    ) -> Result<Self, LocalizationError> {
        let flagged = flagged(prediction, options.threshold);
        let tokens = match options.tokenization {
            Tokenization::Words => words(&label.text),
            Tokenization::Labels => label.tokens.clone().ok_or_else(|| {
                let name = label.id.as_ref().or(label.image.as_ref()).unwrap_or(&label.text);
                LocalizationError::NoTokens { text: crate::rows::shortened(name) }
            })?,
        };
        let mut compared = Self { counts: Counts::of_types(types), scored: Vec::new(), ignored: 0 };
        for token in tokens {
            let of = label.spans.iter().filter(|span| overlap(&span.bytes, &token));
            let mask = of.fold(0, |mask, span| mask | 1 << span.kind);
            if mask == 0 && label.ignored.iter().any(|span| overlap(span, &token)) {
                compared.ignored += 1;
                continue;
            }
            let opinions = prediction.spans.iter().filter(|span| overlap(&span.bytes, &token));
            let score = opinions.map(|span| span.score).fold(f64::NEG_INFINITY, f64::max);
            compared.token(mask, score, flagged.iter().any(|span| overlap(span, &token)));
        }
        compared.spans(label, prediction, flagged);
        Ok(compared)
    }

    fn token(&mut self, mask: u64, score: f64, flagged: bool) {
        let Self { counts, scored, .. } = self;
        let opinion = score > f64::NEG_INFINITY;
        counts.tokens.count(flagged, mask > 0);
        if opinion {
            scored.push((score, mask));
        } else {
            counts.no_opinion[usize::from(mask == 0)] += 1;
        }
        for (kind, of) in counts.types.iter_mut().enumerate() {
            if mask >> kind & 1 == 1 {
                of.tokens += 1;
                of.found += usize::from(flagged);
                of.no_opinion += usize::from(!opinion);
            }
        }
    }

    fn spans(
        &mut self,
        label: &LabelledText,
        prediction: &PredictedText,
        mut flagged: Vec<Range<usize>>,
    ) {
        let labelled: Vec<Range<usize>> =
            label.spans.iter().map(|span| span.bytes.clone()).collect();
        // What is flagged in a part that is left out alone is neither right nor wrong.
        flagged.retain(|span| {
            let among = |spans: &[Range<usize>]| spans.iter().any(|other| overlap(span, other));
            !among(&label.ignored) || among(&labelled)
        });
        let counts = &mut self.counts;
        counts.spans = SpanMatches::of(&label.text, &flagged, &labelled);
        let mut distinct = labelled.clone();
        distinct.sort_unstable_by_key(|span| (span.start, span.end));
        distinct.dedup();
        let opinion =
            |span: &Range<usize>| prediction.spans.iter().any(|other| overlap(span, &other.bytes));
        counts.spans_no_opinion = distinct.iter().filter(|span| !opinion(span)).count();
        for span in &label.spans {
            let of = &mut counts.types[span.kind];
            of.spans += 1;
            of.spans_found += usize::from(flagged.iter().any(|other| overlap(&span.bytes, other)));
        }
    }

    fn row(&self, label: &LabelledText, decides: bool) -> TextRow {
        let tokens = self.counts.tokens;
        TextRow {
            id: label.id.clone(),
            image: label.image.clone(),
            tokens: tokens.total(),
            hallucinated: tokens.truly_positive(),
            flagged: decides.then(|| tokens.said_positive()),
            found: decides.then_some(tokens.true_positive),
            without_opinion: self.counts.no_opinion[0],
        }
    }
}

/// Spans that the detector calls hallucinated, or that score enough; of tokens, neighbours are one span.
fn flagged(prediction: &PredictedText, threshold: Option<f64>) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    // Whether the last token is flagged.
    let mut open = false;
    for span in &prediction.spans {
        let flag =
            threshold.map_or(span.verdict == Some(true), |threshold| span.score >= threshold);
        match spans.last_mut().filter(|_| flag && open && prediction.of_tokens) {
            Some(last) => last.end = span.bytes.end,
            None if flag => spans.push(span.bytes.clone()),
            None => {}
        }
        open = flag;
    }
    spans
}

/// All numbers with their intervals.
fn measured(
    counted: &Counted,
    totals: &Totals,
    bootstrap: Bootstrap,
) -> Vec<(Option<f64>, Option<Interval>)> {
    let count = counted.images.len();
    let resamples = bootstrap.resample(count, |drawn| {
        let mut times = vec![0; count];
        for &image in drawn {
            times[image] += 1;
        }
        counted.totals(&times).numbers()
    });
    let interval = |at: usize| Interval::of(resamples.iter().filter_map(|numbers| numbers[at]));
    let numbers = totals.numbers().into_iter().enumerate();
    numbers.map(|(at, number)| (number, number.and_then(|_| interval(at)))).collect()
}

/// Numbers by what they are of.
struct Numbers {
    tokens: Measures,
    spans: Measures,
    types: Vec<TypeMeasures>,
    over_types: Measures,
}

impl Numbers {
    fn of(
        measured: Vec<(Option<f64>, Option<Interval>)>,
        labels: &Labels,
        counts: &Counts,
        decides: bool,
    ) -> Self {
        let facts = Facts {
            positive: counts.tokens.truly_positive() > 0,
            decides,
            opinions: counts.tokens.total() > counts.no_opinion.iter().sum(),
        };
        let mut measured = measured.into_iter();
        let mut take = |names: &[&'static str], facts: &Facts| {
            let named = names.iter().zip(measured.by_ref()).map(|(name, (value, interval))| {
                let undefined = value.is_none().then(|| facts.reason(name));
                (*name, Measured { value, interval, undefined })
            });
            Measures(named.collect())
        };
        let tokens = take(&TOKEN_NUMBERS, &facts);
        let spans = take(&SPAN_NUMBERS, &Facts { positive: counts.spans.labelled > 0, ..facts });
        let types = labels.types.iter().zip(&counts.types).map(|(name, of)| TypeMeasures {
            name: name.clone(),
            tokens: of.tokens,
            spans: of.spans,
            measures: take(&TYPE_NUMBERS, &Facts { positive: of.tokens > 0, ..facts }),
        });
        let types = types.collect();
        Self { tokens, spans, types, over_types: take(&MACRO_NUMBERS, &facts) }
    }
}

/// What numbers may lack.
#[derive(Clone, Copy)]
struct Facts {
    positive: bool,
    opinions: bool,
    decides: bool,
}

impl Facts {
    /// Why a number is undefined.
    fn reason(self, name: &str) -> &'static str {
        let of_scores = [
            "roc_auc",
            "roc_auc_with_opinion",
            "average_precision",
            "best_f1",
            "aurc",
            "without_opinion",
        ];
        let of_flagged = name.ends_with("precision") && !of_scores.contains(&name);
        match name {
            _ if !self.positive && !of_flagged && name != "aurc" => {
                "nothing is labelled as hallucinated"
            }
            _ if !self.decides && !of_scores.contains(&name) => {
                "the detector gives no verdicts; give a threshold"
            }
            _ if of_flagged => "nothing is flagged",
            "roc_auc" => "every token is hallucinated",
            _ if !self.opinions => "the detector has no opinion on any token",
            _ => "tokens with an opinion are all hallucinated, or none is",
        }
    }
}
