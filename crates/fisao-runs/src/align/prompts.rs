//! Prompt sets as tasks.

use std::collections::BTreeSet;

use anyhow::bail;
use fisao_align::AlignConfig;
use fisao_align::error::AlignError;
use fisao_align::objective::Data;
use fisao_align::tasks::{Answer, Task, TaskSource};
use fisao_formats::FormatError;
use fisao_formats::json_lines::write_json_lines;
use fisao_formats::prompts::{self, ImageCheck, PromptKind, PromptRow, PromptSet, Split};
use fisao_formats::run_folder::RunFolder;
use serde::Serialize;

use super::record::Files;
use crate::bundle::{Policy, Views};
use crate::failure::Refusal;
use crate::reporter::Reporter;
use crate::tasks::{DamagedImages, pass_over, warn_of_unread};

/// Rows whose images are decoded once before any work begins; of larger sets only the headers are read, unless damaged
/// images are to be passed over.
const DECODED: usize = 20_000;

/// File of the [`PassedOver`] rows in a run's folder, one JSON object a row.
pub(super) const SKIPPED: &str = "skipped.jsonl";

/// Rows whose images cannot be used, and are passed over.
#[derive(Clone, Debug, Default)]
pub(super) struct PassedOver {
    lines: Vec<SkippedRow>,
    /// All rows.
    of: usize,
}

/// One line of [`SKIPPED`].
#[derive(Clone, Debug, Serialize)]
struct SkippedRow {
    /// Number of the row, from 1.
    row: usize,
    /// File of the image, or what the row calls it.
    image: String,
    reason: String,
}

impl PassedOver {
    fn new(set: &PromptSet, unusable: &[(usize, FormatError)]) -> Result<Self, FormatError> {
        let lines = unusable.iter().map(|(row, error)| {
            let image = set.row(*row)?.image_place();
            Ok(SkippedRow { row: row + 1, image, reason: error.to_string() })
        });
        let lines = lines.collect::<Result<_, FormatError>>()?;
        Ok(Self { lines, of: set.len() })
    }

    /// Their indices in the set.
    pub(super) fn rows(&self) -> BTreeSet<u32> {
        self.lines.iter().map(|line| line.row as u32 - 1).collect()
    }

    /// Writes down in a run's folder which rows they are, if there are any.
    pub(super) fn write(&self, folder: &RunFolder) -> anyhow::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        Ok(write_json_lines(&folder.path(SKIPPED), &self.lines)?)
    }

    /// How many there were and where they are written down, if there are any.
    pub(super) fn summary(&self, folder: &RunFolder) -> Option<String> {
        let (count, of) = (self.lines.len(), self.of);
        let path = folder.path(SKIPPED);
        (count > 0)
            .then(|| format!("{count} of {of} rows were passed over, as {} says", path.display()))
    }
}

/// Opens the prompts of a run and looks whether their images are there.
pub(super) fn open(files: &Files, reporter: &Reporter) -> anyhow::Result<PromptSet> {
    let set = match (&files.prompts, &files.images) {
        (Some(prompts), images) if files.allow_outside_images => {
            PromptSet::open_with_outside_images(prompts, images.as_deref(), &files.prompt)?
        }
        (Some(prompts), images) => PromptSet::open(prompts, images.as_deref(), &files.prompt)?,
        (None, Some(images)) => {
            let set = PromptSet::open(images, None, &files.prompt)?;
            warn_of_unread(images, reporter)?;
            set
        }
        (None, None) => {
            bail!(Refusal::new("there is nothing to train on").hint("give --images or --prompts"))
        }
    };
    let skipped = set.skipped();
    reporter.note(format!("{}: {} rows", set.kind(), set.len()));
    for (count, reason) in
        [(skipped.without_image, "no image"), (skipped.several_images, "several images")]
    {
        if count > 0 {
            reporter.warn(format!("{count} rows are left out, as they have {reason}"), None);
        }
    }
    set.check_images(&|_| {})?;
    Ok(set)
}

/// Looks whether the images of a run can be used; returns those of its rows whose images are passed over.
pub(super) fn check_images(
    set: &PromptSet,
    files: &Files,
    reporter: &Reporter,
) -> anyhow::Result<PassedOver> {
    let progress = reporter.phase("checking images", set.len() as u64);
    let reach = |done: usize| progress.reach(done as u64, set.len() as u64);
    let whole = set.len() <= DECODED || files.skip_damaged;
    let check = if whole { ImageCheck::Decoded } else { ImageCheck::Header };
    let unusable = set.unusable_images(check, &reach)?;
    let passed_over = PassedOver::new(set, &unusable)?;
    let errors = unusable.into_iter().map(|(_, error)| error).collect();
    pass_over(errors, set.len(), DamagedImages::skipped(files.skip_damaged), reporter)?;
    progress.finish();
    Ok(passed_over)
}

