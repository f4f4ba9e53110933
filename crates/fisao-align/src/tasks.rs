//! Tasks of training: images with prompts, in a fixed order.

use std::ops::Range;

use fisao_models::image::PixelValues;
use fisao_models::parallel::{cores, parallel_chunks};

use crate::error::AlignError;

/// One image with one prompt, ready for the model; or several that the prompt shows, of which no word is verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Name of the image, for reports and errors.
    pub id: String,
    /// The image as the model takes it.
    pub image: PixelValues,
    /// Images that the prompt shows behind it, in their order; none where anything is verified, trained or calibrated.
    pub further_images: Vec<PixelValues>,
    /// The image as the verifier takes it, and the crops it looks at, where that is more than the model's own pixels; else
    /// empty, and both see the same.
    pub verifier_images: Vec<PixelValues>,
    /// Prompt ids with the image placeholder expanded.
    pub prompt: Vec<u32>,
    /// What is asked, as ids of the image encoder's own tokenizer, for a model whose image encoder reads it; else empty.
    pub instruction: Vec<u32>,
    /// What the data says in answer to it.
    pub answer: Answer,
}

impl Task {
    /// The same without the pixels of its images.
    pub(crate) fn without_pixels(&self) -> Self {
        let sizes = |&PixelValues { tile_size, original_size, .. }: &PixelValues| PixelValues {
            values: Vec::new(),
            tile_size,
            original_size,
        };
        Self {
            id: self.id.clone(),
            image: sizes(&self.image),
            further_images: self.further_images.iter().map(sizes).collect(),
            verifier_images: Vec::new(),
            prompt: self.prompt.clone(),
            instruction: self.instruction.clone(),
            answer: self.answer.clone(),
        }
    }
}

/// Responses that come with a task; ids, the end token last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Answer {
    /// None: the policy has to write its own.
    #[default]
    None,
    /// One.
    Response(Vec<u32>),
    /// A better and a worse one.
    Pair {
        /// The better one.
        chosen: Vec<u32>,
        /// The worse one.
        rejected: Vec<u32>,
    },
}

impl Answer {
    /// The better response first.
    pub fn responses(&self) -> Vec<&[u32]> {
        match self {
            Self::None => Vec::new(),
            Self::Response(response) => vec![response],
            Self::Pair { chosen, rejected } => vec![chosen, rejected],
        }
    }
}

/// Tasks that are all in memory.
#[derive(Debug, Clone, Copy)]
pub struct TaskList<'a>(pub &'a [Task]);

impl TaskSource for TaskList<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        Ok(self.0[index].clone())
    }
}

/// Some tasks of a source, whose images are read on all cores.
pub(crate) fn all_tasks(
    source: &dyn TaskSource,
    range: Range<usize>,
) -> Result<Vec<Task>, AlignError> {
    let indices: Vec<usize> = range.collect();
    let parts = parallel_chunks(&indices, cores(), |part| {
        part.iter().map(|&at| source.task(at)).collect::<Result<Vec<_>, _>>()
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// A sequence of tasks; the same index always gives the same task.
pub trait TaskSource: Sync {
    /// Number of tasks; they are gone through in a shuffled order, again and again.
    fn count(&self) -> usize;

    /// The task at `index`, below [`count`](Self::count).
    ///
    /// # Errors
    /// [`AlignError::Task`] naming the image that cannot be used.
    fn task(&self, index: usize) -> Result<Task, AlignError>;

    /// Indices in the order of one pass, each once, the same for the same seed; `None` where any order is as good as
    /// another.
    fn order(&self, seed: u64) -> Option<Vec<u32>> {
        let _ = seed;
        None
    }
}
