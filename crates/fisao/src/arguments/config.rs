//! `fisao config`.

use clap::{Args, ValueEnum};

use super::SettingsArguments;

#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    /// Settings to explain, or tables of settings: align.learning-rate, recall [default: a list of all]
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
    /// Show the settings of `fisao demo` and `align --demo` instead of those of `align`
    #[arg(long)]
    pub(crate) demo: bool,
    /// How to print them; toml is a whole configuration file, for --config
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: ConfigFormat,
}

/// How settings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigFormat {
    Text,
    Json,
    Toml,
}
