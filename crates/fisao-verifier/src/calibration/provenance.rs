//! What a calibration was made with, and whether that is what is at hand.

use serde::{Deserialize, Serialize};

use super::{Calibration, CalibrationError};
use crate::regions::{Regions, ScoreConfig};
use crate::templates::Templates;

/// A model by its name and by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelIdentity {
    /// What it was asked for by; for people.
    pub name: String,
    /// SHA-256 over configuration, tokenizer, image processing and weights, hexadecimal.
    pub sha256: String,
}

/// The object vocabulary by its size and content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyIdentity {
    /// Number of categories.
    pub categories: usize,
    /// SHA-256 over categories, surface forms and neutral phrases, hexadecimal.
    pub sha256: String,
}

/// The images that were captioned; another set of images is no reason to calibrate again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesIdentity {
    /// How many.
    pub count: usize,
    /// SHA-256 over names and pixels, in order, hexadecimal.
    pub sha256: String,
}

/// How the verifier scores: everything that moves the scale of its scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifierIdentity {
    /// The model.
    pub model: ModelIdentity,
    /// Sentences in which names are scored.
    pub templates: Templates,
    /// Where names are looked for.
    pub score: ScoreConfig,
}

/// What a calibration was made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of FiSAO.
    pub fisao: String,
    /// The model whose captions were looked at.
    pub model: ModelIdentity,
    /// The adapter on it, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<ModelIdentity>,
    /// The verifier.
    pub verifier: VerifierIdentity,
    /// The object names.
    pub vocabulary: VocabularyIdentity,
    /// The images.
    pub images: ImagesIdentity,
}

/// What a calibration is about to be used with. What is `None` plays no part in that use.
#[derive(Clone, Copy, Debug)]
pub struct AtHand<'a> {
    /// The model that is to be aligned, and the adapter that it begins with.
    pub model: Option<(&'a ModelIdentity, Option<&'a ModelIdentity>)>,
    /// The verifier.
    pub verifier: &'a VerifierIdentity,
    /// The object names.
    pub vocabulary: Option<&'a VocabularyIdentity>,
}

impl Calibration {
    /// Checks that this calibration speaks about what is at hand. One that does not say what it was made with, as it was
    /// put together by hand, fits everything.
    ///
    /// # Errors
    /// [`CalibrationError::Foreign`] that names everything that differs.
    pub fn check_fits(&self, at_hand: &AtHand<'_>) -> Result<(), CalibrationError> {
        let Some(made) = &self.made_with else { return Ok(()) };
        let mut differences = Vec::new();
        let mut compare = |what: &str, made: &ModelIdentity, here: &ModelIdentity| {
            if made.sha256 != here.sha256 {
                let (made_hash, hash) = (short(&made.sha256), short(&here.sha256));
                differences.push(if made.name == here.name {
                    format!("{what} {} as it was before ({made_hash}, now {hash})", made.name)
                } else {
                    format!("{what} {} ({made_hash}), not {} ({hash})", made.name, here.name)
                });
            }
        };
        if let Some((model, _)) = at_hand.model {
            compare("the model", &made.model, model);
        }
        compare("the verifier", &made.verifier.model, &at_hand.verifier.model);
        match (&made.adapter, at_hand.model) {
            (Some(made), Some((_, Some(adapter)))) => compare("the adapter", made, adapter),
            (Some(made), Some((_, None))) => {
                differences
                    .push(format!("the adapter {} on the model, not without one", made.name));
            }
            (None, Some((_, Some(adapter)))) => {
                differences.push(format!("no adapter on the model, not with {}", adapter.name));
            }
            _ => {}
        }
        if made.verifier.templates != at_hand.verifier.templates {
            let (made, here) = (&made.verifier.templates, &at_hand.verifier.templates);
            differences.push(format!("the templates {:?}, not {:?}", made.prompts, here.prompts));
        }
        let pooled = self.weights.is_none_or(|weights| weights.patches <= 0.0);
        let effective = |score: ScoreConfig| match score.regions {
            // The same scores under another name.
            Regions::Auto if pooled => ScoreConfig { regions: Regions::Whole, ..score },
            _ => score,
        };
        if effective(made.verifier.score) != effective(at_hand.verifier.score) {
            let (made, here) = (&made.verifier.score, &at_hand.verifier.score);
            differences.push(format!("scores of {made:?}, not of {here:?}"));
        }
        if let Some(vocabulary) = at_hand.vocabulary
            && made.vocabulary.sha256 != vocabulary.sha256
        {
            let (made, here) = (made.vocabulary.categories, vocabulary.categories);
            differences.push(format!("another object vocabulary ({made} categories, here {here})"));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(CalibrationError::Foreign { differences: differences.join("; ") })
    }
}

fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}
