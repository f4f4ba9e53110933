//! Scores of a set of captions, with those of every image.

use std::collections::BTreeMap;

use super::bleu::BleuCounts;
use super::cider::DocumentFrequencies;
use super::meteor::{Meteor, MeteorCounts, MeteorTables};
use super::ngrams::{Numbering, Sentence};
use super::report::{
    CaptionError, CaptionOptions, CaptionReport, CaptionScores, CaptionTokens, ImageScores,
};
use super::rouge_l::rouge_l;
use super::{CaptionInput, References, caption_tokens};
use crate::digest;
use crate::statistics::{Bootstrap, Interval};

/// A caption and its references, found and divided into tokens.
struct Pair<'a> {
    image_id: &'a str,
    reference_id: &'a str,
    tokens: Vec<String>,
    reference_tokens: Vec<Vec<String>>,
    sentence: Sentence,
    reference_sentences: Vec<Sentence>,
}

/// Judges every caption against the references of its image.
///
/// # Errors
/// No captions, captions without references unless these are to be skipped, two captions of one image.
pub fn evaluate(
    captions: &[CaptionInput],
    references: &References,
    tables: &MeteorTables,
    options: &CaptionOptions,
) -> Result<CaptionReport, CaptionError> {
    if captions.is_empty() {
        return Err(CaptionError::NoCaptions);
    }
    let mut matched = BTreeMap::new();
    let mut found: BTreeMap<usize, &str> = BTreeMap::new();
    let mut missing: Vec<&str> = Vec::new();
    let mut numbering = Numbering::default();
    let mut pairs = Vec::with_capacity(captions.len());
    for input in captions {
        let position = references.index().find(&input.image_id);
        let has_some = |&(at, _): &(usize, _)| !references.images()[at].1.is_empty();
        let Some((position, how)) = position.filter(has_some) else {
            missing.push(&input.image_id);
            continue;
        };
        if let Some(first) = found.insert(position, &input.image_id) {
            let (first, second) = (first.to_owned(), input.image_id.clone());
            return Err(CaptionError::SameImage { first, second });
        }
        *matched.entry(how).or_insert(0) += 1;
        pairs.push(pair(input, &references.images()[position], &mut numbering));
    }
    if let Some(&first) = missing.first().filter(|_| !options.skip_images_without_references) {
        let (image_id, count) = (first.to_owned(), missing.len());
        return Err(CaptionError::MissingReferences { image_id, count });
    }
    if pairs.is_empty() {
        return Err(CaptionError::NoCaptions);
    }
    let per_image = score_images(&pairs, tables, options);
    let mut image_ids: Vec<&str> = pairs.iter().map(|pair| pair.reference_id).collect();
    image_ids.sort_unstable();
    Ok(CaptionReport {
        scores: per_image
            .iter()
            .map(CaptionSums::from)
            .fold(CaptionSums::default(), std::ops::Add::add)
            .scores(),
        meteor_stages: tables.stages(),
        meteor_function_words: tables.has_function_words(),
        images: pairs.len(),
        image_ids_sha256: digest::of_names(image_ids),
        references: per_image.iter().map(|image| image.references).sum(),
        empty_captions: pairs.iter().filter(|pair| pair.tokens.is_empty()).count(),
        captions_without_references: missing.len(),
        references_without_caption: references.images().len() - pairs.len(),
        matched,
        per_image,
    })
}

fn pair<'a>(
    input: &'a CaptionInput,
    (reference_id, references): &'a (String, Vec<String>),
    numbering: &mut Numbering,
) -> Pair<'a> {
    let tokens = caption_tokens(&input.caption);
    let reference_tokens: Vec<_> = references.iter().map(|text| caption_tokens(text)).collect();
    Pair {
        image_id: &input.image_id,
        reference_id,
        sentence: Sentence::new(&tokens, numbering),
        reference_sentences: reference_tokens
            .iter()
            .map(|tokens| Sentence::new(tokens, numbering))
            .collect(),
        tokens,
        reference_tokens,
    }
}

fn score_images(
    pairs: &[Pair<'_>],
    tables: &MeteorTables,
    options: &CaptionOptions,
) -> Vec<ImageScores> {
    let frequencies =
        DocumentFrequencies::of(pairs.iter().map(|pair| pair.reference_sentences.as_slice()));
    let mut meteor = Meteor::new(tables);
    let image = |pair: &Pair<'_>| {
        let bleu_counts = BleuCounts::of(&pair.sentence, &pair.reference_sentences);
        let references: Vec<&[u32]> =
            pair.reference_sentences.iter().map(|reference| reference.tokens.as_slice()).collect();
        let [bleu_1, bleu_2, bleu_3, bleu_4] = bleu_counts.scores();
        let rouge_l = rouge_l(&pair.sentence.tokens, &references);
        let meteor_counts = meteor.counts(&pair.tokens, &pair.reference_tokens);
        let meteor = meteor_counts.score();
        let cider = frequencies.cider(&pair.sentence, &pair.reference_sentences);
        ImageScores {
            image_id: pair.image_id.to_owned(),
            reference_id: pair.reference_id.to_owned(),
            references: pair.reference_sentences.len(),
            scores: CaptionScores { bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, cider, meteor },
            bleu_counts,
            meteor_counts,
            tokens: options.tokens.then(|| CaptionTokens {
                caption: pair.tokens.join(" "),
                references: pair.reference_tokens.iter().map(|tokens| tokens.join(" ")).collect(),
            }),
        }
    };
    pairs.iter().map(image).collect()
}

/// What the metrics are made of, of one image or summed over several: counts for BLEU and METEOR, sums for the means
/// of the others. The document frequencies of CIDEr stay those of the set that the images were scored in.
#[derive(derive_more::Add, Clone, Copy, Debug, Default, PartialEq)]
pub struct CaptionSums {
    bleu: BleuCounts,
    meteor: MeteorCounts,
    rouge_l: f64,
    cider: f64,
    images: f64,
}

impl From<&ImageScores> for CaptionSums {
    fn from(image: &ImageScores) -> Self {
        Self {
            bleu: image.bleu_counts,
            meteor: image.meteor_counts,
            rouge_l: image.scores.rouge_l,
            cider: image.scores.cider,
            images: 1.0,
        }
    }
}

impl CaptionSums {
    /// The metrics of the images together; not numbers where there are none.
    pub fn scores(&self) -> CaptionScores {
        let [bleu_1, bleu_2, bleu_3, bleu_4] = self.bleu.scores();
        let (rouge_l, cider) = (self.rouge_l / self.images, self.cider / self.images);
        CaptionScores {
            bleu_1,
            bleu_2,
            bleu_3,
            bleu_4,
            rouge_l,
            cider,
            meteor: self.meteor.score(),
        }
    }
}

/// Bootstrap intervals over images, in the order of [`CaptionScores::NAMES`], averaged over runs.
pub fn intervals<'a>(reports: &[&'a CaptionReport], bootstrap: Bootstrap) -> [Option<Interval>; 7] {
    let images = |report: &&'a CaptionReport| -> Vec<(&'a str, CaptionSums)> {
        report.per_image.iter().map(|image| (image.reference_id.as_str(), image.into())).collect()
    };
    let runs: Vec<_> = reports.iter().map(images).collect();
    let some = |sums: &CaptionSums| (sums.images > 0.0).then(|| sums.scores().values());
    bootstrap.intervals(&runs, |sums| some(sums).map_or([None; 7], |values| values.map(Some)))
}
