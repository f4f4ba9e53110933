//! The benchmark's files.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use crate::answers::QuestionId;
use crate::rows::{RowError, read_rows};

/// All that scoring needs.
#[derive(Clone, Debug, Default)]
pub struct AmberData {
    /// `annotations.json`.
    pub annotations: Vec<Annotation>,
    /// `relation.json`: a word and those that may stand for it. Keys and values are the vocabulary.
    pub associations: BTreeMap<String, Vec<String>>,
    /// `safe_words.txt`: words that are never wrong.
    pub safe_words: HashSet<String>,
    /// `metrics.txt`: what the official counters start from.
    pub starts: Starts,
}

/// What a query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kind {
    /// A description.
    #[serde(rename = "generative")]
    Generative,
    /// Whether an object is there.
    #[serde(rename = "discriminative-hallucination")]
    Existence,
    /// What state it is in.
    #[serde(rename = "discriminative-attribute-state")]
    State,
    /// How many there are.
    #[serde(rename = "discriminative-attribute-number")]
    Number,
    /// What it does.
    #[serde(rename = "discriminative-attribute-action")]
    Action,
    /// How two objects stand to each other. The official file calls some of them just "relation".
    #[serde(rename = "discriminative-relation", alias = "relation")]
    Relation,
}

/// What is true about one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Id of the query.
    pub id: u64,
    /// What it is about.
    pub kind: Kind,
    /// Objects that are there; empty unless generative.
    pub truth: Vec<String>,
    /// Objects that are not there but are likely to be named; empty unless generative.
    pub likely: Vec<String>,
    /// Whether the answer is yes; `false` if generative.
    pub yes: bool,
}

#[derive(Deserialize)]
struct Row {
    id: u64,
    #[serde(rename = "type")]
    kind: Kind,
    truth: Truth,
    #[serde(default)]
    hallu: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "\"truth\" is neither a list of words nor \"yes\" or \"no\"")]
enum Truth {
    Objects(Vec<String>),
    Answer(String),
}

/// Files, or responses, that cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AmberError {
    /// A file of text lines cannot be read.
    #[error("line {line} cannot be read: {source}")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
    /// `relation.json` is not an object of lists.
    #[error("not a JSON object of word → list of words: {source}")]
    Associations {
        /// What the parser met.
        source: serde_json::Error,
    },
    /// A line of `metrics.txt` that says something else.
    #[error("line {line}: '{text}' is not of the form name=number")]
    Start {
        /// Counted from 1.
        line: usize,
        /// What it is.
        text: String,
    },
    /// A response that does not say what it responds to.
    #[error(
        "response {number} has no \"id\"; AMBER's responses are {{\"id\": …, \"response\": \"…\"}}"
    )]
    NoId {
        /// Counted from 1.
        number: usize,
    },
    /// An annotated object without an association list.
    #[error(
        "annotation {id} holds '{word}', which is no key of relation.json; are both files of the \
         same version?"
    )]
    NoAssociations {
        /// The annotation.
        id: u64,
        /// The object.
        word: String,
    },
}

/// Reads `annotations.json`: `{"id": …, "type": …, "truth": …, "hallu": …}` rows.
///
/// # Errors
/// A row that is not such an object, or an id used twice.
pub fn read_annotations(reader: impl BufRead) -> Result<Vec<Annotation>, RowError> {
    let expected = r#"{"id": …, "type": "generative", "truth": ["…"], "hallu": ["…"]} or {"id": …, "type": "discriminative-…", "truth": "yes" or "no"}"#;
    let mut annotations = Vec::new();
    let mut seen = HashSet::new();
    read_rows(reader, expected, |place, row: Row| {
        let Row { id, kind, truth, hallu: likely } = row;
        let meaning = |reason: String| RowError::Meaning { place, reason };
        if !seen.insert(id) {
            return Err(meaning(format!("id {id} is used twice; remove one of its rows")));
        }
        let (truth, yes) = match (kind, truth) {
            (Kind::Generative, Truth::Objects(objects)) => (objects, false),
            (Kind::Generative, Truth::Answer(_)) => {
                return Err(meaning("\"truth\" of a generative query is a list of objects".into()));
            }
            (_, Truth::Answer(answer)) if answer == "yes" || answer == "no" => {
                (Vec::new(), answer == "yes")
            }
            _ => return Err(meaning("\"truth\" of a question is \"yes\" or \"no\"".into())),
        };
        annotations.push(Annotation { id, kind, truth, likely, yes });
        Ok(())
    })?;
    Ok(annotations)
}

/// Reads `relation.json`, an object of word → list of words.
///
/// # Errors
/// Text that is not that.
pub fn read_associations(
    reader: impl BufRead,
) -> Result<BTreeMap<String, Vec<String>>, AmberError> {
    serde_json::from_reader(reader).map_err(|source| AmberError::Associations { source })
}

/// Reads `safe_words.txt`, one word a line.
///
/// # Errors
/// Text that cannot be read.
pub fn read_safe_words(reader: impl BufRead) -> Result<HashSet<String>, AmberError> {
    let mut words = HashSet::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.map_err(|source| AmberError::Io { line: index + 1, source })?;
        words.extend(Some(line.trim().to_owned()).filter(|word| !word.is_empty()));
    }
    Ok(words)
}

/// A query to be put to the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Its id.
    pub id: QuestionId,
    /// File name of the image.
    pub image: String,
    /// The request or question.
    pub query: String,
}

/// Reads a `query_*.json`: `{"id": …, "image": …, "query": …}` rows.
///
/// # Errors
/// A row that is not such an object.
pub fn read_queries(reader: impl BufRead) -> Result<Vec<Query>, RowError> {
    let mut queries = Vec::new();
    read_rows(reader, r#"{"id": …, "image": "…", "query": "…"}"#, |_, query| {
        queries.push(query);
        Ok(())
    })?;
    Ok(queries)
}

/// What the official counters start from. Denominators start at 0.001, so that nothing divides by zero, which
/// makes every official rate a little smaller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Starts(pub BTreeMap<String, f64>);

impl Starts {
    /// The value of a counter. One that is not in the file starts at 0.001 if it is a denominator, else at 0.
    pub fn of(&self, counter: &str) -> f64 {
        let usual = if counter.ends_with("_num") { 0.001 } else { 0.0 };
        self.0.get(counter).copied().unwrap_or(usual)
    }
}

/// Reads `metrics.txt`, one name=number a line.
///
/// # Errors
/// A line that is not that.
pub fn read_starts(reader: impl BufRead) -> Result<Starts, AmberError> {
    let mut starts = BTreeMap::new();
    for (index, text) in reader.lines().enumerate() {
        let line = index + 1;
        let text = text.map_err(|source| AmberError::Io { line, source })?;
        if text.trim().is_empty() {
            continue;
        }
        let parsed = text.split_once('=').and_then(|(name, number)| {
            number.trim().parse::<f64>().ok().map(|number| (name.trim().to_owned(), number))
        });
        let Some((name, number)) = parsed.filter(|(_, number)| number.is_finite()) else {
            return Err(AmberError::Start { line, text });
        };
        starts.insert(name, number);
    }
    Ok(Starts(starts))
}

/// A fraction as a percentage with one decimal.
pub(super) fn percent(fraction: f64) -> f64 {
    one_decimal(fraction * 100.0)
}

/// A number with one decimal, as Python's `round(…, 1)` gives it.
pub(super) fn one_decimal(number: f64) -> f64 {
    format!("{number:.1}").parse().unwrap_or(number)
}
