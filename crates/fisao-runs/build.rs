//! Lists the files of `assets/` at build time, so that the command carries its small models with it.
//!
//! A repository without them still builds: `fisao pretrain` is what makes them.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the models, below `assets/`: the clear world's and the hard one's.
const MODELS: [&str; 4] = ["llava", "clip", "hard/llava", "hard/clip"];

fn main() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let assets = package.join("../../assets");
    println!("cargo::rerun-if-changed={}", assets.display());
    let mut table = String::from("&[\n");
    for model in MODELS {
        for file in files(&assets.join(model))? {
            let name =
                file.file_name().and_then(|name| name.to_str()).ok_or("a file name in UTF-8")?;
            let path = file.display().to_string();
            println!("cargo::rerun-if-changed={path}");
            writeln!(table, "    ({:?}, include_bytes!({path:?})),", format!("{model}/{name}"))?;
        }
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("assets.rs"), table)?;
    Ok(())
}

/// The files of a folder, sorted; none if there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(fs::canonicalize(path)?);
        }
    }
    files.sort_unstable();
    Ok(files)
}
