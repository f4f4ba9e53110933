//! Responses with what they answer: all that forward passes read of a rollout.

use std::collections::BTreeMap;

use fisao_models::sequences::Example;
use fisao_models::vision_language::ImageFeatures;
use serde::{Deserialize, Serialize};

use crate::mentions::ScoredResponse;
use crate::tasks::Task;

/// Responses with prompts and image features. `F` is what features are held as.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PromptedResponses<F = ImageFeatures> {
    /// Prompt and image features of each task.
    tasks: Vec<(Vec<u32>, F)>,
    /// Position of its task, and ids, of each response.
    responses: Vec<(usize, Vec<u32>)>,
}

impl PromptedResponses {
    pub(crate) fn new(
        tasks: &[Task],
        features: &[ImageFeatures],
        captions: &[ScoredResponse],
    ) -> Self {
        let tasks = tasks.iter().zip(features);
        Self {
            tasks: tasks.map(|(task, features)| (task.prompt.clone(), features.clone())).collect(),
            responses: captions.iter().map(|of| (of.task, of.tokens.clone())).collect(),
        }
    }

    /// The examples at `indices`, those of a task adjacent, with the features of their images.
    pub(crate) fn examples(&self, indices: &[usize]) -> (Vec<Example<'_>>, ImageFeatures) {
        let mut shown: Vec<usize> = Vec::new();
        let examples = indices
            .iter()
            .map(|&index| {
                let (task, response) = &self.responses[index];
                if shown.last() != Some(task) {
                    shown.push(*task);
                }
                Example { prompt: &self.tasks[*task].0, image: shown.len() - 1, response }
            })
            .collect();
        let features = shown.iter().map(|&task| self.tasks[task].1.clone()).collect();
        (examples, ImageFeatures::cat(features))
    }
}

impl<F> PromptedResponses<F> {
    /// Number of responses.
    pub(crate) fn len(&self) -> usize {
        self.responses.len()
    }

    /// Number of tasks.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Tokens of a response.
    pub(crate) fn length(&self, at: usize) -> usize {
        self.responses[at].1.len()
    }

    /// Position of a response's task.
    pub(crate) fn task(&self, at: usize) -> usize {
        self.responses[at].0
    }

    /// The responses at `indices` alone, in this order, with their tasks, whose features become something else.
    pub(crate) fn part<G>(
        &self,
        indices: &[usize],
        mut features: impl FnMut(&F) -> G,
    ) -> PromptedResponses<G> {
        let (mut places, mut tasks) = (BTreeMap::new(), Vec::new());
        let mut place = |task: usize| {
            *places.entry(task).or_insert_with(|| {
                let (prompt, shown) = &self.tasks[task];
                tasks.push((prompt.clone(), features(shown)));
                tasks.len() - 1
            })
        };
        let responses = indices
            .iter()
            .map(|&at| {
                let (task, tokens) = &self.responses[at];
                (place(*task), tokens.clone())
            })
            .collect();
        PromptedResponses { tasks, responses }
    }

    /// The same with features held as something else.
    pub(crate) fn with_features<G>(
        &self,
        mut features: impl FnMut(&F) -> G,
    ) -> PromptedResponses<G> {
        let tasks = self.tasks.iter().map(|(prompt, of)| (prompt.clone(), features(of))).collect();
        PromptedResponses { tasks, responses: self.responses.clone() }
    }
}

#[cfg(test)]
impl PromptedResponses<()> {
    /// Of tasks and lengths.
    pub(crate) fn of_lengths(responses: &[(usize, usize)]) -> Self {
        let tasks = responses.iter().map(|(task, _)| task + 1).max().unwrap_or(0);
        Self {
            tasks: vec![(Vec::new(), ()); tasks],
            responses: responses.iter().map(|&(task, length)| (task, vec![7; length])).collect(),
        }
    }
}
