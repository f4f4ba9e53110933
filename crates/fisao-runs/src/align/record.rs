//! What a run is trained from: kept in its folder, so that the folder is all it takes to go on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use fisao_formats::documents::read_toml;
use fisao_formats::run_folder::RunFolder;
use fisao_scenes::WorldKind;
use fisao_verifier::calibration::Labels;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::bundle::{ModelSource, PairSource};
use crate::calibrations::CALIBRATION;
use crate::failure::{OrInternal as _, Refusal};
use crate::model_location::ModelLocation;
use crate::settings::differences;
use crate::verifier_choice::VerifierSource;
use crate::vocabulary;

/// File of the [`RunRecord`] in a run's folder.
pub const RECORD: &str = "run.toml";

/// Layout of run folders that this version writes.
const VERSION: u32 = 1;

/// What a run was begun with, besides its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunRecord {
    version: u32,
    /// Version of fisao that began it.
    fisao: String,
    /// Where model, verifier and prompts come from.
    pub source: Source,
}

/// Where model, verifier and prompts come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Source {
    /// From the built-in synthetic dataset.
    World {
        /// What its calibration knows.
        labels: Labels,
        /// Which one; runs begun before there was a choice are of the clear world.
        #[serde(default)]
        world: WorldKind,
    },
    /// From files.
    Files(Box<Files>),
}

/// Paths are absolute, names on the Hub as they were given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Files {
    /// The model.
    pub model: String,
    /// The verifier, or `decoder`; what goes with the model if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<String>,
    /// Whether the verifier's vision tower may be another than the model's own.
    #[serde(alias = "allow-foreign-verifier")]
    pub allow_mismatched_verifier: bool,
    /// Where the calibration was read, of which the run keeps a copy of its own; without it the run calibrates itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
    /// Objects of the images, for the calibration and for measuring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<PathBuf>,
    /// Images that the run calibrates on; by the number of images unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_images: Option<usize>,
    /// Images that are held out and captioned before and after; unless it is said, by the number of images where the run
    /// calibrates itself, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_images: Option<usize>,
    /// Folder for the model with the adapter in its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<PathBuf>,
    /// Prompts to train on; those of the images if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
    /// Folder of images: those to train on, or those that prompts name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Whether prompts may name images outside the folder of images.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_outside_images: bool,
    /// Whether images that cannot be used are named and left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_damaged: bool,
    /// What is asked about images that have no prompt of their own.
    pub prompt: String,
    /// Fraction of the images that is held out for validation.
    #[serde(alias = "validation-share")]
    pub validation_fraction: f64,
    /// A file, or the name of a built-in list.
    #[serde(default = "earlier_vocabulary")]
    pub vocabulary: PathBuf,
}

impl Files {
    /// Where the model is.
    pub(super) fn model_location(&self) -> ModelLocation {
        ModelLocation::from(OsString::from(&self.model))
    }

    /// Whether the list of objects is found in the captions of the calibration's images.
    pub(super) fn finds_vocabulary(&self) -> bool {
        vocabulary::is_automatic(Some(&self.vocabulary))
    }

    /// The list that annotations use and rates are measured by: the usual one where another is to be found.
    pub(super) fn measured_vocabulary(&self) -> &Path {
        if self.finds_vocabulary() {
            return Path::new(vocabulary::usual_list(false, None));
        }
        &self.vocabulary
    }

    /// Model and verifier, as they are loaded for training.
    pub(super) fn pair(&self) -> PairSource {
        let model = Some(self.model_location());
        PairSource {
            model: ModelSource { model, ..ModelSource::default() },
            verifier: self.verifier.as_ref().map(|name| VerifierSource::from(OsString::from(name))),
            allow_mismatched_verifier: self.allow_mismatched_verifier,
            world: WorldKind::default(),
        }
    }
}

/// Earlier versions wrote down no list where none was named, and took the built-in synthetic dataset's.
fn earlier_vocabulary() -> PathBuf {
    PathBuf::from(vocabulary::WORLD)
}

/// What a run that has no calibration yet is given in another way: its captions stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendment {
    /// Instead of [`Files::annotations`].
    pub annotations: Option<PathBuf>,
    /// Instead of [`Files::vocabulary`].
    pub vocabulary: Option<PathBuf>,
}

impl Amendment {
    /// Whether it changes anything.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }
}

impl RunRecord {
    /// Takes what is given in another way, and writes it down.
    pub fn amend(&mut self, amendment: &Amendment, folder: &RunFolder) -> anyhow::Result<()> {
        if !amendment.is_given() {
            return Ok(());
        }
        let run = folder.root().display();
        let Source::Files(files) = &mut self.source else {
            bail!(Refusal::new(format!(
                "{run} is a run of the built-in synthetic dataset, which takes no --annotations and no --vocabulary"
            )))
        };
        let Amendment { annotations, vocabulary } = amendment.clone();
        let before = files.clone();
        files.annotations = annotations.or(files.annotations.take());
        files.vocabulary = vocabulary.unwrap_or_else(|| files.vocabulary.clone());
        if *files == before {
            return Ok(());
        }
        if folder.path(CALIBRATION).exists() {
            bail!(
                Refusal::new(format!("{run} is calibrated already, with other annotations or another vocabulary"))
                    .hint("leave --annotations and --vocabulary out to resume the run, or start another in a new folder")
            );
        }
        Ok(folder.write_toml(RECORD, self)?)
    }

    /// Of a run that begins now.
    pub fn new(source: Source) -> Self {
        Self { version: VERSION, fisao: env!("CARGO_PKG_VERSION").to_owned(), source }
    }

    /// What a run was begun with; what is asked for as well must agree with it.
    pub fn of_run(folder: &RunFolder, asked: Option<&Source>) -> anyhow::Result<Self> {
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
        if let Some(asked) = asked {
            let table =
                |source: &Source| Table::try_from(source).or_internal("the record is not TOML");
            let changed = differences(&table(&begun.source)?, &table(asked)?, "");
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn run_record_without_a_dataset_choice_means_the_clear_one() {
        let old =
            "version = 1\nfisao = \"0.1.0\"\n\n[source]\nkind = \"world\"\nlabels = \"none\"\n";
        let record: RunRecord = toml::from_str(old).unwrap();
        let (labels, world) = (Labels::None, WorldKind::Clear);
        assert_eq!(record.source, Source::World { labels, world });
    }

    #[test]
    fn run_record_without_vocabulary_means_that_of_the_dataset() {
        let old = "version = 1\nfisao = \"0.1.0\"\n\n[source]\nkind = \"files\"\nmodel = \"m\"\nverifier = \"v\"\n\
                   allow-foreign-verifier = false\ncalibration = \"/c.json\"\nimages = \"/i\"\nprompt = \"p\"\n\
                   validation-share = 0.0\n";
        let record: RunRecord = toml::from_str(old).unwrap();
        let Source::Files(files) = record.source else { panic!("a source of scenes") };
        assert_eq!(files.vocabulary, Path::new("world"));
    }

    #[test]
    fn the_world_of_a_run_is_kept() {
        let (labels, world) = (Labels::Annotations, WorldKind::Hard);
        let record = RunRecord::new(Source::World { labels, world });
        let read: RunRecord = toml::from_str(&toml::to_string(&record).unwrap()).unwrap();
        assert_eq!(read, record);
        let Source::World { world, .. } = read.source else { panic!("a source of files") };
        assert_eq!(world, WorldKind::Hard);
    }
}
