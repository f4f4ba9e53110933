//! Which tasks an iteration has, and their random streams.

use fisao_models::parallel::{cores, parallel_chunks};
use fisao_models::random::Purpose;
use rand::Rng as _;
use rand::seq::SliceRandom;

use super::Trainer;
use crate::error::AlignError;
use crate::tasks::Task;

/// The tasks of an iteration.
pub(super) struct TaskBatch {
    pub(super) tasks: Vec<Task>,
    /// Of each among all tasks.
    pub(super) numbers: Vec<usize>,
    /// Of its random streams.
    pub(super) streams: Vec<u64>,
}

impl Trainer<'_> {
    /// The tasks of this iteration with the numbers of their random streams: position by position of
    /// an endless sequence of reshuffled passes over all tasks.
    pub(super) fn draw_tasks(&mut self) -> Result<TaskBatch, AlignError> {
        let (count, per_iteration) = (self.tasks.count(), self.config.align.images_per_iteration);
        let first = self.iteration * per_iteration;
        let mut numbers = Vec::with_capacity(per_iteration);
        for position in first..first + per_iteration {
            let pass = position / count;
            let order = match self.order.take().filter(|(known, _)| *known == pass) {
                Some((_, order)) => order,
                None => self.order_of(pass),
            };
            let index = order[position % count] as usize;
            self.order = Some((pass, order));
            numbers.push(index);
        }
        let tasks = self.read_tasks(&numbers)?;
        let streams = (first as u64..(first + per_iteration) as u64).collect();
        Ok(TaskBatch { tasks, numbers, streams })
    }

    /// Reads tasks on all cores. Images whose features are in memory are not decoded again.
    fn read_tasks(&self, numbers: &[usize]) -> Result<Vec<Task>, AlignError> {
        let (source, known, features) = (self.tasks, &self.tasks_without_pixels, &self.features);
        let read = |&number: &usize| match known.get(&number) {
            Some(task) if features.is_in_memory(number) => Ok(task.clone()),
            _ => source.task(number),
        };
        // Rows are dealt to the cores in turn, which so go through blocks of a file together.
        let chunks = cores().min(numbers.len()).max(1);
        let dealt: Vec<Vec<&usize>> =
            (0..chunks).map(|chunk| numbers.iter().skip(chunk).step_by(chunks).collect()).collect();
        let parts = parallel_chunks(&dealt, chunks, |dealt| {
            dealt.iter().flatten().map(|number| read(number)).collect::<Result<Vec<_>, _>>()
        });
        let mut parts: Vec<_> = parts
            .into_iter()
            .map(|part| part.map(Vec::into_iter))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((0..numbers.len()).filter_map(|at| parts[at % chunks].next()).collect())
    }

    /// Keeps what else belongs to images whose features are kept.
    pub(super) fn keep_tasks(&mut self, numbers: &[usize], tasks: &[Task]) {
        // Rewards of one's own may look at pixels.
        if !self.additional.is_empty() {
            return;
        }
        for (&number, task) in numbers.iter().zip(tasks) {
            if self.features.is_in_memory(number) {
                self.tasks_without_pixels.entry(number).or_insert_with(|| task.without_pixels());
            }
        }
    }

    /// Whether another pass over the tasks begins after this iteration's.
    pub(super) fn has_another_pass(&self) -> bool {
        let (count, per_iteration) = (self.tasks.count(), self.config.align.images_per_iteration);
        let pass = self.iteration * per_iteration / count;
        (pass + 1) * count < self.config.align.iterations * per_iteration
    }

    /// The order of a pass over all tasks.
    fn order_of(&self, pass: usize) -> Vec<u32> {
        let mut rng = Purpose::TaskOrder.stream(self.config.seed, pass as u64);
        let own = self.tasks.order(rng.next_u64());
        own.unwrap_or_else(|| {
            let mut order: Vec<u32> = (0..self.tasks.count() as u32).collect();
            order.shuffle(&mut rng);
            order
        })
    }
}