/// Rows to train on, and rows held out, without those that are passed over.
pub(super) fn split(
    set: &PromptSet,
    passed_over: &PassedOver,
    files: &Files,
    seed: u64,
    reporter: &Reporter,
) -> anyhow::Result<(Vec<u32>, Vec<u32>)> {
    let unusable = passed_over.rows();
    let good = |row: &u32| !unusable.contains(row);
    if files.validation_fraction == 0.0 {
        return Ok(((0..set.len() as u32).filter(good).collect(), Vec::new()));
    }
    let Split { mut training, mut validation } =
        set.split(files.validation_fraction, seed, &|_| {})?;
    training.retain(good);
    validation.retain(good);
    if training.is_empty() || validation.is_empty() {
        bail!(
            Refusal::new(format!(
                "--validation-fraction {} of {} rows leaves {} to train on and {} for validation",
                files.validation_fraction,
                set.len(),
                training.len(),
                validation.len()
            ))
            .hint("choose another fraction, or leave it out")
        );
    }
    reporter.note(format!("{} rows to train on, {} held out", training.len(), validation.len()));
    Ok((training, validation))
}

/// Some rows of a prompt set, read when they are asked for.
pub(super) struct PromptTasks<'a> {
    policy: &'a Policy,
    set: &'a PromptSet,
    rows: Vec<u32>,
    views: Option<&'a Views>,
    /// Longest response that may be sampled, tokens.
    max_new_tokens: usize,
    /// Which answers of the rows are needed.
    answers: Data,
}

impl<'a> PromptTasks<'a> {
    pub(super) fn new(
        policy: &'a Policy,
        set: &'a PromptSet,
        rows: Vec<u32>,
        views: Option<&'a Views>,
        config: &AlignConfig,
    ) -> Self {
        let (max_new_tokens, answers) =
            (config.max_new_tokens, config.objective.definition().data());
        Self { policy, set, rows, views, max_new_tokens, answers }
    }

    /// The same for captions of the policy's own: answers of the rows do not matter.
    pub(super) fn without_answers(self) -> Self {
        Self { answers: Data::Sampled, ..self }
    }

    /// All tasks at once.
    pub(super) fn all(&self) -> Result<Vec<Task>, AlignError> {
        (0..self.count()).map(|index| self.task(index)).collect()
    }

    fn answer(&self, row: &PromptRow) -> Result<Answer, AlignError> {
        let tokens = |text: &str| self.policy.response(text);
        Ok(match (&row.answer, self.answers) {
            (_, Data::Sampled) | (prompts::Answer::None, _) => Answer::None,
            (prompts::Answer::Response(response), _) => Answer::Response(tokens(response)?),
            // The preferred response of a pair is one to learn from.
            (prompts::Answer::Pair { chosen, .. }, Data::Responses) => {
                Answer::Response(tokens(chosen)?)
            }
            (prompts::Answer::Pair { chosen, rejected }, Data::Pairs) => {
                Answer::Pair { chosen: tokens(chosen)?, rejected: tokens(rejected)? }
            }
        })
    }
}

impl TaskSource for PromptTasks<'_> {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        let at = self.rows[index] as usize;
        let row = self
            .set
            .row(at)
            .map_err(|error| AlignError::Task { id: format!("row {at}"), source: error.into() })?;
        let wrong = |source| AlignError::Task { id: row.id.clone(), source };
        let prompt = self.policy.prompt(&row.prompt).map_err(|error| wrong(error.into()))?;
        let image = row.open_image().map_err(|error| wrong(error.into()))?;
        let verifier_images = self.views.map_or_else(Vec::new, |views| views.of(&image));
        let answer = self.answer(&row)?;
        let task = self.policy.task(row.id.clone(), &image, &prompt)?;
        let longest = answer.responses().iter().map(|response| response.len()).max();
        let needed = task.prompt.len().saturating_add(longest.unwrap_or(self.max_new_tokens));
        let context = self.policy.model.language_model().config().max_position_embeddings;
        if needed > context {
            let prompt = task.prompt.len();
            let reason = match longest {
                Some(longest) => format!(
                    "prompt, image and response take {prompt} + {longest} positions, but the model has {context}"
                ),
                None => format!(
                    "prompt and image take {prompt} of the model's {context} positions, which leaves no room for \
                     max-new-tokens = {}: it may be at most {}",
                    self.max_new_tokens,
                    context.saturating_sub(prompt)
                ),
            };
            return Err(wrong(reason.into()));
        }
        Ok(Task { verifier_images, answer, ..task })
    }

    fn order(&self, seed: u64) -> Option<Vec<u32>> {
        // Blocks that are decoded together follow each other; elsewhere any order is as good.
        if self.set.kind() != PromptKind::Parquet {
            return None;
        }
        let shuffled = self.set.shuffled(&self.rows, seed);
        let mut places: Vec<(u32, u32)> = self.rows.iter().copied().zip(0..).collect();
        places.sort_unstable();
        let place = |row: u32| {
            let at = places.partition_point(|&(known, _)| known < row);
            places[at].1
        };
        Some(shuffled.into_iter().map(place).collect())
    }
}
