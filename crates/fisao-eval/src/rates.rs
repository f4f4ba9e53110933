//! Fractions of counts, and the four numbers of a yes-or-no question. A fraction of nothing is not a number.

use std::ops::Add;

use serde::{Deserialize, Serialize};

/// A fraction, or `None` of nothing.
pub fn rate(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The mean of numbers, or `None` where one of them is missing or there are none.
pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let values: Option<Vec<f64>> = values.into_iter().collect();
    let values = values.filter(|values| !values.is_empty())?;
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

/// How many of some questions were answered rightly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Right answers / questions; `None` where there are no questions.
    pub accuracy: Option<f64>,
    /// Right answers.
    pub correct: usize,
    /// Questions.
    pub questions: usize,
}

impl Accuracy {
    /// One more question.
    pub fn count(&mut self, correct: bool) {
        self.correct += usize::from(correct);
        self.questions += 1;
        self.accuracy = rate(self.correct, self.questions);
    }
}

impl Add for Accuracy {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (correct, questions) = (self.correct + other.correct, self.questions + other.questions);
        Self { accuracy: rate(correct, questions), correct, questions }
    }
}

impl FromIterator<bool> for Accuracy {
    fn from_iter<Verdicts: IntoIterator<Item = bool>>(verdicts: Verdicts) -> Self {
        let mut accuracy = Self::default();
        verdicts.into_iter().for_each(|correct| accuracy.count(correct));
        accuracy
    }
}

/// Answers to yes-or-no questions, counted by what was said and what is so. Which of the two answers is the
/// positive one is for the benchmark to say.
#[derive(derive_more::Add, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Positive, and said to be.
    pub true_positive: usize,
    /// Negative, but said to be positive.
    pub false_positive: usize,
    /// Negative, and said to be.
    pub true_negative: usize,
    /// Positive, but said to be negative.
    pub false_negative: usize,
}

impl Confusion {
    /// One more answer.
    pub fn count(&mut self, said: bool, is: bool) {
        *match (said, is) {
            (true, true) => &mut self.true_positive,
            (true, false) => &mut self.false_positive,
            (false, false) => &mut self.true_negative,
            (false, true) => &mut self.false_negative,
        } += 1;
    }

    /// Answers counted.
    pub fn total(&self) -> usize {
        self.said_positive() + self.true_negative + self.false_negative
    }

    /// Answers that said the positive.
    pub fn said_positive(&self) -> usize {
        self.true_positive + self.false_positive
    }

    /// Answers whose truth is the positive.
    pub fn truly_positive(&self) -> usize {
        self.true_positive + self.false_negative
    }

    /// (TP + TN) / all
    pub fn accuracy(&self) -> Option<f64> {
        rate(self.true_positive + self.true_negative, self.total())
    }

    /// TP / (TP + FP)
    pub fn precision(&self) -> Option<f64> {
        rate(self.true_positive, self.said_positive())
    }

    /// TP / (TP + FN)
    pub fn recall(&self) -> Option<f64> {
        rate(self.true_positive, self.truly_positive())
    }

    /// 2 · TP / (2 · TP + FP + FN), the harmonic mean of precision and recall; `None` where neither the
    /// positive was said nor it was so, 0 where only one of the two happened.
    pub fn f1(&self) -> Option<f64> {
        let twice = 2 * self.true_positive;
        rate(twice, twice + self.false_positive + self.false_negative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_means_of_nothing_are_none() {
        assert_eq!(rate(0, 0), None);
        assert_eq!(rate(1, 4), Some(0.25));
        assert_eq!(mean([]), None);
        assert_eq!(mean([Some(1.0), None]), None);
        assert_eq!(mean([Some(1.0), Some(2.0)]), Some(1.5));
        let nothing = Confusion::default();
        assert_eq!(
            [nothing.accuracy(), nothing.precision(), nothing.recall(), nothing.f1()],
            [None; 4]
        );
    }

    #[test]
    fn confusion_metrics_match_a_hand_count() {
        let mut counts = Confusion::default();
        let pairs = [(true, true), (true, true), (true, false), (false, true), (false, false)];
        for (said, is) in pairs {
            counts.count(said, is);
        }
        assert_eq!(counts.accuracy(), Some(3.0 / 5.0));
        assert_eq!(counts.precision(), Some(2.0 / 3.0));
        assert_eq!(counts.recall(), Some(2.0 / 3.0));
        assert!((counts.f1().unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(counts.said_positive(), 3);
    }
}
