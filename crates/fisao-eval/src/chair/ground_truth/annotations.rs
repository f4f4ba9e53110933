//! The annotations of COCO: boxes and captions, read one at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor};

use crate::chair::MentionFinder;
use crate::image_id::ImageId;
use crate::written_id;

/// What is kept of a file of annotations.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    /// Images that are listed, and what their files are called.
    pub(super) images: Vec<(String, Option<String>)>,
    /// Names of categories by number.
    pub(super) categories: HashMap<u64, String>,
    /// Image → numbers of the categories in it, with their instances.
    pub(super) instances: HashMap<String, BTreeMap<u64, usize>>,
    /// Image → categories of the vocabulary that its captions name.
    pub(super) mentioned: HashMap<String, BTreeSet<usize>>,
    /// Captions read.
    pub(super) captions: usize,
}

/// One annotation. Outlines and boxes are passed over without being kept.
#[derive(Deserialize)]
struct Annotation {
    image_id: ImageId,
    #[serde(default, deserialize_with = "written_id::whole")]
    category_id: Option<u64>,
    caption: Option<String>,
}

/// Reads the list of annotations into what is kept.
pub(super) struct AnnotationList<'a, 'v> {
    pub(super) kept: &'a mut Annotations,
    pub(super) finder: Option<&'a mut MentionFinder<'v>>,
}

impl<'de> DeserializeSeed<'de> for AnnotationList<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AnnotationList<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of annotations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some(finder) = self.finder else {
            return Err(A::Error::custom(
                "annotations of COCO can only be read together with an object vocabulary",
            ));
        };
        while let Some(Annotation { image_id, category_id, caption }) = entries.next_element()? {
            let ImageId(image_id) = image_id;
            match (category_id, caption) {
                (Some(category), _) => {
                    let instances = self.kept.instances.entry(image_id).or_default();
                    *instances.entry(category).or_default() += 1;
                }
                (None, Some(caption)) => {
                    self.kept.captions += 1;
                    let places = finder.places(&caption).into_iter();
                    let mentioned = self.kept.mentioned.entry(image_id).or_default();
                    mentioned.extend(places.map(|(category, _)| category));
                }
                (None, None) => {
                    return Err(A::Error::custom(
                        "an annotation has neither \"category_id\" nor \"caption\"",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// An entry of "categories", or something else of that name.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Category {
    Named {
        #[serde(deserialize_with = "written_id::whole")]
        id: Option<u64>,
        name: String,
    },
    Other(IgnoredAny),
}

/// An entry of "images", or something else of that name.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Image {
    Numbered { id: ImageId, file_name: Option<String> },
    Other(IgnoredAny),
}
