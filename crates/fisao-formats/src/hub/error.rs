//! What can go wrong between a model's name and its files.

use std::path::PathBuf;

use super::HubId;
use crate::FormatError;

/// A model of the Hub that could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text that is no id.
    #[error("`{text}` is neither a folder nor the name of a model on the Hugging Face Hub")]
    BadId {
        /// The text.
        text: String,
    },
    /// The Hub knows no such model.
    #[error("{endpoint} has no model `{id}`")]
    NoSuchModel {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
    },
    /// The Hub knows the model, but not its revision.
    #[error("{endpoint}/{} has no revision `{}`", id.repository(), id.revision())]
    NoSuchRevision {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
    },
    /// The Hub does not show the model to us.
    #[error("{endpoint} does not show `{id}` {} (HTTP {status})", if *token { "to the owner of this token" } else { "to everyone: it does not exist, or is private" })]
    Refused {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// The Hub shows the model, but does not give out its files.
    #[error(
        "the files of `{id}` are given out only to those who accepted its licence (HTTP {status})"
    )]
    Gated {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
        /// HTTP status.
        status: u16,
    },
    /// The model's files are not what is needed.
    #[error("`{id}` has no {file}")]
    Lacks {
        /// The model.
        id: HubId,
        /// The file or files that would be needed.
        file: String,
        /// What the model is instead, and what to do about it.
        hint: Option<&'static str>,
    },
    /// The model's weights are Python pickles.
    #[error(
        "`{id}` holds its weights only as a Python pickle ({file}), which can run code when opened and is not read"
    )]
    PickleOnly {
        /// The model.
        id: HubId,
        /// The pickle found.
        file: String,
    },
    /// The network is not to be used, and the cache does not hold the whole model.
    #[error("HF_HUB_OFFLINE is set, and the cache {} does not hold {missing} of `{id}`", cache.display())]
    Offline {
        /// The model.
        id: HubId,
        /// The cache.
        cache: PathBuf,
        /// The file that is missing.
        missing: String,
    },
    /// No connection, and the cache does not hold the whole model.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
        /// What failed.
        reason: String,
        /// The file that the cache would have to hold to do without.
        missing: String,
    },
    /// The Hub is in trouble, and the cache does not hold the whole model.
    #[error("{endpoint} could not answer for {file} of `{id}` (HTTP {status})")]
    Server {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
        /// What was asked for.
        file: String,
        /// HTTP status.
        status: u16,
    },
    /// Something answered, but not as a Hub does.
    #[error("{endpoint} does not answer like a Hub when asked for {file} of `{id}`: {reason}")]
    Strange {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
        /// What was asked for.
        file: String,
        /// What is odd.
        reason: String,
    },
    /// A connection that ended too early.
    #[error("the download of {file} of `{id}` was truncated at {done} of {total} bytes: {reason}")]
    BrokenOff {
        /// The model.
        id: HubId,
        /// The file.
        file: String,
        /// Bytes that arrived.
        done: u64,
        /// Bytes promised.
        total: u64,
        /// What failed.
        reason: String,
    },
    /// The content is another than was announced.
    #[error(
        "what {endpoint} sent for {file} of `{id}` is not what it announced: {} {found} for {announced}",
        if announced.len() == 64 { "SHA-256" } else { "SHA-1" }
    )]
    WrongContent {
        /// The model.
        id: HubId,
        /// Address of the Hub.
        endpoint: String,
        /// The file.
        file: String,
        /// Digest that the Hub tells.
        announced: Box<str>,
        /// Digest of what arrived.
        found: Box<str>,
    },
    /// The disk is full.
    #[error("no room for {file} of `{id}` ({total} bytes) in {}: {source}", cache.display())]
    DiskFull {
        /// The model.
        id: HubId,
        /// The cache.
        cache: PathBuf,
        /// The file.
        file: String,
        /// Its size in bytes.
        total: u64,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A downloaded file that cannot be used, or a cache that cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl HubError {
    /// The same, where the cache could have helped if it had this file.
    pub(super) fn lacking(mut self, file: String) -> Self {
        if let Self::Unreachable { missing, .. } = &mut self {
            *missing = file;
        }
        self
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BadId { .. } => {
                "give a folder, or a name on the Hub such as owner/name or owner/name@revision"
                    .to_owned()
            }
            Self::NoSuchModel { .. } => "check the name; a private model needs HF_TOKEN, set to a \
                 token that may read it"
                .to_owned(),
            Self::NoSuchRevision { id, endpoint } => {
                format!("{endpoint}/{}/tree/main lists its branches and tags", id.repository())
            }
            Self::Refused { token: false, .. } => "check the name; for a private model set \
                 HF_TOKEN to a token that may read it"
                .to_owned(),
            Self::Refused { .. } => {
                "check the name, and that the token in HF_TOKEN is valid and may read the model"
                    .to_owned()
            }
            Self::Gated { id, endpoint, .. } => format!(
                "accept the licence on {endpoint}/{} and set HF_TOKEN to a token of the same \
                 account",
                id.repository()
            ),
            Self::Lacks { hint, .. } => return hint.map(str::to_owned),
            Self::PickleOnly { id, .. } => format!(
                "a safetensors variant may wait among its pull requests: name it as \
                 {}@refs/pr/NUMBER. Or convert it with transformers: AutoModel.from_pretrained\
                 (\"{0}\").save_pretrained(folder, safe_serialization=True)",
                id.repository()
            ),
            Self::Offline { .. } => {
                "unset HF_HUB_OFFLINE and run once with a network; the files are then kept"
                    .to_owned()
            }
            Self::Unreachable { missing, .. } => format!(
                "check the network and HF_ENDPOINT; the cache alone does not do, for it lacks \
                 {missing}"
            ),
            Self::Server { .. } => "this is the Hub's trouble: try again later".to_owned(),
            Self::Strange { .. } => {
                "HF_ENDPOINT must name a Hugging Face Hub or a complete mirror of one".to_owned()
            }
            Self::BrokenOff { .. } => {
                "run the same command again: the download resumes where it stopped".to_owned()
            }
            Self::WrongContent { .. } => {
                "nothing of it was kept: run the same command again; if it comes again, a mirror or a proxy changes files on \
                 the way"
                    .to_owned()
            }
            Self::DiskFull { .. } => {
                "make room, or set HF_HUB_CACHE to a folder on another disk".to_owned()
            }
            Self::Format(error) => return error.hint(),
        })
    }
}
