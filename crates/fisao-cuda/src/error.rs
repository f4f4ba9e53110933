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
            Self::Call { code, .. } => Some(call_hint(code)),
            Self::Compile { .. } | Self::Kernel { .. } => Some(REPORT),
            Self::Cache { .. } => Some("set FISAO_CACHE to a folder that can be written"),
            _ => None,
        }
    }
}

const REPORT: &str = "please report it with the message above and the driver's version, which `nvidia-smi` prints; --device cpu runs without \
                      the card";

/// What to do about an error code of the driver, NVRTC or cuBLASLt.
fn call_hint(code: &str) -> &'static str {
    match code {
        "CUDA_ERROR_OUT_OF_MEMORY" | "CUBLAS_STATUS_ALLOC_FAILED" | "NVRTC_ERROR_OUT_OF_MEMORY" => {
            "close other programs on the card, which `nvidia-smi` lists; a run takes less with --set align.micro-batch=1, a smaller \
             max-new-tokens or --dtype bf16"
        }
        // The driver is older than NVRTC or cuBLASLt.
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
        | "CUDA_ERROR_INVALID_PTX"
        | "CUDA_ERROR_INVALID_IMAGE"
        | "CUDA_ERROR_NO_BINARY_FOR_GPU"
        | "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        | "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"
        | "CUDA_ERROR_STUB_LIBRARY"
        | "CUBLAS_STATUS_ARCH_MISMATCH"
        | "NVRTC_ERROR_INVALID_OPTION" => {
            "update the NVIDIA driver, whose version `nvidia-smi` prints: it has to support the CUDA version of NVRTC and cuBLASLt; \
             --device cpu runs without the card"
        }
        "CUDA_ERROR_NO_DEVICE" | "CUDA_ERROR_INVALID_DEVICE" => {
            "`nvidia-smi` lists the cards; CUDA_VISIBLE_DEVICES can hide them; --device cpu runs without one"
        }
        "CUDA_ERROR_DEVICE_UNAVAILABLE" | "CUDA_ERROR_DEVICE_NOT_LICENSED" => {
            "another process may have the card to itself: `nvidia-smi` lists processes and the compute mode; --device cpu runs without \
             the card"
        }
        "CUDA_ERROR_ECC_UNCORRECTABLE"
        | "CUDA_ERROR_NVLINK_UNCORRECTABLE"
        | "CUDA_ERROR_HARDWARE_STACK_ERROR"
        | "CUDA_ERROR_CONTAINED"
        | "CUDA_ERROR_SYSTEM_NOT_READY"
        | "CUDA_ERROR_OPERATING_SYSTEM"
        | "CUDA_ERROR_UNKNOWN" => {
            "the card or its driver failed: the system's log says more (`dmesg | grep -i xid`); a restart may help, and --device cpu runs \
             without the card"
        }
        "CUDA_ERROR_LAUNCH_TIMEOUT" => {
            "the card also draws the screen and may not compute for as long: take one that does not, or --set align.micro-batch=1 and a \
             smaller max-new-tokens"
        }
        _ => REPORT,
    }
}

fn listed(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "no folder".to_owned();
    }
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_calls_say_what_to_do() {
        for (code, expected) in [
            ("CUDA_ERROR_OUT_OF_MEMORY", "align.micro-batch=1"),
            ("CUBLAS_STATUS_ALLOC_FAILED", "max-new-tokens"),
            ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "update the NVIDIA driver"),
            ("CUDA_ERROR_NO_DEVICE", "CUDA_VISIBLE_DEVICES"),
            ("CUDA_ERROR_ECC_UNCORRECTABLE", "xid"),
            ("CUDA_ERROR_ILLEGAL_ADDRESS", "please report"),
            ("CUDA_ERROR_LAUNCH_FAILED", "--device cpu"),
            ("CUBLAS_STATUS_EXECUTION_FAILED", "please report"),
        ] {
            let error = CudaError::Call { call: "cuMemcpyDtoHAsync", code: code.to_owned() };
            assert_eq!(error.to_string(), format!("cuMemcpyDtoHAsync failed: {code}"));
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(expected), "{code}: {hint}");
        }
    }
}
