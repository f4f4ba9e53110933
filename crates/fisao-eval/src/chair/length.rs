//! Two systems compared at equal caption length: a longer caption names more objects, and more that are not there, so that a
//! difference in CHAIR may be one in length.
//!
//! Two ways. [`equal_length`] cuts both captions of an image to the length of the shorter one, which are then scored like any
//! other. [`adjusted_for_length`] leaves the captions alone and regresses the difference on the difference in length:
//!
//! ```text
//! r = Σ aᵢ / Σ bᵢ                       a number of one system, over images i: CHAIR_I = Σ hallucinatedᵢ / Σ mentionsᵢ
//! uᵢ = r + (aᵢ − r·bᵢ) / mean(b)         what image i contributes; mean(u) = r
//! dᵢ = uᵢ(second) − uᵢ(first)            mean(d) = r(second) − r(first), the difference
//! lᵢ = lengthᵢ(second) − lengthᵢ(first)  in words
//! dᵢ = α + β·lᵢ + εᵢ                     least squares
//!
//! difference = α + β·mean(l)
//! ```
//!
//! α is the difference that is left at equal length, β what one more word costs. Where `bᵢ` is 1 for every image, as for
//! `CHAIR_S` with one caption each, `uᵢ` is the image's own value. F1 is linearised the same way:
//! `uᵢ = F + ∂F/∂P·(uᵢ(P) − P) + ∂F/∂R·(uᵢ(R) − R)`, `∂F/∂P = 2R²/(P+R)²`, `∂F/∂R = 2P²/(P+R)²`.
//! Intervals are bootstrap intervals over images, everything computed anew in each resample.

use serde::Serialize;

use super::ChairCounts;
use super::reference::sentence_spans;
use crate::statistics::{Bootstrap, Interval};

/// What the length of a caption is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthUnit {
    /// Words, as white space parts them.
    Words,
    /// Sentences, as NLTK parts them.
    Sentences,
}

/// Two captions, both cut to the length of the shorter one. The shorter one stays as it is.
pub fn equal_length<'a>(first: &'a str, second: &'a str, unit: LengthUnit) -> (&'a str, &'a str) {
    let (ends, other) = (unit.ends(first), unit.ends(second));
    let length = ends.len().min(other.len());
    let cut = |text: &'a str, ends: &[usize]| match ends.get(length) {
        // There is more behind that length.
        Some(_) => &text[..length.checked_sub(1).map_or(0, |last| ends[last])],
        None => text,
    };
    (cut(first, &ends), cut(second, &other))
}

impl LengthUnit {
    /// Where each word or sentence of a text ends.
    fn ends(self, text: &str) -> Vec<usize> {
        match self {
            Self::Words => {
                let end = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize + word.len();
                text.split_whitespace().map(end).collect()
            }
            Self::Sentences => sentence_spans(text).into_iter().map(|span| span.end).collect(),
        }
    }
}

/// A number of CHAIR that can be adjusted for length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChairNumber {
    /// `CHAIR_S`.
    ChairS,
    /// `CHAIR_I`.
    ChairI,
    /// Recall.
    Recall,
    /// F1.
    F1,
}

/// A difference between two systems, and what is left of it at equal length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthAdjusted {
    /// The second's number less the first's, as it is: α + β·mean(l).
    pub difference: f64,
    /// α: the difference at equal length.
    pub adjusted: f64,
    /// 95 % bootstrap interval of it.
    pub adjusted_interval: Option<Interval>,
    /// β: change of the number with each word that the second's caption is longer.
    pub slope: f64,
    /// 95 % bootstrap interval of it.
    pub slope_interval: Option<Interval>,
    /// mean(l): words that the second's captions are longer on average.
    pub mean_length_difference: f64,
    /// Whether equal length lies outside all differences in length that there are, so that the adjusted difference is
    /// extrapolated.
    pub extrapolated: bool,
}

