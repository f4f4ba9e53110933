//! What a run is to be trained from, as the options say it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_runs::align::record::{Amendment, Files, Source};
use fisao_runs::verifier_choice::VerifierSource;
use fisao_runs::vocabulary::usual_list;
use fisao_runs::{Refusal, calibrations};

use crate::arguments::AlignSource;

/// The built-in synthetic dataset, or files: paths are made absolute.
pub(super) fn of(source: &AlignSource) -> anyhow::Result<Source> {
    if source.demo {
        let (labels, world) = (source.labels.unwrap_or_default(), source.world.unwrap_or_default());
        return Ok(Source::World { labels: labels.into(), world: world.into() });
    }
    Ok(Source::Files(Box::new(files(source)?)))
}

fn validation_fraction(source: &AlignSource) -> anyhow::Result<f64> {
    let fraction = source.validation_fraction.unwrap_or(0.0);
    if (0.0..1.0).contains(&fraction) {
        return Ok(fraction);
    }
    bail!(Refusal::new(format!(
        "--validation-fraction is {fraction}; it must be 0 or more and below 1"
    )))
}

fn files(source: &AlignSource) -> anyhow::Result<Files> {
    let missing = |name: &str| Refusal::new(format!("--{name} is missing"));
    let path = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let calibration = path(&source.calibration)?;
    Ok(Files {
        model: source.model.as_ref().ok_or_else(|| missing("model"))?.lasting()?,
        verifier: source.verifier.as_ref().map(VerifierSource::lasting).transpose()?,
        allow_mismatched_verifier: source.allow_mismatched_verifier,
        annotations: path(&source.annotations)?,
        calibration_images: source.calibration_images,
        test_images: source.test_images,
        merge: path(&source.merge)?,
        prompts: path(&source.prompts)?,
        images: path(&source.images)?,
        allow_outside_images: source.allow_outside_images,
        skip_damaged: source.damaged.skip_damaged,
        validation_fraction: validation_fraction(source)?,
        prompt: source.prompt.clone().unwrap_or_else(|| fisao_scenes::PROMPTS[0].to_owned()),
        vocabulary: if let Some(named) = &source.vocabulary.vocabulary {
            vocabulary(named)?
        } else {
            // A calibration that cannot be read ends the run where it is needed.
            let calibration = calibration.as_deref().map(calibrations::read);
            usual_list(false, calibration.and_then(Result::ok).as_ref()).into()
        },
        calibration,
    })
}

/// What a run that has no calibration yet is given in another way.
pub(super) fn amendment(source: &AlignSource) -> anyhow::Result<Amendment> {
    Ok(Amendment {
        annotations: source.annotations.as_deref().map(absolute).transpose()?,
        vocabulary: source.vocabulary.named().map(vocabulary).transpose()?,
    })
}

/// The path of a file, or the name of a built-in list, which is no path.
fn vocabulary(named: &Path) -> anyhow::Result<PathBuf> {
    if named.exists() { absolute(named) } else { Ok(named.to_owned()) }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}
