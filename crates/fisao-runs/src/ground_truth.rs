//! What is really in images, from any file that says so.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use fisao_eval::chair::{GroundTruth, GroundTruthReader, ObjectVocabulary, Rules};
use fisao_eval::image_id::ImageIndex;
use fisao_formats::documents::open_text;

use crate::failure::Refusal;
use crate::reporter::Reporter;

/// Reads lists of objects and COCO's annotations, together; says which categories of theirs the vocabulary does not know.
pub fn read(
    files: &[PathBuf],
    rules: Rules,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<GroundTruth> {
    let mut gathered = GroundTruthReader::new(vocabulary, rules);
    for file in files {
        let text = open_text("ground truth", file)?;
        let read = gathered.read(text);
        read.with_context(|| format!("{} cannot be read as ground truth", file.display()))?;
    }
    let (truth, summary) = gathered.finish();
    let unknown = &summary.unknown_categories;
    if let Some((category, _)) = unknown.first_key_value() {
        let (count, total) = (unknown.len(), unknown.values().sum::<usize>());
        reporter.warn(
            format!(
                "{count} categories of the ground truth are not in the vocabulary, first \
                 `{category}`: {total} annotations are left out"
            ),
            Some("no caption can name them; a vocabulary with their names is given with --vocabulary"),
        );
    }
    Ok(truth)
}

/// Objects of images, by any of the images' names.
pub struct Annotations {
    truth: GroundTruth,
    ids: Vec<String>,
    index: ImageIndex,
}

impl Annotations {
    /// Annotations by image.
    pub fn new(truth: GroundTruth) -> Self {
        let ids: Vec<String> = truth.keys().cloned().collect();
        let index = truth.index();
        Self { truth, ids, index }
    }

    /// The annotated objects of an image, which may be listed with or without the file's ending, or by its number in COCO.
    pub fn objects_of(&self, id: &str) -> anyhow::Result<BTreeSet<String>> {
        match self.find(id) {
            Some(objects) => Ok(objects.clone()),
            None => bail!(
                Refusal::new(format!("the annotations do not list the image {id}"))
                    .hint("add it, with an empty list of objects if the image holds none")
            ),
        }
    }

    /// The same, where the image is listed.
    pub fn find(&self, id: &str) -> Option<&BTreeSet<String>> {
        let stem = id.rsplit_once('.').map_or(id, |(stem, _)| stem);
        let listed = self.truth.get(id).or_else(|| self.truth.get(stem));
        listed.or_else(|| self.truth.get(&self.ids[self.index.find(id)?.0]))
    }
}