/// Adjusts a difference for the length of captions; see the [module](self). Counts of the first and of the second system,
/// one pair for each image. `None` where a number is of nothing, or lengths differ by the same everywhere.
pub fn adjusted_for_length(
    images: &[(ChairCounts, ChairCounts)],
    number: ChairNumber,
    bootstrap: Bootstrap,
) -> Option<LengthAdjusted> {
    let moments: Vec<Moments> = images.iter().map(Moments::of).collect();
    let fit = |drawn: &[usize]| {
        drawn.iter().fold(Moments::default(), |sum, &at| sum + moments[at]).fit(number)
    };
    let all: Vec<usize> = (0..images.len()).collect();
    let Fit { difference, adjusted, slope, mean_length_difference } = fit(&all)?;
    let fits = bootstrap.resample(images.len(), fit);
    let interval = |value: fn(&Fit) -> f64| Interval::of(fits.iter().flatten().map(value));
    let lengths = || moments.iter().map(|image| image.length);
    let extrapolated = lengths().all(|length| length > 0.0) || lengths().all(|length| length < 0.0);
    Some(LengthAdjusted {
        difference,
        adjusted,
        adjusted_interval: interval(|fit| fit.adjusted),
        slope,
        slope_interval: interval(|fit| fit.slope),
        mean_length_difference,
        extrapolated,
    })
}

/// What a regression over images gives.
struct Fit {
    difference: f64,
    adjusted: f64,
    slope: f64,
    mean_length_difference: f64,
}

/// Sums over images of what the regression takes: all of it is linear in these.
#[derive(derive_more::Add, Clone, Copy, Default)]
struct Moments {
    images: f64,
    /// Σ l
    length: f64,
    /// Σ l²
    length_squared: f64,
    first: Ratios,
    second: Ratios,
}

/// Sums of one system: Σ a, Σ b, Σ l·a and Σ l·b of each ratio.
#[derive(derive_more::Add, Clone, Copy, Default)]
struct Ratios {
    chair_s: Ratio,
    chair_i: Ratio,
    recall: Ratio,
}

#[derive(derive_more::Add, Clone, Copy, Default)]
struct Ratio {
    part: f64,
    whole: f64,
    length_part: f64,
    length_whole: f64,
}

impl Moments {
    /// Of one image.
    fn of((first, second): &(ChairCounts, ChairCounts)) -> Self {
        let words = |counts: &ChairCounts| counts.mean_length_words().unwrap_or(0.0);
        let length = words(second) - words(first);
        let ratio = |part: u32, whole: u32| {
            let (part, whole) = (f64::from(part), f64::from(whole));
            Ratio { part, whole, length_part: length * part, length_whole: length * whole }
        };
        let ratios = |counts: &ChairCounts| Ratios {
            chair_s: ratio(counts.captions_with_hallucination, counts.captions),
            chair_i: ratio(counts.hallucinated, counts.mentions),
            recall: ratio(counts.recalled, counts.ground_truth),
        };
        let (first, second) = (ratios(first), ratios(second));
        Self { images: 1.0, length, length_squared: length * length, first, second }
    }

    /// Least squares of d on l.
    fn fit(&self, number: ChairNumber) -> Option<Fit> {
        let first = self.side(&self.first, number)?;
        let second = self.side(&self.second, number)?;
        let mean_length_difference = self.length / self.images;
        let variation = self.length_squared - self.length * mean_length_difference;
        // Rounding leaves a little where all lengths differ by the same.
        if variation <= 1e-9 * self.length_squared.max(1.0) {
            return None;
        }
        let difference = second.value - first.value;
        let together = second.length_contributions - first.length_contributions;
        let slope = (together - self.length * difference) / variation;
        let adjusted = difference - slope * mean_length_difference;
        Some(Fit { difference, adjusted, slope, mean_length_difference })
    }

