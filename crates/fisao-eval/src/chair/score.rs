//! `CHAIR_I`, `CHAIR_S` and recall.

use std::collections::{BTreeSet, HashSet};
use std::ops::{Add, Range};

use rayon::prelude::*;

use super::report::{ChairReport, ImageVerdict, MatchedIds, MentionVerdict};
use super::{ChairCounts, ChairInput, GroundTruth, MentionFinder, ObjectVocabulary, Rules};
use crate::digest;
use crate::image_id::{ImageIndex, Matched, canonical};

/// Captions that one finder reads at least: it gets quicker with the words it has met.
const BATCH: usize = 1024;

/// What to do with a caption of an image that has no ground truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingGroundTruth {
    /// Refuse to score: leaving it out would change every rate.
    #[default]
    Refuse,
    /// Leave it out and count it.
    Skip,
}

/// How captions are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChairOptions {
    /// How mentions are found.
    pub rules: Rules,
    /// What to do with captions without ground truth.
    pub missing: MissingGroundTruth,
    /// Whether the verdict on every mention is kept, with its caption; rates and counts do without.
    pub verdicts: bool,
}

impl Default for ChairOptions {
    fn default() -> Self {
        let (rules, missing) = (Rules::default(), MissingGroundTruth::default());
        Self { rules, missing, verdicts: true }
    }
}

/// Input that cannot be scored honestly.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChairError {
    /// Nothing to score.
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
    captions: Vec<ChairInput>,
    ground_truth: &GroundTruth,
    vocabulary: &ObjectVocabulary,
    options: &ChairOptions,
) -> Result<ChairReport, ChairError> {
    if captions.is_empty() {
        return Err(ChairError::NoCaptions);
    }
    let count = captions.len();
    let mut found = Found::new(captions, ground_truth);
    if let (Some(image_id), MissingGroundTruth::Refuse) = (found.first_missing, options.missing) {
        let missing = found.missing;
        return Err(ChairError::MissingGroundTruth { image_id, count: missing, captions: count });
    }
    check_categories(&found.judged, vocabulary)?;
    let finder = MentionFinder::new(vocabulary, options.rules);
    let batch = BATCH.max(count / (4 * rayon::current_num_threads()));
    let judged = std::mem::take(&mut found.judged);
    let outcomes: Vec<(String, ChairCounts, Option<ImageVerdict>)> = judged
        .into_par_iter()
        .with_min_len(batch)
        .map_init(
            || finder.clone(),
            |finder, judged| score_captions(judged, vocabulary, finder, options.verdicts),
        )
        .collect();
    let mut counts = Vec::with_capacity(outcomes.len());
    let mut per_image = Vec::new();
    for (image_id, of_image, verdict) in outcomes {
        counts.push((image_id, of_image));
        per_image.extend(verdict);
    }
    let sums = counts.iter().map(|(_, counts)| *counts).fold(ChairCounts::default(), Add::add);
    found.images.par_sort_unstable();
    found.images.dedup();
    let identity = Identity::of(&found.images, ground_truth);
    let captions = counts.len();
    Ok(ChairReport {
        rules: options.rules,
        vocabulary_sha256: vocabulary.sha256(),
        images: found.images.len(),
        image_ids_sha256: identity.image_ids_sha256,
        ground_truth_sha256: identity.ground_truth_sha256,
        chair_i: sums.chair_i(),
        chair_s: sums.chair_s(),
        recall: sums.recall(),
        f1: sums.f1(),
        mean_length_words: sums.mean_length_words(),
        max_length_words: counts.iter().map(|(_, counts)| counts.words).max().unwrap_or(0) as usize,
        mentions: sums.mentions as usize,
        hallucinated: sums.hallucinated as usize,
        captions,
        captions_with_hallucination: sums.captions_with_hallucination as usize,
        captions_without_object: sums.captions_without_object as usize,
        empty_captions: counts.iter().filter(|(_, counts)| counts.words == 0).count(),
        repeated_captions: captions - found.images.len(),
        captions_without_ground_truth: found.missing,
        matched: found.matched,
        recalled: sums.recalled as usize,
        ground_truth: sums.ground_truth as usize,
        counts,
        per_image,
    })
}

/// Digests that tell what was judged from anything else.
struct Identity {
    image_ids_sha256: String,
    ground_truth_sha256: String,
}

