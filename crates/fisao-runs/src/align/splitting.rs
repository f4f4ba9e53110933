//! Which images a run calibrates on, trains on, validates with, and is measured on.

use std::collections::BTreeSet;

use anyhow::bail;
use fisao_formats::prompts::PromptSet;
use fisao_formats::run_folder::RunFolder;
use serde::Serialize;

use super::prompts::PassedOver;
use super::record::Files;
use crate::failure::Refusal;
use crate::reporter::Reporter;

/// File of the split in a run's folder.
pub(super) const SPLIT: &str = "split.json";

/// Fraction of the images that a run calibrates on, and most of them: with five mentions a caption some 1,300 mentions, which
/// leave the means of the classes within a tenth of a standard deviation.
const CALIBRATION: (usize, usize) = (3, 256);
/// Fraction of the images that is held out, and most of them: each is captioned four times.
const TEST: (usize, usize) = (5, 100);
/// Fewest images of a part, unless fewer are asked for.
const LEAST: usize = 4;

/// Rows of a prompt set by what they are used for; no image is in two of them, but for validation on calibration images.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    /// For the calibration, one row an image.
    pub calibration: Vec<u32>,
    /// Trained on.
    pub training: Vec<u32>,
    /// Held out for validation during training.
    pub validation: Vec<u32>,
    /// Held out, to be captioned before and after training, one row an image.
    pub test: Vec<u32>,
}

/// Numbers of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// All images.
    pub images: usize,
    /// Those for the calibration.
    pub calibration: usize,
    /// Those that are held out.
    pub test: usize,
}

impl Counts {
    /// What was asked for, or what suits so many images; without an own calibration nothing is held out unless that is asked for.
    ///
    /// # Errors
    /// There are too few images.
    pub(super) fn new(images: usize, files: &Files) -> anyhow::Result<Self> {
        let own = files.calibration.is_none();
        let usual = |(part, most): (usize, usize)| (images / part).clamp(LEAST, most);
        let calibration = files.calibration_images.unwrap_or_else(|| usual(CALIBRATION));
        let calibration = if own { calibration } else { 0 };
        let test = files.test_images.unwrap_or_else(|| if own { usual(TEST) } else { 0 });
        let training = if own { LEAST } else { 1 };
        let needed = calibration.saturating_add(test).saturating_add(training);
        if images < needed {
            let mut message = format!(
                "{images} images are too few: the run needs {needed}, {calibration} to calibrate on, {training} or more to \
                 train on and {test} to be measured on"
            );
            if images == 1 {
                message = message.replacen("1 images are", "1 image is", 1);
            }
            let hint = if own {
                "add images, set --calibration-images and --test-images, or calibrate on other images with `fisao calibrate` \
                 and give --calibration FILE"
            } else {
                "add images, or hold out fewer with --test-images"
            };
            bail!(Refusal::new(message).hint(hint));
        }
        Ok(Self { images, calibration, test })
    }

    /// Images that are left for training.
    pub(super) fn training(&self) -> usize {
        self.images - self.calibration - self.test
    }
}

/// Splits images, each given by its rows and all of them shuffled, as far as they can be used.
pub(super) fn split(
    mut images: Vec<Vec<u32>>,
    set: &PromptSet,
    passed_over: &PassedOver,
    files: &Files,
    (seed, reporter): (u64, &Reporter),
) -> anyhow::Result<Parts> {
    let unusable = passed_over.rows();
    for rows in &mut images {
        rows.retain(|row| !unusable.contains(row));
    }
    images.retain(|rows| !rows.is_empty());
    let Counts { calibration, test, .. } = Counts::new(images.len(), files)?;
    let (aside, rest) = images.split_at(calibration + test);
    let first = |images: &[Vec<u32>]| {
        let mut rows: Vec<u32> = images.iter().map(|rows| rows[0]).collect();
        rows.sort_unstable();
        rows
    };
    let used = aside.iter().map(|rows| rows.len() - 1).sum::<usize>();
    if used > 0 {
        reporter.note(format!(
            "{used} further prompts of images that are calibrated or measured on are not used"
        ));
    }
    let rest: BTreeSet<u32> = rest.iter().flatten().copied().collect();
    let (training, validation) = if files.validation_fraction > 0.0 {
        let (mut training, mut validation) =
            super::prompts::split(set, passed_over, files, seed, reporter)?;
        training.retain(|row| rest.contains(row));
        validation.retain(|row| rest.contains(row));
        (training, validation)
    } else {
        (rest.into_iter().collect(), Vec::new())
    };
    if training.is_empty() {
        bail!(
            Refusal::new("no image is left to train on")
                .hint("choose a smaller --validation-fraction, or leave it out")
        );
    }
    let (calibration, test) = (first(&aside[..calibration]), first(&aside[calibration..]));
    Ok(Parts { calibration, training, validation, test })
}

/// Names of the images of a split, as [`SPLIT`] has them.
#[derive(Serialize)]
struct Names {
    calibration: Vec<String>,
    test: Vec<String>,
    /// Number of rows that are trained on: every other one.
    training: usize,
}

impl Parts {
    /// Writes down which images are calibrated and measured on, if any are.
    pub(super) fn write(&self, set: &PromptSet, folder: &RunFolder) -> anyhow::Result<()> {
        if self.calibration.is_empty() && self.test.is_empty() {
            return Ok(());
        }
        let names = |rows: &[u32]| {
            let name = |row: &u32| Ok(set.row(*row as usize)?.image_name);
            rows.iter().map(name).collect::<anyhow::Result<Vec<_>>>()
        };
        let (calibration, test) = (names(&self.calibration)?, names(&self.test)?);
        let names = Names { calibration, test, training: self.training.len() };
        Ok(folder.write_json(SPLIT, &names)?)
    }
}
