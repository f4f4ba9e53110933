//! A LLaVA's affine maps by name, and the adapters on them.

use super::Llava;
use crate::linear::{ActivationDtype, MapVisitor};
use crate::lora::{LoraConfig, LoraError, LowRank};
use crate::parameters::ParameterMut;
use crate::random::Purpose;

/// Where the decoder's layers are among the canonical names.
const DECODER_LAYERS: &str = "language_model.model.layers.";
/// The map to the vocabulary.
const HEAD: &str = "language_model.lm_head";

impl Llava {
    /// Visits every affine map under its canonical name, in a fixed order:
    /// `vision_tower.vision_model.encoder.layers.N.…`, `multi_modal_projector.linear_{1,2}`,
    /// `language_model.model.layers.N.…`, and `language_model.lm_head` where it is no embedding table.
    pub fn visit_maps_mut(&mut self, visitor: &mut MapVisitor<'_>) {
        self.vision_tower.visit_maps_mut("vision_tower.vision_model", visitor);
        visitor("multi_modal_projector.linear_1", &mut self.linear_1);
        visitor("multi_modal_projector.linear_2", &mut self.linear_2);
        self.language_model.visit_maps_mut("language_model", visitor);
    }

    /// Attaches a fresh adapter to the language model. Returns the number of adapter matrices.
    ///
    /// # Errors
    /// [`LoraError`] when the configuration names something that does not exist.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<usize, LoraError> {
        config.validate()?;
        let device = self.device().inner();
        let mut rng = Purpose::AdapterStart.stream(seed, 0);
        let mut count = 0;
        self.visit_maps_mut(&mut |name, map| {
            let short = name.rsplit('.').next().unwrap_or(name);
            let named = config.target_modules.iter().any(|target| target == short);
            if named && name.starts_with(DECODER_LAYERS) {
                map.adapter = Some(LowRank::new(config, map.size(), &mut rng, &device));
                count += 2;
            }
        });
        Ok(count)
    }

    /// The same weights with every adapter switched off, on the image tower and projector too: the
    /// reference policy. No tensor is copied.
    #[must_use]
    pub fn without_lora(&self) -> Self {
        let mut reference = self.clone();
        reference.visit_maps_mut(&mut |_, map| map.adapter = None);
        reference
    }

    /// Sets what affine maps multiply: those of the decoder's layers, the projector and the image tower, not the map to the
    /// vocabulary, whose rounding would go straight into the log-probabilities. Returns how many of them the setting is
    /// of consequence for.
    pub fn set_activation_dtype(&mut self, dtype: ActivationDtype) -> usize {
        let mut count = 0;
        self.visit_maps_mut(&mut |name, map| {
            if name != HEAD {
                map.activations = dtype;
                count += usize::from(map.rounds());
            }
        });
        count
    }

    /// Folds every adapter into the weights.
    pub fn merge_lora(&mut self) {
        self.visit_maps_mut(&mut |_, map| map.fold_adapter());
    }

    /// Visits the adapters' matrices under `{canonical name of the map}.lora_{A,B}.weight`.
    pub fn visit_lora_mut(&mut self, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.visit_maps_mut(&mut |name, map| {
            if let Some(adapter) = &mut map.adapter {
                adapter.visit_mut(name, visitor);
            }
        });
    }
}
