//! `fisao demo`.

use std::path::PathBuf;

use clap::Args;

use super::SettingsArguments;

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Folder for the report and everything else; must not hold a run yet
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Seed of the run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// A shorter and rougher run
    #[arg(long)]
    pub(crate) quick: bool,
    /// Go on with the run that the output folder holds
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}