impl Identity {
    /// Of images by their names in the ground truth, each once.
    fn of(images: &[&str], ground_truth: &GroundTruth) -> Self {
        let mut named: Vec<(String, &str)> =
            images.iter().map(|&image| (canonical(image), image)).collect();
        named.sort_unstable();
        if named.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            // Names in different folders that end alike are different images.
            named = images.iter().map(|&image| (image.to_owned(), image)).collect();
        }
        let objects = |(id, image): &(String, &str)| {
            let objects = ground_truth.get(*image).into_iter().flatten().map(String::as_str);
            [id.as_str()].into_iter().chain(objects).collect::<Vec<_>>().join("\t")
        };
        let lines: Vec<String> = named.iter().map(objects).collect();
        Self {
            image_ids_sha256: digest::of_names(named.iter().map(|(id, _)| id.as_str())),
            ground_truth_sha256: digest::of_names(lines.iter().map(String::as_str)),
        }
    }
}

/// An image of the ground truth.
type Entry<'a> = (&'a String, &'a BTreeSet<String>);

/// A caption with what is really in its image.
struct Judged<'a> {
    input: ChairInput,
    /// The image's name in the ground truth.
    image: &'a str,
    truth: &'a BTreeSet<String>,
}

/// Captions whose image has ground truth, and what became of the others.
struct Found<'a> {
    judged: Vec<Judged<'a>>,
    /// The names in the ground truth of the images judged.
    images: Vec<&'a str>,
    first_missing: Option<String>,
    missing: usize,
    matched: MatchedIds,
}

impl<'a> Found<'a> {
    fn new(captions: Vec<ChairInput>, ground_truth: &'a GroundTruth) -> Self {
        let mut found = Self {
            judged: Vec::with_capacity(captions.len()),
            images: Vec::with_capacity(captions.len()),
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
                found.first_missing.get_or_insert(input.image_id);
                found.missing += 1;
                continue;
            };
            match how {
                Matched::Exactly => found.matched.exactly += 1,
                Matched::ByNumber => found.matched.by_number += 1,
                Matched::ByFileName => found.matched.by_file_name += 1,
            }
            found.images.push(image);
            found.judged.push(Judged { input, image, truth });
        }
        found
    }
}

fn other_names(ground_truth: &GroundTruth) -> (ImageIndex, Vec<Entry<'_>>) {
    (ground_truth.index(), ground_truth.iter().collect())
}

fn check_categories(judged: &[Judged], vocabulary: &ObjectVocabulary) -> Result<(), ChairError> {
    let known: HashSet<&str> = vocabulary.categories().iter().map(String::as_str).collect();
    for Judged { input, truth, .. } in judged {
        if let Some(category) = truth.iter().find(|name| !known.contains(name.as_str())) {
            let (image_id, category) = (input.image_id.clone(), category.clone());
            return Err(ChairError::UnknownCategory { image_id, category });
        }
    }
    Ok(())
}

/// Counts what a caption names, and tells of every mention if that is asked for.
fn score_captions(
    Judged { input: ChairInput { image_id, caption }, image, truth }: Judged,
    vocabulary: &ObjectVocabulary,
    finder: &mut MentionFinder,
    verdicts: bool,
) -> (String, ChairCounts, Option<ImageVerdict>) {
    let places = finder.places(&caption);
    let name = |category: usize| &vocabulary.categories()[category];
    let is_there = |category: usize| truth.contains(name(category));
    let named = |there: &str| places.iter().any(|(category, _)| name(*category) == there);
    let hallucinated = places.iter().filter(|(category, _)| !is_there(*category)).count();
    let recalled = truth.iter().filter(|there| named(there)).count();
    let words = caption.split_whitespace().count();
    let count = |number: usize| u32::try_from(number).expect("a caption is below 4 GB");
    let counts = ChairCounts {
        captions: 1,
        captions_with_hallucination: u32::from(hallucinated > 0),
        captions_without_object: u32::from(places.is_empty()),
        mentions: count(places.len()),
        hallucinated: count(hallucinated),
        ground_truth: count(truth.len()),
        recalled: count(recalled),
        words: count(words),
    };
    if !verdicts {
        return (image.to_owned(), counts, None);
    }
    let missed = truth.iter().filter(|there| !named(there)).cloned().collect();
    let ascii = caption.is_ascii();
    let characters = |to: usize| if ascii { to } else { caption[..to].chars().count() };
    let mention = |(category, Range { start, end }): &(usize, Range<usize>)| MentionVerdict {
        hallucinated: !is_there(*category),
        category: name(*category).clone(),
        text: caption[*start..*end].to_owned(),
        start: *start,
        end: *end,
        char_start: characters(*start),
        char_end: characters(*end),
    };
    let mentions = places.iter().map(mention).collect();
    let verdict = ImageVerdict { image_id, caption, words, mentions, missed };
    (image.to_owned(), counts, Some(verdict))
}
