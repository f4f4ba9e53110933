//! Reading and writing every format, and what is said about files that are wrong.

mod adapter;
mod chat_template;
mod checkpoint;
mod config;
mod corrupt;
mod families;
mod images;
mod json_lines;
mod merge;
mod peft;
mod photographs;
mod processor;
mod prompts;
mod qwen_vl;
mod run_folder;
mod tensorboard;
mod tiny;
mod tokenizer;
mod transformers;
mod weights;

use fisao_formats::FormatError;

/// The message of an error, with the folder that the test made shortened to `DIR`.
fn message<T: std::fmt::Debug>(
    result: Result<T, FormatError>,
    folder: &tempfile::TempDir,
) -> String {
    let error = result.expect_err("this input is wrong and has to be refused");
    error.to_string().replace(&folder.path().display().to_string(), "DIR")
}
