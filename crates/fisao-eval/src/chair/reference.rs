//! The published CHAIR scorers' own way of finding objects, faults included.
//!
//! Followed are `utils/chair.py` of Rohrbach et al. (LisaAnne/Hallucination) and its Python 3 edition
//! (Maxlinn/CHAIR-metric-standalone), which most papers on vision-language models run: lower case, NLTK's words,
//! the singular of `pattern.en`, a fixed list of double words, then the table of synonyms. For text in, objects
//! out the two agree but for the double word "train track", which the latter has added and which is kept here.

mod lexicon;
mod pairs;
mod rewriting;
mod sentences;
mod singular;
mod tokens;

pub use lexicon::words;
pub(crate) use lexicon::{Lexicon, ReferenceForms};
pub use singular::singularize;
pub use tokens::{Token, sentence_spans, tokenize};
