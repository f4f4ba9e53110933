//! What the image encoders made of images, kept over a run: a task that comes up again is not encoded again. A task is an image with a
//! prompt, on which image tokens may depend. An adapter is on the decoder alone, so nothing of it changes while one learns.
//!
//! A run goes through its images in a new order each time, so none is more likely to come next than another: what was
//! kept first stays, until memory and then disk are full.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fisao_models::parameters::{floats, from_floats};
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::scorer::Verifier;

use crate::encoding::{EncodedImages, encode_on};
use crate::error::AlignError;
use crate::run_control::RunControl;
use crate::tasks::Task;

/// Keeps image features and the verifier's embeddings by number of the task, in memory and beyond it in a file without a
/// name, which is gone with the process.
#[derive(Debug)]
pub struct FeatureCache {
    kept: HashMap<usize, Place>,
    /// Bytes that memory may take, and takes.
    memory: [u64; 2],
    /// Bytes that the file may take, and takes.
    disk: [u64; 2],
    folder: PathBuf,
    file: Option<File>,
}

/// Where an image's numbers are.
#[derive(Debug)]
enum Place {
    Memory(Vec<f32>, Shape),
    /// From this byte of the file on.
    Disk(u64, Shape),
}

/// How an image's numbers are laid out: its tokens, the deep features of each layer, what the verifier made of the whole, and of the
/// parts.
#[derive(Debug, Clone, Copy)]
struct Shape {
    tokens: [usize; 2],
    /// Rows and columns of the tokens, where the decoder has positions for them.
    grid: Option<[usize; 2]>,
    /// Layers of the decoder with features of their own, each as large as the tokens.
    deep: usize,
    whole: usize,
    parts: [usize; 2],
}

impl Shape {
    fn numbers(&self) -> usize {
        (1 + self.deep) * self.of_layer() + self.whole + self.parts[0] * self.parts[1]
    }

    /// Numbers of the tokens.
    fn of_layer(&self) -> usize {
        self.tokens[0] * self.tokens[1]
    }

    fn bytes(&self) -> u64 {
        (self.numbers() * size_of::<f32>()) as u64
    }
}

impl FeatureCache {
    /// Keeps nothing yet.
    ///
    /// * `memory`, `disk` — most bytes to be kept there; 0 for none.
    /// * `folder` — where the file is made, once it is needed.
    pub fn new(memory: u64, disk: u64, folder: &Path) -> Self {
        Self {
            kept: HashMap::new(),
            memory: [memory, 0],
            disk: [disk, 0],
            folder: folder.to_owned(),
            file: None,
        }
    }

    /// Keeps nothing yet, and this many megabytes at most, in memory.
    pub fn in_memory(megabytes: usize) -> Self {
        Self::new(bytes(megabytes), 0, &std::env::temp_dir())
    }

    /// Keeps nothing at all.
    pub fn none() -> Self {
        Self::in_memory(0)
    }

    /// Makes the file elsewhere, if it is not there yet.
    pub fn set_folder(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
    }

