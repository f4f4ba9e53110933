//! The report of a run on files: a page with the photographs, and its numbers.

use std::path::Path;

use fisao_formats::documents::read_json;
use fisao_formats::run_folder::RunFolder;
use fisao_report::{Report, jpeg, render};
use fisao_verifier::calibration::Calibration;
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::{Deserialize, Serialize};

use super::Published;
use super::files::Material;
use crate::models::ImageSet;
use crate::pipeline::publication::{Publication, ShownImage};
use crate::pipeline::{Results, Seconds};
use crate::reporter::Reporter;

/// The report's numbers, JSON.
const NUMBERS: &str = "report.json";
/// Layout of [`NUMBERS`] that this version writes.
const SCHEMA: u32 = 1;
/// Longest side of a photograph on the page, and of what the verifier takes of one under its heat maps; pixels.
const PHOTOGRAPH: u32 = 320;
const VIEW: u32 = 112;
/// Quality of the JPEG files on the page, of 100.
const QUALITY: u8 = 80;

/// Content of [`NUMBERS`].
#[derive(Serialize)]
struct Numbers<'a> {
    schema: u32,
    iterations: usize,
    images: Images,
    seconds: Seconds,
    peak_rss_mb: f64,
    #[serde(flatten)]
    report: &'a Report,
}

/// Numbers of images.
#[derive(Serialize)]
struct Images {
    calibration: usize,
    training: usize,
    validation: usize,
    test: usize,
    /// Of the test images.
    annotated: usize,
}

/// Writes the page and the numbers into the run's folder.
pub(super) fn publish(
    material: &Material<'_>,
    calibration: &Calibration,
    results: &Results,
    test: &ImageSet<'_>,
    folder: &RunFolder,
    reporter: &Reporter,
) -> anyhow::Result<Published> {
    let publication = Publication {
        config: material.config,
        policy: &material.loaded.policy,
        adapter: folder.path(RunFolder::ADAPTER),
        prompt: if test.annotated() > 0 { material.prompt()? } else { None },
        vocabulary: name(material.vocabulary()),
        calibration,
        results,
        test,
        estimate: true,
        peak_rss_mb: crate::memory::peak_rss_mb(),
        reporter,
    };
    let show = |at: usize| {
        let row = material.set.row(material.parts.test[at] as usize)?;
        Ok(shown(material, &row.open_image()?))
    };
    let title = format!("{} before and after alignment", name(Path::new(material.model())));
    let report = publication.report(&title, "", &show)?;
    let (parts, page) = (material.parts, folder.path(RunFolder::REPORT));
    let numbers = Numbers {
        schema: SCHEMA,
        iterations: material.config.align.iterations,
        images: Images {
            calibration: parts.calibration.len(),
            training: parts.training.len(),
            validation: parts.validation.len(),
            test: parts.test.len(),
            annotated: test.annotated(),
        },
        seconds: results.seconds,
        peak_rss_mb: publication.peak_rss_mb,
        report: &report,
    };
    folder.write_bytes(RunFolder::REPORT, render(&report).as_bytes())?;
    folder.write_json(NUMBERS, &numbers)?;
    Ok(Published { report, page })
}

/// The last part of a path, or of a name that is one by its form.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A photograph as the page shows it.
fn shown(material: &Material<'_>, photograph: &RgbImage) -> ShownImage {
    let views = &material.loaded.verifier.views;
    let mut pixels = views.of(photograph);
    let view = (!pixels.is_empty()).then(|| {
        let whole = pixels.swap_remove(0);
        let file = jpeg(&small(&views.shown(&whole), VIEW), QUALITY);
        (whole, file)
    });
    ShownImage { image: jpeg(&small(photograph, PHOTOGRAPH), QUALITY), view }
}

/// An image whose longest side has at most so many pixels.
fn small(image: &RgbImage, longest: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let most = width.max(height);
    if most <= longest {
        return image.clone();
    }
    let side =
        |length: u32| (u64::from(length) * u64::from(longest) / u64::from(most)).max(1) as u32;
    imageops::resize(image, side(width), side(height), FilterType::Triangle)
}

/// What is read of [`NUMBERS`] again.
#[derive(Deserialize)]
struct Done {
    iterations: usize,
}

/// Iterations of the run that the report in a folder is about; none where there is no report.
pub(super) fn published_iterations(folder: &RunFolder) -> anyhow::Result<Option<usize>> {
    let path = folder.path(NUMBERS);
    if !path.exists() {
        return Ok(None);
    }
    let done: Done = read_json("numbers of the report", &path)?;
    Ok(Some(done.iterations))
}
