//! Kernels compiled by NVRTC for one architecture, and the folder that keeps them.

#![allow(unsafe_code, reason = "calls NVRTC")]

use std::ffi::{CStr, CString, c_char};
use std::io::Write;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::result::{NvrtcError, compile_program, create_program, destroy_program};
use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use super::libraries::{NVRTC, load};
use crate::source::{define, kernel_source};
use crate::{CudaError, Storage};

/// Compute capability of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Architecture {
    /// 8 of 8.9.
    pub major: u32,
    /// 9 of 8.9.
    pub minor: u32,
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

/// Where compiled kernels are kept: a file for each text, set of options and version of NVRTC.
#[derive(Debug, Clone)]
pub struct CubinCache {
    folder: PathBuf,
}

impl CubinCache {
    /// In this folder, which is made when something is written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The kernels for an element type on an architecture; compiled, where they have not been.
    ///
    /// # Errors
    /// [`CudaError::Library`] without NVRTC, [`CudaError::Compile`], [`CudaError::Cache`].
    pub fn cubin(
        &self,
        storage: Storage,
        architecture: Architecture,
    ) -> Result<Vec<u8>, CudaError> {
        let version = nvrtc_version()?;
        let mut digest = Sha256::new();
        digest.update(kernel_source());
        digest.update(options(storage, architecture).join("\0"));
        digest.update(format!("{version:?}"));
        let name = format!("{}.cubin", hex::encode(&digest.finalize()[..16]));
        let path = self.folder.join(name);
        match std::fs::read(&path) {
            Ok(cubin) if cubin.starts_with(b"\x7fELF") => return Ok(cubin),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(CudaError::Cache { path, source }),
        }
        let cubin = compile_cubin(storage, architecture)?.code;
        write(&path, &cubin).map_err(|source| CudaError::Cache { path, source })?;
        Ok(cubin)
    }
}

/// Writes under a name of its own, then renames: another process finds all of a file or none.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("{}.part", std::process::id()));
    let mut file = std::fs::File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&unfinished, path)
}

/// Version of NVRTC, major and minor.
///
/// # Errors
/// [`CudaError::Library`] where there is none.
pub fn nvrtc_version() -> Result<[i32; 2], CudaError> {
    load(NVRTC)?;
    let [mut major, mut minor] = [0; 2];
    // SAFETY: NVRTC is loaded, and writes the two numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|error| failed("nvrtcVersion", error))?;
    Ok([major, minor])
}

fn options(storage: Storage, architecture: Architecture) -> [String; 4] {
    let report = "--ptxas-options=-v".to_owned();
    [format!("--gpu-architecture={architecture}"), "-std=c++17".to_owned(), define(storage), report]
}

fn failed(call: &'static str, error: NvrtcError) -> CudaError {
    CudaError::Call { call, code: format!("{:?}", error.0) }
}

/// Kernels as machine code.
#[derive(Debug, Clone)]
pub struct Cubin {
    /// An ELF file.
    pub code: Vec<u8>,
    /// What the assembler says of each kernel.
    pub resources: Vec<KernelResources>,
}

/// What a thread of a kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelResources {
    /// Name of the kernel.
    pub name: String,
    /// Registers of 32 bits.
    pub registers: usize,
    /// Bytes of local memory, which is slow.
    pub stack_bytes: usize,
}

/// Reads the assembler's report.
fn resources(log: &str) -> Vec<KernelResources> {
    let mut found: Vec<KernelResources> = Vec::new();
    let number = |line: &str, after: &str| -> Option<usize> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| word.trim_end_matches(',') == after)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    for line in log.lines() {
        if line.contains("Compiling entry function")
            && let Some(name) = line.split('\'').nth(1)
        {
            let name = name.to_owned();
            found.push(KernelResources { name, registers: 0, stack_bytes: 0 });
        }
        let Some(kernel) = found.last_mut() else { continue };
        if line.contains("bytes stack frame")
            && let Some(bytes) = line.split_whitespace().find_map(|word| word.parse().ok())
        {
            kernel.stack_bytes = bytes;
        }
        kernel.registers = number(line, "registers").unwrap_or(kernel.registers);
    }
    found
}

