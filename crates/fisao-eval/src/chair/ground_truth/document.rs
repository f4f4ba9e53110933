//! One JSON object of ground truth, whose fields tell what it is.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::annotations::{AnnotationList, Annotations, Category, Image};
use crate::chair::MentionFinder;
use crate::image_id::ImageId;

/// What an object turned out to be.
#[derive(Debug)]
pub(super) enum Document {
    /// Images with their objects.
    Lists(Vec<(String, Vec<String>)>),
    /// Annotations of COCO.
    Annotations(Annotations),
}

/// A row inside a list cannot hold COCO's annotations.
impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DocumentSeed { finder: None }.deserialize(deserializer)
    }
}

/// Reads an object, with what is needed to understand captions in it.
pub(super) struct DocumentSeed<'a, 'v> {
    pub(super) finder: Option<&'a mut MentionFinder<'v>>,
}

/// The value of a field whose meaning shows only at the end.
#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Id(ImageId),
    Names(Vec<String>),
    Other(IgnoredAny),
}

/// The field "images": COCO's list, or a table from image to places in "objects".
#[derive(Deserialize)]
#[serde(untagged)]
enum Images {
    Listed(Vec<Image>),
    Places(BTreeMap<String, Vec<usize>>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Categories {
    Listed(Vec<Category>),
    Other(IgnoredAny),
}

/// The fields of an object as they came.
#[derive(Default)]
struct Fields {
    image_id: Option<String>,
    objects: Option<Vec<String>>,
    places: Option<BTreeMap<String, Vec<usize>>>,
    lists: Vec<(String, Vec<String>)>,
    annotations: Annotations,
    annotated: bool,
}

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_, '_> {
    type Value = Document;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DocumentSeed<'_, '_> {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Document, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<String>()? {
            // A row with an image of its own may call further fields what it likes.
            let row = fields.image_id.is_some();
            match key.as_str() {
                "annotations" if !row => {
                    let finder = self.finder.as_deref_mut();
                    map.next_value_seed(AnnotationList { kept: &mut fields.annotations, finder })?;
                    fields.annotated = true;
                }
                "categories" if !row => fields.name_categories(map.next_value()?),
                "images" if !row => fields.list_images(map.next_value()?),
                _ => fields.take(key, map.next_value()?),
            }
        }
        fields.document().map_err(A::Error::custom)
    }
}

impl Fields {
    fn name_categories(&mut self, categories: Categories) {
        if let Categories::Listed(categories) = categories {
            let named = categories.into_iter().filter_map(|category| match category {
                Category::Named { id: Some(id), name } => Some((id, name)),
                Category::Named { id: None, .. } | Category::Other(_) => None,
            });
            self.annotations.categories.extend(named);
        }
    }

    fn list_images(&mut self, images: Images) {
        match images {
            Images::Listed(images) => {
                let ids = images.into_iter().filter_map(|image| match image {
                    Image::Numbered { id, file_name } => Some((id.0, file_name)),
                    Image::Other(_) => None,
                });
                self.annotations.images.extend(ids);
            }
            Images::Places(places) => self.places = Some(places),
            Images::Other(_) => {}
        }
    }

    fn take(&mut self, key: String, value: Field) {
        match (key.as_str(), value) {
            ("image_id", Field::Id(id)) => self.image_id = Some(id.0),
            // "image_id" counts before "image", whatever their order.
            ("image", Field::Id(id)) => {
                self.image_id.get_or_insert(id.0);
            }
            ("objects", Field::Names(names)) => self.objects = Some(names),
            (_, Field::Names(names)) => self.lists.push((key, names)),
            _ => {}
        }
    }

    fn document(self) -> Result<Document, String> {
        if self.annotated {
            return Ok(Document::Annotations(self.annotations));
        }
        match (self.image_id, self.objects, self.places) {
            (Some(id), Some(objects), _) => Ok(Document::Lists(vec![(id, objects)])),
            (Some(id), None, _) => Err(format!("image '{id}' has no list of \"objects\"")),
            (None, Some(objects), Some(places)) => by_place(&objects, places),
            (None, Some(_), None) => {
                Err("a row names no image; add \"image_id\" (or \"image\")".to_owned())
            }
            (None, None, _) if self.lists.is_empty() => {
                Err("an object without images and their objects".to_owned())
            }
            (None, None, _) => Ok(Document::Lists(self.lists)),
        }
    }
}

/// Objects that are given by their places in a list of names.
fn by_place(objects: &[String], places: BTreeMap<String, Vec<usize>>) -> Result<Document, String> {
    let lists = places.into_iter().map(|(id, places)| {
        let name = |place: usize| {
            objects.get(place).cloned().ok_or_else(|| {
                format!("image '{id}' holds object {place}, but there are {}", objects.len())
            })
        };
        let names = places.into_iter().map(name).collect::<Result<_, _>>()?;
        Ok((id, names))
    });
    lists.collect::<Result<_, String>>().map(Document::Lists)
}
