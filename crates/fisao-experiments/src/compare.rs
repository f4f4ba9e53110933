//! Several methods with equal budgets, over several seeds, side by side.
//!
//! `comparison` trains and measures, `measure` turns the captions of one method and seed into numbers, `document` holds the numbers of all of
//! them, `summary` says what they tell together, and `publish` writes them down.

mod ablation;
mod comparison;
mod document;
mod measure;
mod methods;
mod metric;
mod page;
mod summary;
mod tables;
#[cfg(test)]
mod tests;
mod texts;
mod trial;

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use fisao_formats::documents::{write_bytes, write_json};

pub use self::comparison::{CompareRequest, Compared, compare};
use self::document::Document;
pub use self::methods::{Ablation, BudgetChoice, MethodChoice};

/// File of the numbers.
pub(crate) const JSON: &str = "compare.json";
/// File of the tables.
pub(crate) const MARKDOWN: &str = "compare.md";
/// File of the page.
pub(crate) const PAGE: &str = "compare.html";

/// Writes a comparison into a folder, which is made: numbers, tables and page.
///
/// # Errors
/// The folder or a file in it cannot be written.
pub(crate) fn publish(document: &Document, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    write_json(&folder.join(JSON), document)?;
    write_bytes(&folder.join(MARKDOWN), tables::markdown(document).as_bytes())?;
    write_bytes(&folder.join(PAGE), page::render(document).as_bytes())?;
    Ok(())
}
