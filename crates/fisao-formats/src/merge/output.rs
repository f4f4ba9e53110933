//! The folder of a merged checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::FormatError;
use crate::checkpoint::{CONFIG_FILE, FamilyFormat};
use crate::documents::{read_json, write_bytes, write_json};
use crate::files::read_file;
use crate::folder_lock::{FolderLock, LOCK_FILE};
use crate::weights::StoredDtype;

/// What `config.json` is called in errors.
const MODEL_CONFIG: &str = "model configuration (config.json)";
/// Files of a checkpoint that an adapter does not change.
const COMPANIONS: [&str; 14] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "LICENSE",
];

/// A folder whose files are removed again unless it is kept.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    /// Whether the folder itself was made here.
    made: bool,
    written: Vec<PathBuf>,
    lock: Option<FolderLock>,
}

impl Output {
    /// Makes the folder, or takes an empty one.
    pub(super) fn claim(folder: &Path) -> Result<Self, FormatError> {
        let made = match fs::read_dir(folder) {
            Ok(mut entries) => {
                let other = entries.find(|entry| {
                    entry.as_ref().map_or(true, |entry| entry.file_name() != LOCK_FILE)
                });
                if let Some(Ok(entry)) = other {
                    let file = entry.file_name().to_string_lossy().into_owned();
                    return Err(FormatError::FolderNotEmpty { path: folder.into(), file });
                }
                false
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder)
                    .map_err(|error| FormatError::io("create", folder, error))?;
                true
            }
            Err(error) => return Err(FormatError::io("use as output folder", folder, error)),
        };
        let (lock, _) = FolderLock::acquire(folder)?;
        Ok(Self { folder: folder.to_owned(), made, written: Vec::new(), lock: Some(lock) })
    }

    /// Where a file is about to be written.
    pub(super) fn file(&mut self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        self.written.push(path.clone());
        path
    }

    pub(super) fn json(&mut self, name: &str, value: &Value) -> Result<(), FormatError> {
        write_json(&self.file(name), value)
    }

    /// Copies what goes with the weights, as far as the checkpoint has it.
    pub(super) fn copy_companions(&mut self, from: &Path) -> Result<(), FormatError> {
        let nested = FamilyFormat::all_instruction_tokenizer_files();
        for name in COMPANIONS.into_iter().map(str::to_owned).chain(nested) {
            let path = from.join(&name);
            match read_file("file of the checkpoint", &path) {
                Ok(bytes) => write_bytes(&self.file(&name), &bytes)?,
                Err(FormatError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes `config.json`, which makes the folder a checkpoint: as it is, or for another precision.
    pub(super) fn config(
        &mut self,
        from: &Path,
        dtype: Option<StoredDtype>,
    ) -> Result<(), FormatError> {
        let Some(dtype) = dtype else {
            return write_bytes(&self.file(CONFIG_FILE), &read_file(MODEL_CONFIG, from)?);
        };
        let mut config: Value = read_json(MODEL_CONFIG, from)?;
        set_dtype(&mut config, dtype);
        self.json(CONFIG_FILE, &config)
    }

    /// The checkpoint is complete.
    pub(super) fn keep(mut self) {
        self.written.clear();
        self.made = false;
    }
}

impl Drop for Output {
    /// Removes what a broken-off merge has written; what cannot be removed lacks `config.json`.
    fn drop(&mut self) {
        for path in &self.written {
            let _ = fs::remove_file(path);
            if let Some(folder) = path.parent().filter(|&folder| folder != self.folder) {
                let _ = fs::remove_dir(folder);
            }
        }
        drop(self.lock.take());
        if self.made {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// Changes the precision wherever a configuration names it; transformers has renamed the field.
fn set_dtype(config: &mut Value, dtype: StoredDtype) {
    let name = Value::from(dtype.torch_name());
    let fields = ["dtype", "torch_dtype"];
    for part in ["text_config", "vision_config", "qformer_config"] {
        for field in fields {
            if let Some(value) = config.get_mut(part).and_then(|part| part.get_mut(field)) {
                *value = name.clone();
            }
        }
    }
    let named = fields.into_iter().filter(|field| config.get(*field).is_some());
    let mut named = named.collect::<Vec<_>>();
    if named.is_empty() {
        named.push("torch_dtype");
    }
    for field in named {
        config[field] = name.clone();
    }
}

/// Which file holds which tensor.
pub(super) fn index_json(bytes: u64, weight_map: &BTreeMap<&str, String>) -> Value {
    json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtype_is_changed_at_every_place_in_the_configuration() {
        let mut config = json!({
            "dtype": "float16",
            "text_config": { "torch_dtype": "float16", "hidden_size": 8 },
            "vision_config": { "hidden_size": 4 },
        });
        set_dtype(&mut config, StoredDtype::Bf16);
        let expected = json!({
            "dtype": "bfloat16",
            "text_config": { "torch_dtype": "bfloat16", "hidden_size": 8 },
            "vision_config": { "hidden_size": 4 },
        });
        assert_eq!(config, expected);
        let mut config = json!({ "model_type": "llava" });
        set_dtype(&mut config, StoredDtype::F32);
        assert_eq!(config, json!({ "model_type": "llava", "torch_dtype": "float32" }));
    }
}
