//! What can go wrong on a card.

use std::path::PathBuf;

/// What the library of a card's driver is called in [`CudaError::Library`].
pub(crate) const DRIVER: &str = "NVIDIA driver";

/// Why something on a card could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// A library of CUDA is not on this machine.
    #[error(
        "no {what}: looked for {} by name and in {}",
        .names.join(", "),
        listed(.folders)
    )]
    Library {
        /// What the library does.
        what: &'static str,
        /// File names that were tried.
        names: Vec<String>,
        /// Folders that were searched.
        folders: Vec<PathBuf>,
        /// How to get it.
        hint: &'static str,
    },
    /// The driver or a library of CUDA refused a call.
    #[error("{call} failed: {code}")]
    Call {
        /// Function of CUDA.
        call: &'static str,
        /// Its error code.
        code: String,
    },
    /// There is no card of this number.
    #[error("no card {ordinal}: this machine has {found}")]
    NoCard {
        /// Number asked for.
        ordinal: usize,
        /// Number of cards.
        found: usize,
    },
    /// The card is too old.
    #[error("card {name} has compute capability {found}; 8.0 is the least that is supported")]
    TooOld {
        /// Name of the card.
        name: String,
        /// Its compute capability.
        found: String,
    },
    /// A compiler did not accept the kernels.
    #[error("the kernels did not compile with {options}: {log}")]
    Compile {
        /// Options of the compiler.
        options: String,
        /// What the compiler said.
        log: String,
    },
    /// Compiled kernels could not be read or written.
    #[error("cache of compiled kernels: {}: {source}", .path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no C++ compiler, which runs kernels on the CPU.
    #[error("no C++ compiler: `{command}` could not be run: {source}")]
    HostCompiler {
        /// What was run.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A run needs more memory than there is.
    #[error(
        "{what} needs {} MiB of the card's memory, and {} MiB are free",
        .needed.div_ceil(1 << 20),
        .free >> 20
    )]
    Memory {
        /// What the memory is for.
        what: &'static str,
        /// Bytes.
        needed: usize,
        /// Bytes.
        free: usize,
        /// How to need less.
        hint: &'static str,
    },
    /// A batch is larger than the plan of its session.
    #[error("{what} is {found}; the session was planned for at most {planned}")]
    Capacity {
        /// Which size.
        what: &'static str,
        /// The batch's.
        found: usize,
        /// The plan's.
        planned: usize,
    },
    /// A size or function that the kernels do not support.
    #[error("{what} is {found}; supported are {supported}")]
    Unsupported {
        /// Which one.
        what: &'static str,
        /// What is asked for.
        found: String,
        /// Those that are possible.
        supported: &'static str,
    },
    /// A weight of another shape, or the source's own error.
    #[error("tensor `{name}`: {problem}")]
    Weight {
        /// Its name in the checkpoint.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A kernel that does not exist, or one that did not run to its end.
    #[error("kernel `{kernel}`: {problem}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// What happened.
        problem: String,
    },
}

impl CudaError {
    /// Whether it says that this machine has no NVIDIA card or no driver for one, rather than that something is wrong with them.
    pub fn is_without_card(&self) -> bool {
        match self {
            Self::Library { what, .. } => *what == DRIVER,
            Self::NoCard { found, .. } => *found == 0,
            // A driver's library may be installed where there is no card, or be a stub to link with.
            Self::Call { call: "cuInit", code } => {
                ["CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_STUB_LIBRARY"].contains(&code.as_str())
            }
            _ => false,
        }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Library { hint, .. } | Self::Memory { hint, .. } => Some(hint),
            Self::NoCard { .. } => Some("cards are counted from 0"),
            Self::HostCompiler { .. } => Some("set CXX to a compiler"),
            _ => None,
        }
    }
}

fn listed(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "no folder".to_owned();
    }
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}
