//! `fisao inspect`.

use clap::Args;
use fisao_runs::model_location::ModelLocation;

use super::Format;

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// Checkpoint or adapter: a folder in Hugging Face or PEFT layout, or a checkpoint's name on the Hub
    #[arg(value_name = "FOLDER|ID")]
    pub(crate) place: ModelLocation,
    /// Read all weights, and refuse them if a value is NaN or infinite
    #[arg(long)]
    pub(crate) check: bool,
    /// How to print what there is
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}