    /// Images that are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether an image's numbers are kept in memory, from where they can always be read.
    pub(crate) fn is_in_memory(&self, number: usize) -> bool {
        matches!(self.kept.get(&number), Some(Place::Memory(..)))
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What the encoders make of some tasks' images, of which those that are kept are not encoded again, and how many were.
    ///
    /// * `numbers` — of the tasks' images; equal ones mean equal images.
    /// * `keep` — whether they will come up again.
    ///
    /// # Errors
    /// See [`encode_on`]. Where the file cannot be written or read, a warning says so and images are encoded again.
    pub fn encode(
        &mut self,
        policy: &VisionLanguageModel,
        verifier: &Verifier,
        numbers: &[usize],
        tasks: &[Task],
        keep: bool,
        control: RunControl<'_>,
    ) -> Result<(EncodedImages, usize), AlignError> {
        assert_eq!(numbers.len(), tasks.len(), "a number for each task");
        let device = policy.device();
        let mut found: Vec<_> = numbers.iter().map(|&number| self.find(number, &device)).collect();
        let missing: Vec<usize> = (0..tasks.len()).filter(|&at| found[at].is_none()).collect();
        let encoded = if missing.len() == tasks.len() {
            encode_on(policy, verifier, tasks, control)?
        } else {
            let new: Vec<Task> = missing.iter().map(|&at| tasks[at].clone()).collect();
            encode_on(policy, verifier, &new, control)?
        };
        let pairs = encoded.features.into_iter().zip(encoded.embeddings);
        for (&at, (features, embedding)) in missing.iter().zip(pairs) {
            if keep {
                self.keep(numbers[at], &features, &embedding);
            }
            found[at] = Some((features, embedding));
        }
        let (features, embeddings) = found.into_iter().flatten().unzip();
        Ok((EncodedImages { features, embeddings }, missing.len()))
    }

    /// What the encoders make of tasks whose numbers follow each other from `first` on; it is kept.
    ///
    /// # Errors
    /// See [`encode`](Self::encode).
    pub(crate) fn encode_from(
        &mut self,
        policy: &VisionLanguageModel,
        verifier: &Verifier,
        (tasks, first): (&[Task], usize),
        control: RunControl<'_>,
    ) -> Result<EncodedImages, AlignError> {
        let numbers: Vec<usize> = (first..first + tasks.len()).collect();
        Ok(self.encode(policy, verifier, &numbers, tasks, true, control)?.0)
    }

    /// Image features of a task that are kept in memory.
    pub(crate) fn features_in_memory(
        &self,
        number: usize,
        device: &Device,
    ) -> Option<ImageFeatures> {
        let Place::Memory(numbers, shape) = self.kept.get(&number)? else { return None };
        Some(unpacked(numbers, *shape, device).0)
    }

    fn find(&mut self, number: usize, device: &Device) -> Option<(ImageFeatures, ImageEmbedding)> {
        let read;
        let (numbers, shape) = match self.kept.get(&number)? {
            Place::Memory(numbers, shape) => (numbers.as_slice(), *shape),
            &Place::Disk(start, shape) => {
                match read_numbers(self.file.as_mut()?, start, shape.numbers()) {
                    Ok(numbers) => read = numbers,
                    Err(error) => {
                        tracing::warn!(
                            "the features of an image could not be read back from {}: {error}; it is encoded again",
                            self.folder.display()
                        );
                        self.kept.remove(&number);
                        return None;
                    }
                }
                (read.as_slice(), shape)
            }
        };
        Some(unpacked(numbers, shape, device))
    }

    fn keep(&mut self, number: usize, features: &ImageFeatures, embedding: &ImageEmbedding) {
        let shape = Shape {
            tokens: features.tokens().dims(),
            grid: features.grids(0).first().copied(),
            deep: features.deep().len(),
            whole: embedding.whole.len(),
            parts: [embedding.parts.len(), embedding.parts.first().map_or(0, Vec::len)],
        };
        let bytes = shape.bytes();
        let fits = |[limit, used]: [u64; 2]| used + bytes <= limit;
        if !fits(self.memory) && !fits(self.disk) {
            return;
        }
        let mut numbers = floats(features.tokens());
        features.deep().iter().for_each(|deep| numbers.extend(floats(deep)));
        numbers.extend_from_slice(&embedding.whole);
        numbers.extend(embedding.parts.iter().flatten());
        if fits(self.memory) {
            self.memory[1] += bytes;
            self.kept.insert(number, Place::Memory(numbers, shape));
            return;
        }
        let start = self.disk[1];
        match self.write_numbers(start, &numbers) {
            Ok(()) => {
                self.disk[1] += bytes;
                self.kept.insert(number, Place::Disk(start, shape));
            }
            Err(error) => {
                tracing::warn!(
                    "no more image features are kept in {}: {error}; images beyond the {} that are kept are encoded \
                     again",
                    self.folder.display(),
                    self.kept.len()
                );
                self.disk[0] = 0;
            }
        }
    }

    fn write_numbers(&mut self, start: u64, numbers: &[f32]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile_in(&self.folder)?);
        }
        let file = self.file.as_mut().expect("made right before");
        file.seek(SeekFrom::Start(start))?;
        file.write_all(bytemuck::cast_slice(numbers))
    }
}

fn read_numbers(file: &mut File, start: u64, count: usize) -> io::Result<Vec<f32>> {
    let mut numbers = vec![0.0_f32; count];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytemuck::cast_slice_mut(&mut numbers))?;
    Ok(numbers)
}

/// Of so many megabytes.
pub(crate) fn bytes(megabytes: usize) -> u64 {
    (megabytes as u64).saturating_mul(1_000_000)
}

/// What numbers that were kept stand for.
fn unpacked(numbers: &[f32], shape: Shape, device: &Device) -> (ImageFeatures, ImageEmbedding) {
    let (layers, rest) = numbers.split_at((1 + shape.deep) * shape.of_layer());
    let (whole, parts) = rest.split_at(shape.whole);
    let (tokens, deep) = layers.split_at(shape.of_layer());
    let tensor = |numbers: &[f32]| from_floats(numbers.to_vec(), shape.tokens, device);
    let deep = deep.chunks(shape.of_layer().max(1)).map(tensor).collect();
    let parts = parts.chunks(shape.parts[1].max(1)).map(<[f32]>::to_vec).collect();
    let features = ImageFeatures::new(tensor(tokens), vec![shape.tokens[0]])
        .with_grids(shape.grid.into_iter().collect())
        .with_deep(deep);
    (features, ImageEmbedding { whole: whole.to_vec(), parts })
}
