//! `fisao merge`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_formats::weights::StoredDtype;
use fisao_runs::model_location::ModelLocation;

use super::{Format, WorldArguments};

#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// Vision-language checkpoint: a folder in Hugging Face layout, or a name on the Hub [default: the built-in
    /// synthetic dataset's small model]
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) model: Option<ModelLocation>,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// LoRA adapter in PEFT layout to fold into the weights, folder or name
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) adapter: ModelLocation,
    /// Fold in what the adapter changes in the model's vision tower, too
    #[arg(long)]
    pub(crate) allow_vision_adapter: bool,
    /// Folder for the merged checkpoint, new or empty
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Precision of the merged weights [default: each tensor's own]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<MergeDtype>,
    /// Largest weights file, for instance 500MB or 2GiB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_size)]
    pub(crate) max_shard_size: u64,
    /// How to print what was written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}

/// Precision of merged weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MergeDtype {
    F32,
    F16,
    Bf16,
}

impl From<MergeDtype> for StoredDtype {
    fn from(dtype: MergeDtype) -> Self {
        match dtype {
            MergeDtype::F32 => Self::F32,
            MergeDtype::F16 => Self::F16,
            MergeDtype::Bf16 => Self::Bf16,
        }
    }
}

/// A number of bytes with a unit, as transformers takes it: MB is 10⁶ bytes, MiB 2²⁰.
fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let upper = text.trim().to_ascii_uppercase();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, bytes)| Some((upper.strip_suffix(name)?, *bytes)))
        .unwrap_or((&upper, 1));
    let count = number.trim().parse::<u64>().ok().filter(|count| *count > 0);
    let bytes = count.and_then(|count| count.checked_mul(unit));
    bytes.ok_or_else(|| "a whole number with a unit is needed, such as 5GB or 500MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_parsed_with_decimal_and_binary_units() {
        assert_eq!(parse_size("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size(" 300 kb "), Ok(300_000));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "0MB", "-1GB", "1.5GB", "many", "99999999999GB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
