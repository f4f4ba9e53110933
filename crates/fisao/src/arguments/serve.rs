//! `fisao serve`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help text, where names are shown as they are written"
)]

use std::path::PathBuf;

use clap::Args;
use fisao_serve::engine::FileAccess;

use super::{PairArguments, ScoringArguments, SettingsArguments, VocabularyArguments};

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Answer lines of JSON on standard input and output
    #[arg(long)]
    pub(crate) stdio: bool,
    #[command(flatten)]
    pub(crate) pair: PairArguments,
    /// Calibration that turns scores into probabilities and rewards, as `fisao calibrate` writes it
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
    /// Settings of the rewards (reward.…); the others of a training run have no effect here
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
    /// Folder of images that requests may name by their path [default: any with --stdio, none with --http]
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Longest request, megabytes
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = super::from_to::<usize>(1, 4096))]
    pub(crate) body_mb: usize,
}

impl ServeArguments {
    /// Which files requests may name.
    pub(crate) fn files(&self) -> FileAccess {
        match &self.images {
            Some(folder) => FileAccess::Folder(folder.clone()),
            None if self.stdio => FileAccess::All,
            None => FileAccess::None,
        }
    }
}
