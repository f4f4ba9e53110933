//! Which names that captions use are visually grounded: whether encoder and decoder say them because of the image. No labels.
//!
//! ```text
//! encoder     AUC_u = P(s(v, u) > s(v′, u)),  v an image whose captions say u, v′ one whose captions do not
//! decoder     Δ_u = mean of log p(u | v, c) − log p(u | blank image, c) over the mentions of u, nats
//! ```
//!
//! A name is grounded where both are above chance by [`SIGNIFICANT`] standard errors: the encoder's score of it varies with the
//! image by more than its noise, and the decoder would not have said it without the image. The decoder is not asked where the
//! encoder leaves no doubt ([`CERTAIN_AUC`]): what a model says without looking is what it makes up, and what matters most to judge.
//! The captions' own hallucinations dilute both and mislead neither, as long as they are the lesser part.
//!
//! Two names are one object's ("traffic light", "traffic signal") where the encoder scores them alike, a correlation of [`SAME`] over the images, and
//! captions do not say both more often than chance would.
//!
//! What is said *of* a noun (attributes, counts, positions) is judged against the noun alone, over the images whose captions name
//! it: `s(v, "red car") − s(v, "car")` where the caption says "red car" against those where it says another colour. What
//! holds for a kind is pooled over its phrases.

use std::collections::BTreeSet;

use fisao_verifier::calibration::auc;
use fisao_verifier::mentions::{NameKind, NounName, noun_names};
use fisao_verifier::regions::{ImageEmbedding, RegionWeights, Regions};
use fisao_verifier::scorer::{Verifier, VerifierError};

use crate::error::AlignError;
use crate::signals::DecoderView;

/// Standard errors above chance from which a name is grounded: one in a hundred names that are not passes either test.
pub const SIGNIFICANT: f64 = 2.33;
/// AUC from which the encoder tells a name apart well enough to judge it.
pub const LEAST_AUC: f64 = 0.6;
/// AUC that the interval must lie above for the encoder alone to decide.
pub const CERTAIN_AUC: f64 = 0.75;
/// Correlation of two names' scores over the images from which both name one object.
pub const SAME: f64 = 0.95;
/// Texts that must use a name.
pub const LEAST_TEXTS: usize = 3;
/// Standard errors of a 95 % interval.
const INTERVAL: f64 = 1.96;

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
}

impl Estimate {
    /// Mean of some values; `None` of fewer than two.
    fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = (squares / (count - 1.0) / count).sqrt();
        (values.len() > 1).then_some(Self { mean, error })
    }

    /// Whether it is above a value by more than chance.
    fn exceeds(self, value: f64) -> bool {
        self.mean - value > SIGNIFICANT * self.error
    }

    /// Limits of its 95 % interval.
    pub fn interval(self) -> [f64; 2] {
        [self.mean - INTERVAL * self.error, self.mean + INTERVAL * self.error]
    }
}

/// An AUC with the standard error that it has by chance: √((n + m + 1) / 12nm).
pub fn auc_of(positive: &[f64], negative: &[f64]) -> Estimate {
    let (n, m) = (positive.len() as f64, negative.len() as f64);
    Estimate {
        mean: auc(positive, negative),
        error: ((n + m + 1.0) / (12.0 * n * m).max(1.0)).sqrt(),
    }
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Grounding {
    /// The name.
    pub name: NounName,
    /// How well the encoder's score tells images whose captions say it from others; `None` where all captions do, or almost.
    pub auc: Option<Estimate>,
    /// A more frequent name of the same object, as the encoder has it.
    pub same_as: Option<String>,
    /// By how much the decoder's log-probability of it falls without the image, nats; `None` where there is no decoder.
    pub drop: Option<Estimate>,
}

impl Grounding {
    /// Whether the encoder can tell where it is.
    pub fn is_seen(&self) -> bool {
        self.auc.is_some_and(|auc| auc.exceeds(0.5) && auc.mean >= LEAST_AUC)
    }

    /// Whether the decoder said it because of the image, where there is a decoder and it has to say so.
    pub fn is_caused(&self) -> bool {
        let certain = self.auc.is_some_and(|auc| auc.interval()[0] > CERTAIN_AUC);
        certain || self.drop.is_none_or(|drop| drop.exceeds(0.0))
    }

    /// Whether it names something that can be judged.
    pub fn is_grounded(&self) -> bool {
        self.is_seen() && self.is_caused()
    }
}

/// Whether the encoder can judge what is said of nouns.
#[derive(Clone, Debug, PartialEq)]
pub struct KindGrounding {
    /// Attributes, counts or positions.
    pub kind: NameKind,
    /// The phrases that were compared.
    pub names: Vec<NounName>,
    /// How well the encoder tells images whose captions say a phrase from others with the same noun; `None` of no phrase.
    pub auc: Option<Estimate>,
}

impl KindGrounding {
    /// Whether its phrases can be judged: the AUC's interval lies above [`LEAST_AUC`].
    pub fn is_judged(&self) -> bool {
        self.auc.is_some_and(|auc| auc.interval()[0] > LEAST_AUC)
    }
}

/// Names that captions use, each with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundedNames {
    /// Objects and settings, the most frequent first.
    pub names: Vec<Grounding>,
    /// Attributes, counts and positions.
    pub kinds: Vec<KindGrounding>,
    /// The regions of an image by which scores tell most.
    pub weights: RegionWeights,
}