    /// One system's number, and Σ l·u.
    fn side(&self, ratios: &Ratios, number: ChairNumber) -> Option<Side> {
        match number {
            ChairNumber::ChairS => self.ratio(&ratios.chair_s),
            ChairNumber::ChairI => self.ratio(&ratios.chair_i),
            ChairNumber::Recall => self.ratio(&ratios.recall),
            ChairNumber::F1 => {
                let (chair_i, recall) = (self.ratio(&ratios.chair_i)?, self.ratio(&ratios.recall)?);
                let (precision, recalled) = (1.0 - chair_i.value, recall.value);
                let sum = precision + recalled;
                if sum <= 0.0 {
                    return None;
                }
                let value = 2.0 * precision * recalled / sum;
                let by_precision = 2.0 * (recalled / sum).powi(2);
                let by_recall = 2.0 * (precision / sum).powi(2);
                // uᵢ(P) − P = −(uᵢ(CHAIR_I) − CHAIR_I)
                let off = |side: &Side| side.length_contributions - self.length * side.value;
                let length_contributions =
                    self.length * value - by_precision * off(&chair_i) + by_recall * off(&recall);
                Some(Side { value, length_contributions })
            }
        }
    }

    fn ratio(&self, ratio: &Ratio) -> Option<Side> {
        if ratio.whole <= 0.0 {
            return None;
        }
        let value = ratio.part / ratio.whole;
        let deviations = ratio.length_part - value * ratio.length_whole;
        let length_contributions = self.length * value + deviations * self.images / ratio.whole;
        Some(Side { value, length_contributions })
    }
}

/// A number of one system.
struct Side {
    value: f64,
    /// Σ l·u
    length_contributions: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_cut_to_the_length_of_the_shorter_one() {
        let (long, short) = ("A dog.  It runs\nfast. The end.", "A cat sits here.");
        let words = equal_length(long, short, LengthUnit::Words);
        assert_eq!(words, ("A dog.  It runs", short));
        let sentences = equal_length(short, long, LengthUnit::Sentences);
        assert_eq!(sentences, (short, "A dog."));
        assert_eq!(equal_length(long, long, LengthUnit::Words), (long, long));
        assert_eq!(equal_length(long, " ", LengthUnit::Words), ("", " "));
        assert_eq!(equal_length("", long, LengthUnit::Sentences), ("", ""));
        let letters = equal_length("İç kedi. İki köpek.", "Bir kuş.", LengthUnit::Sentences);
        assert_eq!(letters.0, "İç kedi.");
    }

    fn counts(words: u32, mentions: u32, hallucinated: u32) -> ChairCounts {
        ChairCounts {
            captions: 1,
            captions_with_hallucination: u32::from(hallucinated > 0),
            mentions,
            hallucinated,
            ground_truth: 4,
            recalled: mentions - hallucinated,
            words,
            ..ChairCounts::default()
        }
    }

    /// Captions of different lengths, with as many mentions and hallucinations as their length asks for.
    fn images() -> Vec<(ChairCounts, ChairCounts)> {
        let image = |at: u32| {
            let (short, long) = (8 + at % 3, 8 + at * 7 % 13);
            let of =
                |words: u32, noise: u32| counts(words, 1 + words / 4, (words / 8 + noise).min(2));
            (of(short, at % 2), of(long, at % 5 / 4))
        };
        (0..60).map(image).collect()
    }

