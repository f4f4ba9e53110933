//! `fisao runs`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_runs::run_list;

use super::ReportFormat;

#[derive(Debug, Args)]
pub(crate) struct RunsArguments {
    /// Folders of runs, or folders that hold some, up to two levels down
    #[arg(value_name = "FOLDER", default_value = "runs")]
    pub(crate) folders: Vec<PathBuf>,
    /// Show the runs side by side: the settings in which they differ, and what they measured
    #[arg(long)]
    pub(crate) compare: bool,
    /// Order of the runs: by name, or the newest, furthest or best first; runs without the value come last
    #[arg(long, value_name = "KEY", default_value = "path")]
    pub(crate) sort: RunOrder,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ReportFormat,
}

/// What runs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunOrder {
    Path,
    State,
    Method,
    Seed,
    Written,
    Iterations,
    Reward,
    Kl,
    Length,
    Warnings,
    ChairI,
    ChairS,
    Recall,
}

impl From<RunOrder> for run_list::RunOrder {
    fn from(order: RunOrder) -> Self {
        match order {
            RunOrder::Path => Self::Path,
            RunOrder::State => Self::State,
            RunOrder::Method => Self::Method,
            RunOrder::Seed => Self::Seed,
            RunOrder::Written => Self::Written,
            RunOrder::Iterations => Self::Iterations,
            RunOrder::Reward => Self::Reward,
            RunOrder::Kl => Self::Kl,
            RunOrder::Length => Self::Length,
            RunOrder::Warnings => Self::Warnings,
            RunOrder::ChairI => Self::ChairI,
            RunOrder::ChairS => Self::ChairS,
            RunOrder::Recall => Self::Recall,
        }
    }
}