/// Captions with their images.
#[derive(Clone, Copy, Debug)]
pub struct Captions<'a> {
    /// The texts.
    pub texts: &'a [&'a str],
    /// Number of each one's image.
    pub images_of: &'a [usize],
    /// What the verifier made of each image.
    pub images: &'a [ImageEmbedding],
}

/// Finds the names that captions use and asks the encoder about each. The verifier learns them; its centres and weights are not
/// used.
///
/// # Errors
/// [`AlignError::Verifier`] where a name cannot be scored.
pub fn grounded_names(
    captions: Captions<'_>,
    verifier: &Verifier,
    least: usize,
) -> Result<GroundedNames, AlignError> {
    let found = noun_names(captions.texts.iter().copied(), least);
    let mut verifier = verifier.without_noise();
    verifier.set_centres(None);
    verifier.embed_names(found.iter().flat_map(|name| [name.name.as_str(), name.noun.as_str()]))?;
    let (names, phrases): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|name| matches!(name.kind, NameKind::Object | NameKind::Setting));
    let patches = verifier.score_config().regions == Regions::Auto
        && captions.images.iter().any(|image| !image.parts.is_empty());
    let choices = if patches { &[0.0, 1.0][..] } else { &[0.0] };
    let mut best: Option<(f64, RegionWeights, Vec<Seen>)> = None;
    for &patches in choices {
        let weights = RegionWeights { patches };
        verifier.set_weights(weights);
        let found = names.iter().map(|name| seen(name.clone(), captions, &verifier));
        let found = found.collect::<Result<Vec<_>, AlignError>>()?;
        let worth = found.iter().filter_map(|it| Some(it.grounding.auc?.mean - 0.5)).sum();
        if best.as_ref().is_none_or(|(known, ..)| worth > *known) {
            best = Some((worth, weights, found));
        }
    }
    let (_, weights, names) = best.unwrap_or_default();
    verifier.set_weights(weights);
    let names = with_synonyms(names, captions);
    let kinds = [NameKind::Attribute, NameKind::Count, NameKind::Position];
    let kinds = kinds.into_iter().map(|kind| of_kind(kind, &phrases, captions, &verifier));
    Ok(GroundedNames { names, kinds: kinds.collect::<Result<_, _>>()?, weights })
}

/// Images whose captions say a name.
fn images_of(name: &NounName, captions: Captions<'_>) -> BTreeSet<usize> {
    name.texts.iter().map(|&text| captions.images_of[text]).collect()
}

/// What the encoder says of a name.
struct Seen {
    grounding: Grounding,
    /// Its score of every image.
    scores: Vec<f64>,
}

/// What the encoder says of a name.
fn seen(name: NounName, captions: Captions<'_>, verifier: &Verifier) -> Result<Seen, AlignError> {
    let scores = captions.images.iter().map(|image| verifier.score(image, &name.name));
    let scores = scores.collect::<Result<Vec<f64>, _>>()?;
    let said = images_of(&name, captions);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (at, &score) in scores.iter().enumerate() {
        if said.contains(&at) { with.push(score) } else { without.push(score) }
    }
    let enough = with.len() >= 2 && without.len() >= 2;
    let auc = enough.then(|| auc_of(&with, &without));
    Ok(Seen { grounding: Grounding { name, auc, same_as: None, drop: None }, scores })
}

/// Says of every object which more frequent name is the same one's, by the scores of each.
fn with_synonyms(names: Vec<Seen>, captions: Captions<'_>) -> Vec<Grounding> {
    let count = captions.images.len() as f64;
    let mut known: Vec<(String, Vec<f64>, BTreeSet<usize>)> = Vec::new();
    let same_as = |Seen { grounding: mut it, scores }| {
        if it.name.kind != NameKind::Object || !it.is_seen() {
            return it;
        }
        let (scores, said) = (standardised(&scores), images_of(&it.name, captions));
        let same = known.iter().find(|(_, others, other)| {
            let product: f64 = scores.iter().zip(others).map(|(one, other)| one * other).sum();
            let both = said.intersection(other).count() as f64;
            product / count >= SAME && both <= said.len() as f64 * other.len() as f64 / count
        });
        it.same_as = same.map(|(name, ..)| name.clone());
        if it.same_as.is_none() {
            known.push((it.name.name.clone(), scores, said));
        }
        it
    };
    names.into_iter().map(same_as).collect()
}

/// Values less their mean, in standard deviations; zeros where all are equal.
fn standardised(values: &[f64]) -> Vec<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let scale = if variance > 0.0 { variance.powf(-0.5) } else { 0.0 };
    values.iter().map(|value| (value - mean) * scale).collect()
}

