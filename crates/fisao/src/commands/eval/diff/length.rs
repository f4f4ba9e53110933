//! Two models at equal length of captions.

use std::collections::{HashMap, VecDeque};

use fisao_eval::chair::length::{
    ChairNumber, LengthAdjusted, LengthUnit, adjusted_for_length, equal_length,
};
use fisao_eval::chair::{ChairCounts, ChairInput, ChairReport};
use fisao_eval::statistics::{Bootstrap, Interval};

use super::{Numbers, SEED};

/// The comparison where captions are equally long.
pub(super) struct AtEqualLength {
    /// Captions of an image cut to as many words.
    pub(super) words: Numbers,
    /// To as many sentences.
    pub(super) sentences: Numbers,
    /// Differences adjusted by regression.
    pub(super) regression: Adjusted,
}

/// Adjusted differences by the names of their numbers.
pub(super) type Adjusted = Vec<(&'static str, Option<LengthAdjusted>)>;

/// The captions of both, cut to equal length image by image. Several captions of one image are paired in their order; what one of
/// the two has more is left out.
pub(super) fn truncated(
    first: &ChairReport,
    second: &ChairReport,
    unit: LengthUnit,
) -> (Vec<ChairInput>, Vec<ChairInput>) {
    fn captions(report: &ChairReport) -> impl Iterator<Item = (&str, &str)> {
        let images = report.counts.iter().map(|(image, _)| image.as_str());
        images.zip(report.per_image.iter().map(|verdict| verdict.caption.as_str()))
    }
    let mut others: HashMap<&str, VecDeque<&str>> = HashMap::new();
    for (image, caption) in captions(second) {
        others.entry(image).or_default().push_back(caption);
    }
    let input = |image: &str, caption: &str| ChairInput {
        image_id: image.to_owned(),
        caption: caption.to_owned(),
    };
    let pair = |(image, caption): (&str, &str)| {
        let other = others.get_mut(image)?.pop_front()?;
        let (caption, other) = equal_length(caption, other, unit);
        Some((input(image, caption), input(image, other)))
    };
    captions(first).filter_map(pair).unzip()
}

/// Differences adjusted for length.
pub(super) fn regression(images: &[(ChairCounts, ChairCounts)], resamples: usize) -> Adjusted {
    let numbers = [
        ("chair_s", ChairNumber::ChairS),
        ("chair_i", ChairNumber::ChairI),
        ("recall", ChairNumber::Recall),
        ("f1", ChairNumber::F1),
    ];
    let bootstrap = Bootstrap { resamples, seed: SEED };
    numbers.map(|(name, number)| (name, adjusted_for_length(images, number, bootstrap))).into()
}

/// Those as lines.
pub(super) fn notes(regression: &Adjusted) -> Vec<String> {
    let interval = |interval: Option<Interval>, decimals: usize| {
        interval.map_or_else(String::new, |Interval { low, high }| {
            format!(" ({low:+.decimals$} … {high:+.decimals$})")
        })
    };
    let mut lines = Vec::new();
    for (name, found) in regression {
        let Some(found) = found else { continue };
        lines.push(format!(
            "{name}: difference at equal length by regression {:+.4}{}, slope per word {:+.5}{}",
            found.adjusted,
            interval(found.adjusted_interval, 4),
            found.slope,
            interval(found.slope_interval, 5),
        ));
    }
    let found = |(_, found): &(_, Option<LengthAdjusted>)| *found;
    if let Some(found) = regression.iter().find_map(found) {
        lines.push(format!("words longer on average: {:+.1}", found.mean_length_difference));
        if found.extrapolated {
            lines.push(
                "one model's captions are longer for every image: the regression extrapolates to equal length"
                    .to_owned(),
            );
        }
    }
    lines
}
