//! Image files as tasks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fisao_align::AlignError;
use fisao_align::tasks::{Task, TaskSource};
use fisao_formats::FormatError;
use fisao_formats::images::{list_images, list_unread_images, open_image};

use crate::bundle::{Policy, Views};
use crate::prompt::EncodedPrompt;
use crate::reporter::Reporter;

/// An image that could be decoded.
#[derive(Debug)]
pub struct ImageFile {
    /// The file.
    pub file: PathBuf,
    /// Width and height, upright.
    pub size: (u32, u32),
}

/// What is done about images that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DamagedImages {
    /// They are an error.
    #[default]
    Refuse,
    /// They are named and left out.
    Skip,
}

impl DamagedImages {
    /// Whether they are left out.
    pub fn skipped(skip: bool) -> Self {
        if skip { Self::Skip } else { Self::Refuse }
    }
}

/// The images that paths stand for: files as they are, folders by what they hold. Every one is decoded once, so that damaged
/// ones are found before any work is done, and all of them at once.
pub fn checked_images(
    paths: &[PathBuf],
    damaged: DamagedImages,
    reporter: &Reporter,
) -> Result<Vec<ImageFile>, FormatError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(list_images(path)?);
            warn_of_unread(path, reporter)?;
        } else {
            files.push(path.clone());
        }
    }
    let checked = files.len();
    let progress = reporter.phase("checking images", checked as u64);
    let (mut images, mut unusable) = (Vec::with_capacity(checked), Vec::new());
    for file in files {
        match open_image(&file) {
            Ok(image) => images.push(ImageFile { file, size: image.dimensions() }),
            Err(error) => unusable.push(error),
        }
        progress.advance(1);
    }
    progress.finish();
    pass_over(unusable, checked, damaged, reporter)?;
    Ok(images)
}

/// Names what a folder holds of images in formats that are not read.
pub(crate) fn warn_of_unread(folder: &Path, reporter: &Reporter) -> Result<(), FormatError> {
    let unread = list_unread_images(folder)?;
    if let Some(first) = unread.first() {
        let (count, first) = (unread.len(), first.display());
        reporter.warn(
            format!(
                "{count} images are of formats that are not read and left out, the first is {first}"
            ),
            Some("convert them to PNG or JPEG"),
        );
    }
    Ok(())
}

/// Refuses images that cannot be used, or names them, where they are to be passed over and some are left.
///
/// # Errors
/// They are not to be passed over, one of them is not there at all, or none is left.
pub(crate) fn pass_over(
    mut unusable: Vec<FormatError>,
    checked: usize,
    damaged: DamagedImages,
    reporter: &Reporter,
) -> Result<(), FormatError> {
    let count = unusable.len();
    let skipped =
        damaged == DamagedImages::Skip && unusable.iter().all(FormatError::is_unusable_image);
    match count {
        0 => return Ok(()),
        _ if skipped && count < checked => {}
        1 => return Err(unusable.swap_remove(0)),
        _ => return Err(FormatError::UnusableImages { images: unusable, checked }),
    }
    for error in &unusable {
        reporter.warn(format!("passed over: {error}"), None);
    }
    reporter.warn(format!("{count} of {checked} images are passed over"), None);
    Ok(())
}

/// Image files, all under the same prompt.
pub struct ImageTasks<'a> {
    policy: &'a Policy,
    images: Vec<ImageFile>,
    prompt: EncodedPrompt,
    /// Length of the longest prompt, its image included.
    longest: usize,
    /// What the verifier sees besides the model's own pixels.
    verifier: Option<Views>,
}

impl<'a> ImageTasks<'a> {
    /// Tasks of images, which are opened when they are asked for, under what the user asks.
    ///
    /// # Errors
    /// The prompt cannot be put together, or its image placeholders are not as many as an image needs.
    pub fn new(policy: &'a Policy, images: Vec<ImageFile>, prompt: &str) -> anyhow::Result<Self> {
        let prompt = policy.prompt(prompt)?;
        let config = policy.model.config().family();
        // Sizes of images are many, the numbers of tokens they take are few.
        let (mut known, mut longest) = (BTreeSet::new(), 0);
        for image in &images {
            if known.insert(config.image_tokens(image.size)) {
                longest = longest.max(config.expand_image_token(&prompt.ids, image.size)?.len());
            }
        }
        Ok(Self { policy, images, prompt, longest, verifier: None })
    }

    /// The same with pixels for a verifier that takes others than the model, or more.
    #[must_use]
    pub fn with_verifier(self, verifier: Option<Views>) -> Self {
        Self { verifier, ..self }
    }

    /// The file of a task.
    pub fn file(&self, index: usize) -> &Path {
        &self.images[index].file
    }

    /// Tokens of the longest prompt, its image included.
    pub fn longest_prompt(&self) -> usize {
        self.longest
    }
}

impl TaskSource for ImageTasks<'_> {
    fn count(&self) -> usize {
        self.images.len()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        self.task_with(index, self.verifier.as_ref())
    }
}

impl ImageTasks<'_> {
    /// A task's id is the file's name without its folder, as annotations have it.
    pub fn id(&self, index: usize) -> String {
        let file = self.file(index);
        file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
    }

    /// A task with what the verifier sees besides the model's own pixels.
    pub fn task_with(&self, index: usize, views: Option<&Views>) -> Result<Task, AlignError> {
        let (file, id) = (self.file(index), self.id(index));
        let image = open_image(file)
            .map_err(|error| AlignError::Task { id: id.clone(), source: error.into() })?;
        let verifier_images = views.map_or_else(Vec::new, |views| views.of(&image));
        Ok(Task { verifier_images, ..self.policy.task(id, &image, &self.prompt)? })
    }
}
