//! What is in run folders, without loading a model: a run a line, or runs beside each other.

mod comparison;
mod found;
mod listing;
mod run;

pub use self::comparison::{Differences, as_json, differences, table as compared};
pub use self::found::{Found, find};
pub use self::listing::{Cells, RunOrder, sort, table as listed};
pub use self::run::{Run, Scores, State};
