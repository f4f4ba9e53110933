//! Finds the libraries of CUDA, before anything calls them: what calls them ends the program where one is missing.

#![allow(unsafe_code, reason = "loads shared libraries")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{CudaError, error};

/// A library and how one gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    what: &'static str,
    names: &'static [&'static str],
    hint: &'static str,
}

pub(crate) const DRIVER: Wanted = Wanted {
    what: error::DRIVER,
    names: if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] },
    hint: "it comes with the card's driver (https://www.nvidia.com/drivers); in a container, start it with --gpus all",
};

pub(crate) const NVRTC: Wanted = Wanted {
    what: "NVRTC, which compiles kernels",
    names: if cfg!(windows) {
        &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
    } else {
        &["libnvrtc.so.13", "libnvrtc.so.12"]
    },
    hint: "pip install nvidia-cuda-nvrtc, in an active virtual environment, or set FISAO_CUDA_LIBRARIES to its folder",
};

pub(crate) const CUBLASLT: Wanted = Wanted {
    what: "cuBLASLt, which multiplies matrices",
    names: if cfg!(windows) {
        &["cublasLt64_13.dll", "cublasLt64_12.dll"]
    } else {
        &["libcublasLt.so.13", "libcublasLt.so.12"]
    },
    hint: "pip install nvidia-cublas, in an active virtual environment, or set FISAO_CUDA_LIBRARIES to its folder",
};

/// Libraries that are loaded; they stay so.
static LOADED: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// Loads a library and leaves it loaded, so that a later request by its name finds it, wherever it lies.
pub(crate) fn load(wanted: Wanted) -> Result<(), CudaError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.contains(&wanted.what) {
        return Ok(());
    }
    let folders = folders(&|name| std::env::var_os(name).map(PathBuf::from));
    load_from(wanted, &folders)?;
    loaded.push(wanted.what);
    Ok(())
}

fn load_from(wanted: Wanted, folders: &[PathBuf]) -> Result<(), CudaError> {
    let in_folders = folders
        .iter()
        .flat_map(|folder| wanted.names.iter().map(move |name| folder.join(name)))
        .filter(|path| path.exists());
    let by_name = wanted.names.iter().map(PathBuf::from);
    for path in by_name.chain(in_folders) {
        if open(path.as_os_str()) {
            return Ok(());
        }
    }
    Err(CudaError::Library {
        what: wanted.what,
        names: wanted.names.iter().map(|&name| name.to_owned()).collect(),
        folders: folders.to_vec(),
        hint: wanted.hint,
    })
}

#[cfg(unix)]
fn open(path: &OsStr) -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
    // SAFETY: NVIDIA's libraries may be loaded at any time; this one is never unloaded.
    let library = unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_GLOBAL) };
    library.map(std::mem::forget).is_ok()
}

#[cfg(not(unix))]
fn open(path: &OsStr) -> bool {
    // SAFETY: NVIDIA's libraries may be loaded at any time; this one is never unloaded.
    let library = unsafe { libloading::Library::new(path) };
    library.map(std::mem::forget).is_ok()
}

/// Folders besides the system's, by the environment: those of wheels from `PyPI`, of Conda and of a toolkit.
fn folders(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(folder) = variable("FISAO_CUDA_LIBRARIES") {
        found.extend(in_wheels(&folder));
        found.push(folder);
    }
    for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable) {
        for python in entries(&environment.join("lib")) {
            found.extend(in_wheels(&python.join("site-packages")));
        }
        found.extend(in_wheels(&environment.join("Lib").join("site-packages")));
        found.push(environment.join("lib"));
    }
    for toolkit in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable) {
        found.extend(["lib64", "lib", "bin"].map(|folder| toolkit.join(folder)));
    }
    found.push(PathBuf::from("/usr/local/cuda/lib64"));
    found.retain(|folder| folder.is_dir());
    found
}

/// `nvidia/*/lib` and `nvidia/*/bin` in a folder of packages.
fn in_wheels(packages: &Path) -> Vec<PathBuf> {
    let wheels = entries(&packages.join("nvidia"));
    wheels.iter().flat_map(|wheel| [wheel.join("lib"), wheel.join("bin")]).collect()
}

/// What a folder holds, in alphabetical order; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = read.map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_wheels_and_toolkits_are_found() {
        let root = tempfile::tempdir().expect("a folder");
        let wheel = root.path().join("lib/python3.12/site-packages/nvidia/cu13/lib");
        let toolkit = root.path().join("toolkit/lib64");
        for folder in [&wheel, &toolkit] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        let variable = |name: &str| match name {
            "VIRTUAL_ENV" => Some(root.path().to_owned()),
            "CUDA_HOME" => Some(root.path().join("toolkit")),
            "FISAO_CUDA_LIBRARIES" => Some(root.path().join("lib/python3.12/site-packages")),
            _ => None,
        };
        let found = folders(&variable);
        assert_eq!(found[0], wheel, "{found:?}");
        assert!(found.contains(&toolkit), "{found:?}");
        assert!(!found.contains(&root.path().join("toolkit/bin")), "{found:?}");
    }

    #[test]
    fn missing_library_names_files_folders_and_remedy() {
        let root = tempfile::tempdir().expect("a folder");
        let wanted = Wanted {
            what: "NVRTC, which compiles kernels",
            names: &["libnot-there.so.13", "libnot-there.so.12"],
            hint: NVRTC.hint,
        };
        let error = load_from(wanted, &[root.path().to_owned()]).expect_err("no such library");
        let message = error.to_string();
        let folder = root.path().display().to_string();
        for part in ["libnot-there.so.13", "libnot-there.so.12", &folder] {
            assert!(message.contains(part), "{message}");
        }
        assert!(error.hint().is_some_and(|hint| hint.contains("pip install nvidia-")), "{error}");
        let error = load_from(wanted, &[]).expect_err("no such library").to_string();
        assert!(error.contains("in no folder"), "{error}");
    }

    #[test]
    fn file_that_is_no_library_is_skipped() {
        let root = tempfile::tempdir().expect("a folder");
        let wanted = Wanted { what: "x", names: &["libempty-file.so"], hint: "" };
        std::fs::write(root.path().join("libempty-file.so"), "no library").expect("a file");
        assert!(load_from(wanted, &[root.path().to_owned()]).is_err());
    }
}
