//! Which prediction is about which labelled text.

use std::collections::HashMap;

use serde::Serialize;

use super::labels::LabelledText;
use super::predictions::PredictedText;
use crate::image_id::ImageIndex;
use crate::rows::shortened;

/// How predictions were brought together with labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedTextsBy {
    /// By their ids, which all rows of both files have.
    Id,
    /// By image and text; of equal pairs the first goes with the first, and so on.
    ImageAndText,
    /// By the text alone, where a row names no image; of equal texts the first goes with the first, and so on.
    Text,
}

/// Texts that only one file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unmatched {
    /// Labelled texts without a prediction.
    pub without_prediction: usize,
    /// Predictions for an id or image that the labels do not have.
    pub unknown: usize,
    /// Predictions for an id or image of the labels, but about another text.
    pub other_text: usize,
}

impl Unmatched {
    /// How many in all.
    pub fn total(self) -> usize {
        self.without_prediction + self.unknown + self.other_text
    }
}

/// Predictions that cannot be brought together with labels.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairingFault {
    /// More predictions than labelled texts of one image and text.
    #[error(
        "there are more predictions than labels for the text '{text}' of {image}; keep one for each"
    )]
    Repeated {
        /// The text, shortened.
        text: String,
        /// Its image, or that it has none.
        image: String,
    },
    /// Some texts stand in one file only.
    #[error(
        "{} labelled texts have no prediction, {} predictions are of images or ids without labels, {} of other texts{first}; \
         --skip-unmatched leaves them out and counts them",
        counts.without_prediction, counts.unknown, counts.other_text
    )]
    Unmatched {
        /// How many.
        counts: Unmatched,
        /// What the first of them is.
        first: String,
    },
}

/// For each labelled text the position of its prediction.
pub(super) struct Pairing {
    pub(super) predictions: Vec<Option<usize>>,
    pub(super) by: PairedTextsBy,
    pub(super) unmatched: Unmatched,
}

pub(super) fn pair(
    labels: &[LabelledText],
    predictions: &[PredictedText],
    skip: bool,
) -> Result<Pairing, PairingFault> {
    let ids = labels.iter().all(|text| text.id.is_some())
        && predictions.iter().all(|text| text.id.is_some());
    let images = labels.iter().all(|text| text.image.is_some())
        && predictions.iter().all(|text| text.image.is_some());
    let by = match (ids, images) {
        (true, _) => PairedTextsBy::Id,
        (false, true) => PairedTextsBy::ImageAndText,
        (false, false) => PairedTextsBy::Text,
    };
    let places = Places::of(labels, by);
    let mut found = vec![None; labels.len()];
    let (mut unmatched, mut first) = (Unmatched::default(), None);
    let mut used: HashMap<(usize, &str), usize> = HashMap::new();
    for (position, prediction) in predictions.iter().enumerate() {
        let Some(place) = places.find(prediction) else {
            unmatched.unknown += 1;
            first.get_or_insert_with(|| described(prediction));
            continue;
        };
        let text = prediction.text.as_str();
        let Some(same) = places.texts.get(&(place, text)) else {
            unmatched.other_text += 1;
            first.get_or_insert_with(|| described(prediction));
            continue;
        };
        let next = used.entry((place, text)).or_default();
        let &label = same.get(*next).ok_or_else(|| PairingFault::Repeated {
            text: shortened(text),
            image: prediction
                .image
                .as_ref()
                .map_or("no image".to_owned(), |image| format!("image '{}'", shortened(image))),
        })?;
        *next += 1;
        found[label] = Some(position);
    }
    unmatched.without_prediction = found.iter().filter(|found| found.is_none()).count();
    if unmatched.total() > 0 && !skip {
        let first = first.map_or_else(String::new, |first| format!(", first {first}"));
        return Err(PairingFault::Unmatched { counts: unmatched, first });
    }
    Ok(Pairing { predictions: found, by, unmatched })
}

fn described(prediction: &PredictedText) -> String {
    let PredictedText { id, image, text, .. } = prediction;
    let name = id.as_ref().or(image.as_ref()).map_or("a text without an image", String::as_str);
    format!("{}: '{}'", shortened(name), shortened(text))
}

/// Where to look for a labelled text: by id or image, and then by the text.
struct Places<'a> {
    by: PairedTextsBy,
    ids: HashMap<&'a str, usize>,
    images: ImageIndex,
    /// Labelled texts by place and text, in the order of the file.
    texts: HashMap<(usize, &'a str), Vec<usize>>,
}

impl<'a> Places<'a> {
    fn of(labels: &'a [LabelledText], by: PairedTextsBy) -> Self {
        let mut places =
            Self { by, ids: HashMap::new(), images: ImageIndex::default(), texts: HashMap::new() };
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (position, label) in labels.iter().enumerate() {
            let place = match by {
                PairedTextsBy::Id => {
                    places.ids.insert(label.id.as_deref().unwrap_or_default(), position);
                    position
                }
                PairedTextsBy::ImageAndText => {
                    let image = label.image.as_deref().unwrap_or_default();
                    *known.entry(image).or_insert_with(|| {
                        places.images.insert(image, position);
                        position
                    })
                }
                PairedTextsBy::Text => 0,
            };
            places.texts.entry((place, label.text.as_str())).or_default().push(position);
        }
        places
    }

    fn find(&self, prediction: &PredictedText) -> Option<usize> {
        match self.by {
            PairedTextsBy::Id => self.ids.get(prediction.id.as_deref()?).copied(),
            PairedTextsBy::ImageAndText => {
                self.images.find(prediction.image.as_deref()?).map(|(place, _)| place)
            }
            PairedTextsBy::Text => Some(0),
        }
    }
}
