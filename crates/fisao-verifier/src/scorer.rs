//! Scores: how well a name fits an image, by the policy's own image encoder.
//!
//! `s(v, u) = f_v(v) · f_t(template(u))`, both unit vectors; several templates are averaged and scaled
//! back to length 1 (Radford et al. 2021, §3.1.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::parameters::{Parameters, floats};
use fisao_models::text::{TextError, Tokenizer};
use fisao_models::vision::{VisionConfig, VisionTower};

use crate::templates::Templates;

/// Largest relative difference at which two copies of a tower's tensor count as the same weights: one
/// of them may have been rounded to bf16, whose relative step is 2⁻⁸.
const SAME_WEIGHT: f32 = 1.0 / 128.0;

/// Names embedded at once.
const TEXT_BATCH: usize = 64;

/// Why a verifier could not be used.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The verifier's image tower is built differently from the policy's.
    #[error(
        "the verifier's vision tower is not the model's own: the configurations differ \
         (model {policy}, verifier {verifier})"
    )]
    ForeignConfig {
        /// The policy's tower.
        policy: String,
        /// The verifier's tower.
        verifier: String,
    },
    /// The verifier's image tower has other weights than the policy's.
    #[error(
        "the verifier's vision tower is not the model's own: `{tensor}` differs by up to {difference:.3e}"
    )]
    ForeignWeights {
        /// First tensor that differs.
        tensor: String,
        /// Largest absolute difference in it.
        difference: f32,
    },
    /// A name could not be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
}

impl VerifierError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ForeignConfig { .. } | Self::ForeignWeights { .. } => Some(
                "give the CLIP checkpoint that the model's vision tower was taken from, or pass \
                 --allow-foreign-verifier to use another encoder knowingly"
                    .to_owned(),
            ),
            Self::Text(_) => None,
        }
    }
}

/// A CLIP or SigLIP model that scores names against images.
#[derive(Clone)]
pub struct Verifier {
    model: ContrastiveModel,
    tokenizer: Arc<dyn Tokenizer>,
    templates: Templates,
    /// Unit text embeddings by name; filled as names come up.
    names: BTreeMap<String, Vec<f32>>,
}

impl Verifier {
    /// A verifier with nothing embedded yet.
    pub fn new(
        model: impl Into<ContrastiveModel>,
        tokenizer: Arc<dyn Tokenizer>,
        templates: Templates,
    ) -> Self {
        Self { model: model.into(), tokenizer, templates, names: BTreeMap::new() }
    }

    /// The model.
    pub fn model(&self) -> &ContrastiveModel {
        &self.model
    }

    /// Checks that the verifier's image tower is the policy's own: same sizes, same weights up to
    /// rounding of their storage type. The policy may have left out the tower's last layers, as models do
    /// that use the features of an earlier one.
    ///
    /// # Errors
    /// [`VerifierError::ForeignConfig`] or [`VerifierError::ForeignWeights`].
    pub fn check_own_encoder(&self, policy: &VisionTower) -> Result<(), VerifierError> {
        let own = policy.config();
        let verifier = self.model.vision().config();
        let layers = own.num_hidden_layers.min(verifier.num_hidden_layers);
        let cut = VisionConfig { num_hidden_layers: layers, ..verifier.clone() };
        if *own != cut {
            return Err(VerifierError::ForeignConfig {
                policy: format!("{own:?}"),
                verifier: format!("{verifier:?}"),
            });
        }
        let mut own = BTreeMap::new();
        policy.clone().visit_mut("vision_model", &mut |name, parameter| {
            own.insert(name.to_owned(), parameter.values());
        });
        let mut foreign = None;
        self.model.vision().clone().visit_mut("vision_model", &mut |name, parameter| {
            let Some(own) = own.get(name).filter(|_| foreign.is_none()) else { return };
            if let Some(difference) = largest_difference(own, &parameter.values()) {
                foreign =
                    Some(VerifierError::ForeignWeights { tensor: name.to_owned(), difference });
            }
        });
        foreign.map_or(Ok(()), Err)
    }

    /// Unit image embeddings: `[batch, 3, h, w]` → one vector per image.
    pub fn embed_images(&self, pixels: Tensor<4>) -> Vec<Vec<f32>> {
        let embeddings = floats(&self.model.embed_images(pixels));
        embeddings.chunks_exact(self.model.dim()).map(<[f32]>::to_vec).collect()
    }

    /// Embeds the names that are not known yet.
    ///
    /// # Errors
    /// [`VerifierError::Text`] when a name cannot be encoded.
    pub fn learn<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), VerifierError> {
        let mut fresh: Vec<&str> =
            names.into_iter().filter(|name| !self.names.contains_key(*name)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        for part in fresh.chunks(TEXT_BATCH) {
            for name in part {
                let embedding = self.embed_text(&self.templates.render(name))?;
                self.names.insert((*name).to_owned(), embedding);
            }
        }
        Ok(())
    }

    /// Unit embedding of what several texts have in common: their mean, scaled to length 1.
    ///
    /// # Errors
    /// [`VerifierError::Text`] when a text cannot be encoded.
    pub fn embed_text(&self, texts: &[String]) -> Result<Vec<f32>, VerifierError> {
        let ids = texts
            .iter()
            .map(|text| self.tokenizer.encode(text, true))
            .collect::<Result<Vec<_>, _>>()?;
        let dim = self.model.dim();
        let mut sum = vec![0.0_f32; dim];
        for embedding in floats(&self.model.embed_text(&ids)).chunks_exact(dim) {
            sum.iter_mut().zip(embedding).for_each(|(sum, value)| *sum += value);
        }
        let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
        Ok(sum.into_iter().map(|x| x / norm).collect())
    }

    /// Cosine of a known name with an image embedding.
    ///
    /// # Panics
    /// When the name has not been [learned](Self::learn).
    pub fn score(&self, image: &[f32], name: &str) -> f64 {
        let text = self.names.get(name).expect("names are learned before they are scored");
        cosine(image, text)
    }
}

/// Inner product of two unit vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn largest_difference(a: &[f32], b: &[f32]) -> Option<f32> {
    let scale = a.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let difference = a.iter().zip(b).fold(0.0_f32, |most, (x, y)| most.max((x - y).abs()));
    (difference > SAME_WEIGHT * scale).then_some(difference)
}
