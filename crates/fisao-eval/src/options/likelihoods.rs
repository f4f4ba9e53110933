//! The option that the model finds most likely, as SEED-Bench's own evaluation picks it.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::score::OptionsError;
use super::{OptionQuestion, Picks, Reading};
use crate::answers::QuestionId;
use crate::rows::{RowError, read_rows};

/// How likely a model finds the options of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Likelihoods {
    /// The question.
    pub question_id: QuestionId,
    /// The logarithm of each option's probability, in order; SEED-Bench takes the mean over the option's tokens, the
    /// negative of its loss. `None`, JSON's null, is an option that the model rules out.
    pub log_likelihoods: Vec<Option<f64>>,
}

/// Reads `{"question_id": …, "log_likelihoods": […]}` rows.
///
/// # Errors
/// A row that is not such an object, or a question given twice.
pub fn read_likelihoods(reader: impl BufRead) -> Result<Vec<Likelihoods>, RowError> {
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    let expected = r#"{"question_id": …, "log_likelihoods": [-1.2, …]}"#;
    read_rows(reader, expected, |place, row: Likelihoods| {
        if !seen.insert(row.question_id.clone()) {
            let reason = format!("question {} is given twice; keep one", row.question_id.0);
            return Err(RowError::Meaning { place, reason });
        }
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

/// The place of the option with the highest log-likelihood, the first of several; `None` where all are ruled out or
/// not numbers.
pub fn most_likely(log_likelihoods: &[Option<f64>]) -> Option<usize> {
    let numbers = log_likelihoods.iter().enumerate();
    let mut best: Option<(usize, f64)> = None;
    for (place, number) in numbers.filter_map(|(at, number)| Some((at, (*number)?))) {
        if !number.is_nan() && best.is_none_or(|(_, highest)| number > highest) {
            best = Some((place, number));
        }
    }
    best.map(|(place, _)| place)
}

/// The most likely options.
///
/// # Errors
/// More or fewer likelihoods than options, or none to any of the questions.
pub fn pick_by_likelihood(
    questions: &[OptionQuestion],
    likelihoods: &[Likelihoods],
) -> Result<Picks, OptionsError> {
    let rows: HashMap<&QuestionId, &[Option<f64>]> =
        likelihoods.iter().map(|row| (&row.question_id, row.log_likelihoods.as_slice())).collect();
    let pick = |question: &OptionQuestion| {
        let Some(&numbers) = rows.get(&question.id) else { return Ok(None) };
        if numbers.len() != question.options.len() {
            return Err(OptionsError::Likelihoods {
                id: question.id.0.clone(),
                options: question.options.len(),
                found: numbers.len(),
            });
        }
        Ok(Some(most_likely(numbers).map_or(Reading::Unclear, Reading::Option)))
    };
    let readings: Vec<Option<Reading>> =
        questions.iter().map(pick).collect::<Result<_, OptionsError>>()?;
    let known = readings.iter().flatten().count();
    match (questions.first(), likelihoods.first()) {
        (Some(question), Some(row)) if known == 0 => Err(OptionsError::Strangers {
            rows: likelihoods.len(),
            row: row.question_id.0.clone(),
            question: question.id.0.clone(),
        }),
        _ => Ok(Picks { readings, unknown: likelihoods.len() - known }),
    }
}
