//! What a run is trained from: kept in its folder, so that the folder is all it takes to go on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_formats::RunFolder;
use fisao_formats::documents::read_toml;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::arguments::{AlignSource, LabelSource, WorldChoice};
use crate::calibrations;
use crate::failure::{OrInternal as _, Refusal};
use crate::settings::differences;
use crate::vocabulary::{self, usual_list};

/// File of the [`RunRecord`] in a run's folder.
pub(crate) const RECORD: &str = "run.toml";

/// Layout of run folders that this version writes.
const VERSION: u32 = 1;

/// What a run was begun with, besides its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RunRecord {
    version: u32,
    /// Version of fisao that began it.
    fisao: String,
    pub(crate) source: Source,
}

/// Where model, verifier and prompts come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Source {
    /// From the built-in synthetic dataset.
    World {
        /// What its calibration knows.
        labels: LabelSource,
        /// Which one; runs begun before there was a choice are of the clear world.
        #[serde(default)]
        world: WorldChoice,
    },
    /// From files.
    Files(Files),
}

/// Paths are absolute, names on the Hub as they were given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Files {
    pub(crate) model: String,
    pub(crate) verifier: String,
    #[serde(alias = "allow-foreign-verifier")]
    pub(crate) allow_mismatched_verifier: bool,
    /// Where the calibration was read; the run keeps a copy of its own.
    pub(crate) calibration: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompts: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) images: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) allow_outside_images: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skip_damaged: bool,
    pub(crate) prompt: String,
    #[serde(alias = "validation-share")]
    pub(crate) validation_fraction: f64,
    /// A file, or the name of a built-in list.
    #[serde(default = "earlier_vocabulary")]
    pub(crate) vocabulary: PathBuf,
}

/// Earlier versions wrote down no list where none was named, and took the built-in synthetic dataset's.
fn earlier_vocabulary() -> PathBuf {
    PathBuf::from(vocabulary::WORLD)
}

impl RunRecord {
    /// What the command line says.
    pub(crate) fn of(source: &AlignSource) -> anyhow::Result<Self> {
        let source = if source.demo {
            let (labels, world) = (source.labels, source.world);
            Source::World { labels: labels.unwrap_or_default(), world: world.unwrap_or_default() }
        } else {
            Source::Files(files(source)?)
        };
        Ok(Self { version: VERSION, fisao: env!("CARGO_PKG_VERSION").to_owned(), source })
    }

    /// What a run was begun with; what the command line says as well must agree with it.
    pub(crate) fn of_run(folder: &RunFolder, source: &AlignSource) -> anyhow::Result<Self> {
        let path = folder.path(RECORD);
        if !path.exists() {
            let run = folder.root().display();
            bail!(
                Refusal::new(format!(
                    "{run} is not a run of `fisao align`, or of an earlier version"
                ))
                .hint(format!("resume a run of the demo with: fisao demo --output {run} --resume"))
            );
        }
        let begun: Self = read_toml("record of the run", &path)?;
        if begun.version != VERSION {
            let (found, run) = (begun.version, folder.root().display());
            bail!(
                Refusal::new(format!("{run} is a run of layout {found}, and this is of {VERSION}"))
                    .hint(format!("resume with fisao {}, which started it", begun.fisao))
            );
        }
        if source.is_given() {
            let table =
                |source: &Source| Table::try_from(source).or_internal("the record is not TOML");
            let asked = Self::of(source)?.source;
            let changed = differences(&table(&begun.source)?, &table(&asked)?, "");
            if !changed.is_empty() {
                let (run, changed) = (folder.root().display(), changed.join(", "));
                bail!(
                    Refusal::new(format!("{run} was started with something else: {changed}"))
                        .hint("leave it out to resume the run, or start another in a new folder")
                );
            }
        }
        Ok(begun)
    }
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
    let absolute = |path: &Path| {
        std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
    };
    let missing = |name: &str| Refusal::new(format!("--{name} is missing"));
    let path = |path: &Option<PathBuf>, name: &str| {
        let path = path.as_deref().ok_or_else(|| missing(name))?;
        absolute(path)
    };
    let calibration = path(&source.calibration, "calibration")?;
    Ok(Files {
        model: source.model.as_ref().ok_or_else(|| missing("model"))?.lasting()?,
        verifier: source.verifier.as_ref().ok_or_else(|| missing("verifier"))?.lasting()?,
        allow_mismatched_verifier: source.allow_mismatched_verifier,
        prompts: source.prompts.as_deref().map(absolute).transpose()?,
        images: source.images.as_deref().map(absolute).transpose()?,
        allow_outside_images: source.allow_outside_images,
        skip_damaged: source.damaged.skip_damaged,
        validation_fraction: validation_fraction(source)?,
        prompt: source.prompt.clone().unwrap_or_else(|| fisao_scenes::PROMPTS[0].to_owned()),
        // The names of built-in lists are no paths.
        vocabulary: match &source.vocabulary.vocabulary {
            Some(path) if path.exists() => absolute(path)?,
            Some(name) => name.clone(),
            // A calibration that cannot be read ends the run where it is needed.
            None => usual_list(false, calibrations::read(&calibration).ok().as_ref()).into(),
        },
        calibration,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_begun_before_there_was_a_choice_is_of_the_clear_world() {
        let old =
            "version = 1\nfisao = \"0.1.0\"\n\n[source]\nkind = \"world\"\nlabels = \"none\"\n";
        let record: RunRecord = toml::from_str(old).unwrap();
        let (labels, world) = (LabelSource::None, WorldChoice::Clear);
        assert_eq!(record.source, Source::World { labels, world });
    }

    #[test]
    fn a_run_of_files_that_names_no_vocabulary_is_of_the_worlds_words() {
        let old = "version = 1\nfisao = \"0.1.0\"\n\n[source]\nkind = \"files\"\nmodel = \"m\"\nverifier = \"v\"\n\
                   allow-foreign-verifier = false\ncalibration = \"/c.json\"\nimages = \"/i\"\nprompt = \"p\"\n\
                   validation-share = 0.0\n";
        let record: RunRecord = toml::from_str(old).unwrap();
        let Source::Files(files) = record.source else { panic!("a source of scenes") };
        assert_eq!(files.vocabulary, Path::new("world"));
    }

    #[test]
    fn the_world_of_a_run_is_kept() {
        let asked =
            AlignSource { demo: true, world: Some(WorldChoice::Hard), ..Default::default() };
        let record = RunRecord::of(&asked).unwrap();
        let read: RunRecord = toml::from_str(&toml::to_string(&record).unwrap()).unwrap();
        assert_eq!(read, record);
        let Source::World { world, .. } = read.source else { panic!("a source of files") };
        assert_eq!(world, WorldChoice::Hard);
    }
}
