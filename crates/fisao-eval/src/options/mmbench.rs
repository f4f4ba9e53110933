//! MMBench's file of questions: columns between tabs, images within.

use std::collections::BTreeMap;
use std::io::Read;

use super::{OptionQuestion, letter};
use crate::answers::QuestionId;

/// A file that is not MMBench's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MmbenchError {
    /// Not a table.
    #[error("not a table with columns between tabs: {source}")]
    Table {
        /// What the parser met.
        source: csv::Error,
    },
    /// A column without which nothing can be asked.
    #[error("no column '{column}'; expected index, question, A, B, … and, to score, answer")]
    Column {
        /// The column.
        column: &'static str,
    },
    /// A question with fewer than two options.
    #[error("line {line}: question {index} has {options} options; it needs at least 2")]
    Options {
        /// Counted from 1.
        line: u64,
        /// The question.
        index: String,
        /// Its options.
        options: usize,
    },
    /// An answer that is none of the letters.
    #[error("line {line}: question {index} has '{answer}' as answer, which is none of its options")]
    Answer {
        /// Counted from 1.
        line: u64,
        /// The question.
        index: String,
        /// What it has.
        answer: String,
    },
}

/// Where the columns are.
struct Columns {
    index: usize,
    question: usize,
    hint: Option<usize>,
    options: Vec<usize>,
    answer: Option<usize>,
    image: Option<usize>,
    categories: Vec<(&'static str, usize)>,
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Result<Self, MmbenchError> {
        let place = |wanted: &str| {
            header.iter().position(|name| name.trim_start_matches('\u{feff}').trim() == wanted)
        };
        let needed = |column| place(column).ok_or(MmbenchError::Column { column });
        needed("A")?;
        let kinds = ["category", "l2-category", "split"];
        Ok(Self {
            index: needed("index")?,
            question: needed("question")?,
            hint: place("hint"),
            options: (0..26).map_while(|at| place(&letter(at).to_string())).collect(),
            answer: place("answer"),
            image: place("image"),
            categories: kinds.into_iter().filter_map(|kind| Some((kind, place(kind)?))).collect(),
        })
    }

    fn question(&self, row: &csv::StringRecord) -> Result<OptionQuestion, MmbenchError> {
        // pandas writes what is missing as nothing or as "nan"; options end at the first that is.
        let cell = |at: usize| {
            row.get(at).filter(|text| !text.trim().is_empty() && !text.eq_ignore_ascii_case("nan"))
        };
        let line = row.position().map_or(0, csv::Position::line);
        let index = cell(self.index).unwrap_or_default().to_owned();
        let options: Vec<String> =
            self.options.iter().map_while(|&at| cell(at).map(str::to_owned)).collect();
        if options.len() < 2 {
            return Err(MmbenchError::Options { line, index, options: options.len() });
        }
        let mut answer = None;
        if let Some(text) = self.answer.and_then(cell) {
            let place = (0..options.len()).find(|&at| text.trim() == letter(at).to_string());
            let Some(place) = place else {
                return Err(MmbenchError::Answer { line, index, answer: text.to_owned() });
            };
            answer = Some(place);
        }
        let categories = self
            .categories
            .iter()
            .filter_map(|&(kind, at)| Some((kind.to_owned(), cell(at)?.to_owned())));
        Ok(OptionQuestion {
            id: QuestionId(index),
            image: None,
            hint: self.hint.and_then(cell).map(str::to_owned),
            question: cell(self.question).unwrap_or_default().to_owned(),
            options,
            answer,
            categories: categories.collect::<BTreeMap<_, _>>(),
        })
    }
}

/// Hands on every question of an MMBench table with its image, which is base64, or the index of the row that has
/// it, or `None`. One row is held at a time. Cells may be quoted, as pandas quotes them.
///
/// # Errors
/// Text that is not such a table; what `each` returns.
pub fn visit_mmbench<Failure: From<MmbenchError>>(
    reader: impl Read,
    mut each: impl FnMut(OptionQuestion, Option<&str>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let table = |source| MmbenchError::Table { source };
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').from_reader(reader);
    let columns = Columns::of(reader.headers().map_err(table)?)?;
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(table)? {
        let question = columns.question(&row)?;
        each(question, columns.image.and_then(|at| row.get(at)))?;
    }
    Ok(())
}

/// Reads the questions of an MMBench table, without their images. Categories are `category`, `l2-category` and
/// `split`.
///
/// # Errors
/// Text that is not such a table.
pub fn read_mmbench(reader: impl Read) -> Result<Vec<OptionQuestion>, MmbenchError> {
    let mut questions = Vec::new();
    visit_mmbench(reader, |question, _| {
        questions.push(question);
        Ok::<(), MmbenchError>(())
    })?;
    Ok(questions)
}
