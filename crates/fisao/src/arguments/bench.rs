//! `fisao bench`.

use clap::Args;

use super::{DeviceArguments, ReportFormat};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct BenchArguments {
    /// Cases to measure, by name or by the beginning of their names, such as decode; heavy ones by their whole name only; without any, all but the heavy ones
    #[arg(value_name = "CASE")]
    pub(crate) cases: Vec<String>,
    /// Say what cases there are and measure nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// Heavy cases as well: they take minutes, and up to 16 GB of memory
    #[arg(long, conflicts_with = "cases")]
    pub(crate) all: bool,
    /// Repeat every case for at least so long, and three times or more
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// Do not measure what the machine can do at best, which results are set against
    #[arg(long)]
    pub(crate) no_ceilings: bool,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ReportFormat,
    /// Measure one case in this process
    #[arg(long, hide = true)]
    pub(crate) here: bool,
    /// End when standard input does
    #[arg(long, hide = true, requires = "here")]
    pub(crate) ends_with_input: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err("must be a number above 0".to_owned()),
    }
}