/// Compiles all kernels for an element type to machine code of an architecture. No card is needed.
///
/// # Errors
/// [`CudaError::Library`] without NVRTC, [`CudaError::Compile`] with what it says.
pub fn compile_cubin(storage: Storage, architecture: Architecture) -> Result<Cubin, CudaError> {
    compile(&kernel_source(), &options(storage, architecture))
}

fn compile(source: &str, options: &[String]) -> Result<Cubin, CudaError> {
    load(NVRTC)?;
    let source = CString::new(source).expect("kernels hold no NUL");
    let program = create_program(&source, Some(c"fisao.cu"))
        .map_err(|error| failed("nvrtcCreateProgram", error))?;
    // SAFETY: the program was just created, lives until it is destroyed below, and its text until then.
    unsafe {
        let compiled = compile_program(program, options);
        let result = match compiled {
            Ok(()) => code(program).map(|code| Cubin { code, resources: resources(&log(program)) }),
            Err(_) => Err(CudaError::Compile { options: options.join(" "), log: log(program) }),
        };
        destroy_program(program).map_err(|error| failed("nvrtcDestroyProgram", error))?;
        result
    }
}

/// # Safety
/// A program that was compiled and not destroyed.
unsafe fn code(program: sys::nvrtcProgram) -> Result<Vec<u8>, CudaError> {
    let mut size = 0_usize;
    // SAFETY: the caller's; the second call writes as many bytes as the first says.
    unsafe {
        sys::nvrtcGetCUBINSize(program, &raw mut size)
            .result()
            .map_err(|error| failed("nvrtcGetCUBINSize", error))?;
        let mut cubin = vec![0_u8; size];
        sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast::<c_char>())
            .result()
            .map_err(|error| failed("nvrtcGetCUBIN", error))?;
        Ok(cubin)
    }
}

/// # Safety
/// A program that was not destroyed.
unsafe fn log(program: sys::nvrtcProgram) -> String {
    // SAFETY: the caller's.
    let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
    let bytes: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
    let text = CStr::from_bytes_until_nul(&bytes);
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubin_is_written_once_and_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = CubinCache::new(folder.path().join("kernels"));
        if let Err(error) = nvrtc_version() {
            skipped("cubin_is_written_once_and_read_back", &error);
            return;
        }
        let architecture = Architecture { major: 8, minor: 0 };
        let first = cache.cubin(Storage::Bf16, architecture).expect("kernels compile");
        let files = || std::fs::read_dir(folder.path().join("kernels")).expect("a folder");
        let paths: Vec<_> = files().map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(paths.len(), 1, "{paths:?}");
        assert_eq!(std::fs::read(&paths[0]).expect("a file"), first);
        // What is there is taken as it is, if it may be a cubin at all.
        std::fs::write(&paths[0], b"\x7fELF other").expect("a file");
        assert_eq!(cache.cubin(Storage::Bf16, architecture).expect("a file"), b"\x7fELF other");
        std::fs::write(&paths[0], b"").expect("a file");
        assert_eq!(cache.cubin(Storage::Bf16, architecture).expect("compiled"), first);
        assert_eq!(files().count(), 1);
    }

    #[test]
    fn compiler_message_is_reported() {
        if let Err(error) = nvrtc_version() {
            skipped("compiler_message_is_reported", &error);
            return;
        }
        let options = options(Storage::F32, Architecture { major: 9, minor: 0 });
        let error = compile("extern \"C\" __global__ void k() { nonsense; }", &options);
        let message = error.expect_err("an unknown name").to_string();
        assert!(message.contains("nonsense") && message.contains("sm_90"), "{message}");
    }

    #[test]
    fn report_of_the_assembler_is_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'first' for 'sm_90'\n\
                   ptxas info    : Function properties for first\n\
                   ptxas         .     400 bytes stack frame, 8 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 96 registers, used 1 barriers, 400 bytes cumulative stack size\n\
                   ptxas info    : Compiling entry function 'second' for 'sm_90'\n\
                   ptxas info    : Used 12 registers\n";
        let of = |name: &str, registers, stack_bytes| KernelResources {
            name: name.to_owned(),
            registers,
            stack_bytes,
        };
        assert_eq!(resources(log), [of("first", 96, 400), of("second", 12, 0)]);
    }

    #[expect(clippy::print_stderr, reason = "a test says that it was skipped")]
    fn skipped(test: &str, why: &CudaError) {
        eprintln!("skipped: {test}: {why}");
    }
}