    /// The formulas of the module's head, one by one.
    fn by_definition(images: &[(ChairCounts, ChairCounts)], number: ChairNumber) -> (f64, f64) {
        type Part = fn(&ChairCounts) -> u32;
        let count = images.len() as f64;
        let contributions = |part: Part, whole: Part, side: usize| -> (f64, Vec<f64>) {
            let of = |image: &(ChairCounts, ChairCounts)| if side == 0 { image.0 } else { image.1 };
            let value = |of_image: Part| -> Vec<f64> {
                images.iter().map(|image| f64::from(of_image(&of(image)))).collect()
            };
            let (parts, wholes) = (value(part), value(whole));
            let mean = wholes.iter().sum::<f64>() / count;
            let rate = parts.iter().sum::<f64>() / wholes.iter().sum::<f64>();
            let each = parts.iter().zip(&wholes).map(|(a, b)| rate + (a - rate * b) / mean);
            (rate, each.collect())
        };
        let side = |side: usize| -> Vec<f64> {
            let chair_i = || contributions(|c| c.hallucinated, |c| c.mentions, side);
            let recall = || contributions(|c| c.recalled, |c| c.ground_truth, side);
            match number {
                ChairNumber::ChairS => {
                    contributions(|c| c.captions_with_hallucination, |c| c.captions, side).1
                }
                ChairNumber::ChairI => chair_i().1,
                ChairNumber::Recall => recall().1,
                ChairNumber::F1 => {
                    let ((i, u_i), (r, u_r)) = (chair_i(), recall());
                    let (p, sum) = (1.0 - i, 1.0 - i + r);
                    let (by_p, by_r) = (2.0 * r * r / (sum * sum), 2.0 * p * p / (sum * sum));
                    let each = u_i.iter().zip(&u_r);
                    each.map(|(u_i, u_r)| {
                        2.0 * p * r / sum + by_p * (1.0 - u_i - p) + by_r * (u_r - r)
                    })
                    .collect()
                }
            }
        };
        let d: Vec<f64> =
            side(1).iter().zip(side(0)).map(|(second, first)| second - first).collect();
        let l: Vec<f64> =
            images.iter().map(|(a, b)| f64::from(b.words) - f64::from(a.words)).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
        let (mean_d, mean_l) = (mean(&d), mean(&l));
        let together: f64 = d.iter().zip(&l).map(|(d, l)| (d - mean_d) * (l - mean_l)).sum();
        let slope = together / l.iter().map(|l| (l - mean_l).powi(2)).sum::<f64>();
        (mean_d - slope * mean_l, slope)
    }

    #[test]
    fn regression_follows_its_definition() {
        let images = images();
        for number in
            [ChairNumber::ChairS, ChairNumber::ChairI, ChairNumber::Recall, ChairNumber::F1]
        {
            let none = Bootstrap { resamples: 0, seed: 0 };
            let found = adjusted_for_length(&images, number, none).unwrap();
            let (adjusted, slope) = by_definition(&images, number);
            assert!((found.adjusted - adjusted).abs() < 1e-9, "{number:?}: {found:?} {adjusted}");
            assert!((found.slope - slope).abs() < 1e-9, "{number:?}: {found:?} {slope}");
            let whole = found.adjusted + found.slope * found.mean_length_difference;
            assert!((found.difference - whole).abs() < 1e-12);
        }
        let sum = |side: fn(&(ChairCounts, ChairCounts)) -> ChairCounts| {
            images.iter().map(side).fold(ChairCounts::default(), std::ops::Add::add)
        };
        let difference = sum(|image| image.1).f1().unwrap() - sum(|image| image.0).f1().unwrap();
        let found = adjusted_for_length(&images, ChairNumber::F1, Bootstrap::default()).unwrap();
        assert!((found.difference - difference).abs() < 1e-12);
        let interval = found.adjusted_interval.unwrap();
        assert!(interval.low < found.adjusted && found.adjusted < interval.high, "{found:?}");
    }

    #[test]
    fn a_difference_that_is_all_length_vanishes_at_equal_length() {
        // One hallucination where the second's caption is ten words longer, none where both are equally long.
        let image = |at: u32| {
            let longer = at % 2;
            (counts(10, 2, 0), counts(10 + 10 * longer, 2, longer))
        };
        let images: Vec<_> = (0..40).map(image).collect();
        let bootstrap = Bootstrap { resamples: 200, seed: 3 };
        let found = adjusted_for_length(&images, ChairNumber::ChairS, bootstrap).unwrap();
        assert!((found.difference - 0.5).abs() < 1e-12);
        assert!(found.adjusted.abs() < 1e-12 && (found.slope - 0.1).abs() < 1e-12, "{found:?}");
        assert!(!found.extrapolated);
        let longer: Vec<_> = images.into_iter().filter(|image| image.1.words > 10).collect();
        assert_eq!(adjusted_for_length(&longer, ChairNumber::ChairS, bootstrap), None);
        let mut longer = longer;
        longer.push((counts(10, 2, 0), counts(12, 2, 0)));
        let found = adjusted_for_length(&longer, ChairNumber::ChairS, bootstrap).unwrap();
        assert!(found.extrapolated);
    }
}
