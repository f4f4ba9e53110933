//! What is known about each setting: `cargo xtask settings` writes the table from the doc comments of the configuration's types.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// A setting.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// The setting that another one must have for this one to exist, as `key = "value"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What is written for it: "whole number", "word".
    pub kind: String,
    /// Words that it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Word>,
    /// Whether it may be absent.
    #[serde(default)]
    pub optional: bool,
    /// What it does, with unit, range, default and source.
    pub doc: String,
}

/// A word that a setting may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Word {
    /// What is written.
    pub name: String,
    /// What it stands for.
    pub doc: String,
}

impl Setting {
    /// What it does, in a sentence.
    pub fn summary(&self) -> &str {
        self.doc.split_once(". ").map_or(self.doc.trim_end_matches('.'), |(first, _)| first)
    }
}

/// All settings, in the order of the configuration's tables.
pub static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("settings_reference.json"))
        .expect("the table is written by a program")
});
