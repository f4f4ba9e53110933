//! `fisao serve`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help text, where names are shown as they are written"
)]

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use fisao_serve::engine::FileAccess;

use super::{PairArguments, ScoringArguments, SettingsArguments, VocabularyArguments};

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Answer lines of JSON on standard input and output
    #[arg(long, conflicts_with = "http", required_unless_present = "http")]
    pub(crate) stdio: bool,
    /// Answer HTTP: OpenAI's protocol, verdicts, rewards, and a page to talk to the model on [default address:
    /// 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8000", value_parser = address)]
    pub(crate) http: Option<SocketAddr>,
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
    /// With --http, what requests have to carry as their bearer token; also read from FISAO_TOKEN
    #[arg(long, value_name = "TOKEN", requires = "http")]
    pub(crate) token: Option<String>,
    /// With --http, most conversations that wait or are answered; more are sent away (429)
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = super::from_to::<usize>(1, 100_000), requires = "http")]
    pub(crate) queue: usize,
    /// With --http, longest time for one answer, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = super::from_to::<u64>(1, 86_400), requires = "http")]
    pub(crate) deadline: u64,
    /// Longest request, megabytes
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = super::from_to::<usize>(1, 4096))]
    pub(crate) body_mb: usize,
}

/// An address; without a host it is the loopback, and no other is meant by accident.
fn address(text: &str) -> Result<SocketAddr, String> {
    let loopback = text.parse().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
    loopback
        .ok()
        .or_else(|| text.strip_prefix(':').and_then(|port| address(port).ok()))
        .or_else(|| text.parse().ok())
        .ok_or_else(|| {
            "an address is a port, or a number and a port, such as 127.0.0.1:8000 or [::1]:8000"
                .to_owned()
        })
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
