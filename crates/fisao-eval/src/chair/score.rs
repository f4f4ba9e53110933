//! `CHAIR_I`, `CHAIR_S` and recall.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::report::{ChairReport, ImageVerdict, MatchedIds, MentionVerdict};
use super::vocabulary::hexadecimal;
use super::{ChairInput, GroundTruth, MentionFinder, ObjectVocabulary, Rules};
use crate::image_id::{ImageIndex, Matched};

/// Captions that one finder reads at least: it gets quicker with the words it has met.
const BATCH: usize = 1024;

/// What to do with a caption of an image that has no ground truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingGroundTruth {
    /// Refuse to score: leaving it out would change every rate.
    #[default]
    Refuse,
    /// Leave it out and count it.
    Skip,
}

/// How captions are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChairOptions {
    /// How mentions are found.
    pub rules: Rules,
    /// What to do with captions without ground truth.
    pub missing: MissingGroundTruth,
}

/// Input that cannot be scored honestly.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChairError {
    /// Nothing to judge.
    #[error("there are no captions to evaluate")]
    NoCaptions,
    /// Leaving the caption out would change every rate.
    #[error(
        "{count} of {captions} captions describe images without ground truth, first '{image_id}'; add \
         them to the ground truth, with an empty list of objects where an image holds none, or ask for \
         such captions to be left out"
    )]
    MissingGroundTruth {
        /// The first such image.
        image_id: String,
        /// Captions of such images.
        count: usize,
        /// Captions altogether.
        captions: usize,
    },
    /// A category no caption can ever hit, so recall could never reach 1.
    #[error(
        "the ground truth of image '{image_id}' holds '{category}', which is not a category of the \
         object vocabulary; use the vocabulary's own names"
    )]
    UnknownCategory {
        /// The image.
        image_id: String,
        /// The name that is not in the vocabulary.
        category: String,
    },
}

/// Judges every caption against the objects of its image. An image is found by its name, by its number in COCO,
/// or by its name without folder and file ending, whichever holds first.
///
/// # Errors
/// No captions, an image without ground truth unless it is to be skipped, or ground truth in other names than
/// the vocabulary's. Ground truth of images without a caption is not looked at.
pub fn evaluate(
    captions: &[ChairInput],
    ground_truth: &GroundTruth,
    vocabulary: &ObjectVocabulary,
    options: &ChairOptions,
) -> Result<ChairReport, ChairError> {
    if captions.is_empty() {
        return Err(ChairError::NoCaptions);
    }
    let found = Found::new(captions, ground_truth);
    if let (Some(first), MissingGroundTruth::Refuse) = (found.first_missing, options.missing) {
        let image_id = first.image_id.clone();
        let count = captions.len() - found.judged.len();
        return Err(ChairError::MissingGroundTruth { image_id, count, captions: captions.len() });
    }
    check_categories(&found, vocabulary)?;
    let finder = MentionFinder::new(vocabulary, options.rules);
    let batch = BATCH.max(captions.len() / (4 * rayon::current_num_threads()));
    let per_image: Vec<ImageVerdict> = found
        .judged
        .par_chunks(batch)
        .flat_map_iter(|batch| {
            let mut finder = finder.clone();
            let verdicts = batch.iter().map(|judged| judge(judged, vocabulary, &mut finder));
            verdicts.collect::<Vec<_>>()
        })
        .collect();
    let mut report = summarise(per_image, &found);
    report.rules = options.rules;
    report.vocabulary_sha256 = vocabulary.sha256();
    Ok(report)
}

/// An image of the ground truth.
type Entry<'a> = (&'a String, &'a BTreeSet<String>);

/// A caption with what is really in its image.
struct Judged<'a> {
    input: &'a ChairInput,
    /// The image's name in the ground truth.
    image: &'a str,
    truth: &'a BTreeSet<String>,
}

/// Captions whose image has ground truth, and what became of the others.
struct Found<'a> {
    judged: Vec<Judged<'a>>,
    first_missing: Option<&'a ChairInput>,
    missing: usize,
    matched: MatchedIds,
}

