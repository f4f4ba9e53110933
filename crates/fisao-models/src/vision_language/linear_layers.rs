//! A model's linear layers by name, and the adapters on them.

use super::{DECODER, VisionLanguageModel};
use crate::linear::{ActivationDtype, LinearVisitor};
use crate::lora::{LoraConfig, LoraError, LowRank};
use crate::parameters::ParameterMut;
use crate::random::Purpose;

/// Where the decoder's layers are among the canonical names.
const DECODER_LAYERS: &str = "language_model.model.layers.";
/// The output layer.
const HEAD: &str = "language_model.lm_head";

impl VisionLanguageModel {
    /// Visits every linear layer under its canonical name, in a fixed order: those of the image encoder, then
    /// `language_model.model.layers.N.…`, and `language_model.lm_head` where it is no embedding table.
    pub fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>) {
        self.image_encoder.visit_linears_mut(visitor);
        self.language_model.visit_linears_mut(DECODER, visitor);
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
        self.visit_linears_mut(&mut |name, linear| {
            let short = name.rsplit('.').next().unwrap_or(name);
            let named = config.target_modules.iter().any(|target| target == short);
            if named && name.starts_with(DECODER_LAYERS) {
                linear.adapter = Some(LowRank::new(config, linear.size(), &mut rng, &device));
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
        reference.visit_linears_mut(&mut |_, linear| linear.adapter = None);
        reference
    }

    /// The same model, whose decoder reads int8 copies of its matrices (symmetric, one scale for each output channel) when it
    /// decodes on the CPU. Prompts, adapters and everything else are computed as before. The copies are made at the first call, and all
    /// clones of the model share them.
    ///
    /// # Panics
    /// The model is not on the CPU.
    #[must_use]
    pub fn decoding_in_int8(&self) -> Self {
        Self { language_model: self.language_model.decoding_in_int8(), ..self.clone() }
    }

    /// Whether the decoder decodes on the CPU.
    pub fn decodes_on_cpu(&self) -> bool {
        self.language_model.decodes_on_cpu()
    }

    /// Whether it [does](Self::decoding_in_int8).
    pub fn decodes_in_int8(&self) -> bool {
        self.language_model.decodes_in_int8()
    }

    /// Memory that these matrices take, bytes.
    pub fn int8_bytes(&self) -> usize {
        self.language_model.int8_bytes()
    }

    /// Sets what linear layers multiply: those of the decoder's layers, the projector and the image tower, not the linear layer to the
    /// vocabulary, whose rounding would go straight into the log-probabilities. Returns how many of them the setting is
    /// of consequence for.
    pub fn set_activation_dtype(&mut self, dtype: ActivationDtype) -> usize {
        let mut count = 0;
        self.visit_linears_mut(&mut |name, linear| {
            if name != HEAD {
                linear.activations = dtype;
                count += usize::from(linear.rounds());
            }
        });
        count
    }

    /// Folds every adapter into the weights.
    pub fn merge_lora(&mut self) {
        self.visit_linears_mut(&mut |_, linear| linear.fold_adapter());
    }

    /// Visits the adapters' matrices under `{canonical name of the linear}.lora_{A,B}.weight`.
    pub fn visit_lora_mut(&mut self, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.visit_linears_mut(&mut |name, linear| {
            if let Some(adapter) = &mut linear.adapter {
                adapter.visit_mut(name, visitor);
            }
        });
    }
}
