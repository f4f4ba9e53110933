//! Image files as tasks.

use std::path::{Path, PathBuf};

use fisao_align::AlignError;
use fisao_align::tasks::{Task, TaskSource};
use fisao_formats::FormatError;
use fisao_formats::images::{list_images, open_image};

use crate::bundle::Policy;
use crate::reporter::Reporter;

/// The image files that paths stand for: files as they are, folders by what they hold.
pub(crate) fn image_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FormatError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(list_images(path)?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Decodes every image once, so that a damaged one is found before any work is done.
pub(crate) fn check_images(files: &[PathBuf], reporter: &Reporter) -> Result<(), FormatError> {
    let progress = reporter.phase("checking images", files.len() as u64);
    for file in files {
        open_image(file)?;
        progress.advance(1);
    }
    progress.finish();
    Ok(())
}

/// Image files, all under the same prompt.
pub(crate) struct ImageTasks<'a> {
    policy: &'a Policy,
    files: Vec<PathBuf>,
    prompt: Vec<u32>,
}

impl<'a> ImageTasks<'a> {
    /// Tasks for files that exist; they are opened when they are asked for.
    pub(crate) fn new(policy: &'a Policy, files: Vec<PathBuf>, prompt: Vec<u32>) -> Self {
        Self { policy, files, prompt }
    }

    /// The file of a task.
    pub(crate) fn file(&self, index: usize) -> &Path {
        &self.files[index]
    }
}

impl TaskSource for ImageTasks<'_> {
    fn count(&self) -> usize {
        self.files.len()
    }

    /// The task's id is the file's name without its folder, as annotations have it.
    fn task(&self, index: usize) -> Result<Task, AlignError> {
        let file = self.file(index);
        let id = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let image = open_image(file)
            .map_err(|error| AlignError::Task { id: id.clone(), reason: error.to_string() })?;
        Ok(self.policy.task(id, &image, self.prompt.clone()))
    }
}