/// What a phrase scores beyond its noun, both of which the verifier knows.
///
/// # Errors
/// [`VerifierError::Card`] when a matching head's card fails.
pub fn beyond_noun(
    phrase: &NounName,
    image: &ImageEmbedding,
    verifier: &Verifier,
) -> Result<f64, VerifierError> {
    Ok(verifier.score(image, &phrase.name)? - verifier.score(image, &phrase.noun)?)
}

/// What the encoder says of phrases of a kind, pooled by their precision.
fn of_kind(
    kind: NameKind,
    phrases: &[NounName],
    captions: Captions<'_>,
    verifier: &Verifier,
) -> Result<KindGrounding, AlignError> {
    let names: Vec<&NounName> = phrases.iter().filter(|phrase| phrase.kind == kind).collect();
    let (mut compared, mut sum, mut precision) = (Vec::new(), 0.0, 0.0);
    for phrase in &names {
        let said = images_of(phrase, captions);
        let others = names.iter().filter(|it| it.noun == phrase.noun && it.name != phrase.name);
        let other: BTreeSet<usize> = others.flat_map(|it| images_of(it, captions)).collect();
        let beyond = |&at: &usize| beyond_noun(phrase, &captions.images[at], verifier);
        let with = said.difference(&other).map(beyond).collect::<Result<Vec<_>, _>>()?;
        let without = other.difference(&said).map(beyond).collect::<Result<Vec<_>, _>>()?;
        if with.len() < 2 || without.len() < 2 {
            continue;
        }
        let found = auc_of(&with, &without);
        let weight = found.error.powi(-2);
        sum += weight * found.mean;
        precision += weight;
        compared.push((*phrase).clone());
    }
    let pooled = Estimate { mean: sum / precision, error: precision.powf(-0.5) };
    let auc = (!compared.is_empty()).then_some(pooled);
    Ok(KindGrounding { kind, names: compared, auc })
}

/// How much the decoder's log-probability of mentions falls without the image: a mean for each of `count` categories. `named[i]` are
/// the categories of the mentions of caption `i`, in order.
pub fn image_drops(
    count: usize,
    named: &[Vec<usize>],
    views: &[DecoderView],
) -> Vec<Option<Estimate>> {
    let mut drops = vec![Vec::new(); count];
    for (categories, view) in named.iter().zip(views) {
        let seen = view.log_probabilities.iter().zip(&view.blank_log_probabilities);
        for (&category, (seen, blank)) in categories.iter().zip(seen) {
            drops[category].push(seen - blank);
        }
    }
    drops.iter().map(|values| Estimate::of(values)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grounding(auc: Option<Estimate>, drop: Option<Estimate>) -> Grounding {
        let name = NounName {
            name: "fork".to_owned(),
            kind: NameKind::Object,
            noun: "fork".to_owned(),
            mentions: 9,
            texts: Vec::new(),
        };
        Grounding { name, auc, same_as: None, drop }
    }

    #[test]
    fn aucs_come_with_the_error_that_they_have_by_chance() {
        let found = auc_of(&[3.0, 2.0, 4.0], &[1.0, 0.0]);
        assert!((found.mean - 1.0).abs() < 1e-12);
        assert!((found.error - (6.0_f64 / 72.0).sqrt()).abs() < 1e-12);
        let [low, high] = found.interval();
        assert!((high - low - 2.0 * INTERVAL * found.error).abs() < 1e-12);
    }

    #[test]
    fn a_name_needs_an_encoder_that_sees_it_and_a_decoder_that_looked() {
        let estimate = |mean, error| Some(Estimate { mean, error });
        let (looked, blind) = (estimate(1.0, 0.1), estimate(0.1, 0.1));
        assert!(grounding(estimate(0.7, 0.04), looked).is_grounded());
        assert!(!grounding(estimate(0.7, 0.04), blind).is_grounded());
        // What is seen beyond doubt is judged even where the model says it without looking.
        assert!(grounding(estimate(0.9, 0.04), blind).is_grounded());
        assert!(grounding(estimate(0.7, 0.04), None).is_grounded());
        // By chance, too little, or in every caption.
        assert!(!grounding(estimate(0.7, 0.1), looked).is_grounded());
        assert!(!grounding(estimate(0.59, 0.01), looked).is_grounded());
        assert!(!grounding(None, looked).is_grounded());
    }

    #[test]
    fn drops_are_means_over_the_mentions_of_a_category() {
        let view = |seen: &[f64], blank: &[f64]| DecoderView {
            readings: Vec::new(),
            log_probabilities: seen.to_vec(),
            blank_log_probabilities: blank.to_vec(),
        };
        let views = [view(&[-1.0, -2.0], &[-2.0, -2.0]), view(&[-1.0], &[-4.0])];
        let drops = image_drops(3, &[vec![0, 1], vec![0]], &views);
        let first = drops[0].unwrap();
        assert!((first.mean - 2.0).abs() < 1e-12 && (first.error - 1.0).abs() < 1e-12);
        assert_eq!(drops[1..], [None, None]);
    }

    #[test]
    fn values_are_standardised_and_equal_ones_are_zero() {
        assert_eq!(standardised(&[1.0, 3.0]), [-1.0, 1.0]);
        assert_eq!(standardised(&[2.0, 2.0]), [0.0, 0.0]);
    }
}