impl<'a> Found<'a> {
    fn new(captions: &'a [ChairInput], ground_truth: &'a GroundTruth) -> Self {
        let mut found = Self {
            judged: Vec::with_capacity(captions.len()),
            first_missing: None,
            missing: 0,
            matched: MatchedIds::default(),
        };
        // Most files agree on names, so other names are indexed when the first one is asked for.
        let mut others: Option<(ImageIndex, Vec<Entry>)> = None;
        for input in captions {
            let exactly = ground_truth.get_key_value(&input.image_id);
            let entry = exactly.map(|entry| (entry, Matched::Exactly)).or_else(|| {
                let (index, entries) = others.get_or_insert_with(|| other_names(ground_truth));
                let (position, how) = index.find(&input.image_id)?;
                Some((entries[position], how))
            });
            let Some(((image, truth), how)) = entry else {
                found.first_missing.get_or_insert(input);
                found.missing += 1;
                continue;
            };
            match how {
                Matched::Exactly => found.matched.exactly += 1,
                Matched::ByNumber => found.matched.by_number += 1,
                Matched::ByFileName => found.matched.by_file_name += 1,
            }
            found.judged.push(Judged { input, image, truth });
        }
        found
    }
}

fn other_names(ground_truth: &GroundTruth) -> (ImageIndex, Vec<Entry<'_>>) {
    let mut index = ImageIndex::default();
    for (position, name) in ground_truth.keys().enumerate() {
        index.insert(name, position);
    }
    (index, ground_truth.iter().collect())
}

fn check_categories(found: &Found, vocabulary: &ObjectVocabulary) -> Result<(), ChairError> {
    let known: HashSet<&str> = vocabulary.categories().iter().map(String::as_str).collect();
    for Judged { input, truth, .. } in &found.judged {
        if let Some(category) = truth.iter().find(|name| !known.contains(name.as_str())) {
            let (image_id, category) = (input.image_id.clone(), category.clone());
            return Err(ChairError::UnknownCategory { image_id, category });
        }
    }
    Ok(())
}

fn judge(
    Judged { input, truth, .. }: &Judged,
    vocabulary: &ObjectVocabulary,
    finder: &mut MentionFinder,
) -> ImageVerdict {
    let mut missed: BTreeSet<&str> = truth.iter().map(String::as_str).collect();
    let ascii = input.caption.is_ascii();
    let characters = |to: usize| if ascii { to } else { input.caption[..to].chars().count() };
    let verdict = |(category, Range { start, end }): (usize, Range<usize>)| {
        let category = &vocabulary.categories()[category];
        missed.remove(category.as_str());
        MentionVerdict {
            hallucinated: !truth.contains(category),
            category: category.clone(),
            text: input.caption[start..end].to_owned(),
            start,
            end,
            char_start: characters(start),
            char_end: characters(end),
        }
    };
    let mentions = finder.places(&input.caption).into_iter().map(verdict).collect();
    let (image_id, caption) = (input.image_id.clone(), input.caption.clone());
    let missed = missed.into_iter().map(str::to_owned).collect();
    ImageVerdict { image_id, caption, mentions, missed }
}

fn summarise(per_image: Vec<ImageVerdict>, found: &Found) -> ChairReport {
    let wrong = |verdict: &ImageVerdict| verdict.mentions.iter().filter(|m| m.hallucinated).count();
    let words = |verdict: &ImageVerdict| verdict.caption.split_whitespace().count();
    let count = |fits: &dyn Fn(&ImageVerdict) -> bool| per_image.iter().filter(|v| fits(v)).count();
    let captions = per_image.len();
    let mentions = per_image.iter().map(|verdict| verdict.mentions.len()).sum();
    let hallucinated = per_image.iter().map(wrong).sum();
    let captions_with_hallucination = count(&|verdict| wrong(verdict) > 0);
    let ground_truth: usize = found.judged.iter().map(|judged| judged.truth.len()).sum();
    let missed: usize = per_image.iter().map(|verdict| verdict.missed.len()).sum();
    let recalled = ground_truth - missed;
    let images: BTreeSet<&str> = found.judged.iter().map(|judged| judged.image).collect();
    let mut digest = Sha256::new();
    for image in &images {
        digest.update(image);
        digest.update("\n");
    }
    ChairReport {
        rules: Rules::default(),
        vocabulary_sha256: String::new(),
        image_ids_sha256: hexadecimal(&digest.finalize()),
        chair_i: rate(hallucinated, mentions),
        chair_s: rate(captions_with_hallucination, captions),
        recall: rate(recalled, ground_truth),
        mean_length_words: rate(per_image.iter().map(words).sum(), captions),
        mentions,
        hallucinated,
        captions,
        captions_with_hallucination,
        captions_without_object: count(&|verdict| verdict.mentions.is_empty()),
        empty_captions: count(&|verdict| words(verdict) == 0),
        repeated_captions: captions - images.len(),
        captions_without_ground_truth: found.missing,
        matched: found.matched,
        recalled,
        ground_truth,
        per_image,
    }
}

fn rate(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
