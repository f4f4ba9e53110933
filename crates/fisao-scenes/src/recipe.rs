//! The recipe that makes the built-in synthetic datasets' small models: the clear one's from nothing, the hard one's from those.
//!
//! Two stages, both on scenes of [`Split::Train`](crate::Split::Train) that are rendered as they are
//! needed:
//! 1. [`contrastive`]: a CLIP pair learns which short texts are true of which image, in the hard world which people
//!    would write beside it;
//! 2. [`captioning`]: with that CLIP's image tower frozen, projector and decoder learn captions into
//!    which typical but absent objects were inserted, so that the model hallucinates out of habit.

pub mod captioning;
pub mod contrastive;
mod patches;
mod training;
pub mod vocabularies;

use fisao_models::activation::Activation;
use fisao_models::clip::{ClipConfig, ClipTextConfig};
use fisao_models::image::ImageProcessor;
use fisao_models::llama::{DecoderFamily, LlamaConfig, PositionScheme, RopeScaling};
use fisao_models::vision::{VisionConfig, VisionFamily};
use fisao_models::vision_language::TokenIds;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig};

pub use training::{Observer, RecipeError, StageConfig, StageProgress, StageState, Start, Verdict};

use crate::{IMAGE_SIZE, Insertion, WorldKind};

/// Sizes, lengths and rates of the recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipeConfig {
    /// The world whose scenes are learned from.
    pub world: WorldKind,
    /// Seed of weights, scenes and captions.
    pub seed: u64,
    /// Stage 1.
    pub contrastive: StageConfig,
    /// Texts about whole images pass over categories that are less prominent than this: visible pixels times opacity.
    /// The pooled embedding learns from these texts, and so to pass over them, too; the patches do not.
    pub least_prominence: f64,
    /// How often the same texts count absent objects as present: the pooled embedding then leans towards what is typical,
    /// as that of an encoder does which was trained on what people write beside their images.
    pub image_insertion: Insertion,
    /// Stage 2.
    pub captioning: StageConfig,
    /// How often absent objects are put into the captions of stage 2.
    pub insertion: Insertion,
}

impl Default for RecipeConfig {
    /// The recipe of the clear world's committed weights.
    fn default() -> Self {
        Self {
            world: WorldKind::Clear,
            seed: 0,
            least_prominence: 0.0,
            image_insertion: Insertion::NONE,
            contrastive: StageConfig {
                steps: 3_600,
                batch: 64,
                learning_rate: 1e-3,
                matrix_learning_rate: 0.02,
                warmup: 100,
                weight_decay: 0.05,
            },
            captioning: StageConfig {
                steps: 1_100,
                batch: 32,
                learning_rate: 2e-3,
                matrix_learning_rate: 0.02,
                warmup: 60,
                weight_decay: 0.05,
            },
            insertion: Insertion::default(),
        }
    }
}

impl RecipeConfig {
    /// The recipe of a world's committed weights.
    pub fn of(world: WorldKind) -> Self {
        match world {
            WorldKind::Clear => Self::default(),
            WorldKind::Hard => Self::hard(),
        }
    }

    /// From the clear world's weights to the hard one's.
    fn hard() -> Self {
        let clear = Self::default();
        Self {
            world: WorldKind::Hard,
            least_prominence: 270.0,
            image_insertion: Insertion { companion_rate: 0.3, other_rate: 0.0 },
            insertion: Insertion { companion_rate: 0.5, other_rate: 0.02 },
            contrastive: StageConfig { steps: 650, ..clear.contrastive },
            captioning: StageConfig { steps: 800, ..clear.captioning },
            ..clear
        }
    }

    /// The CLIP to train, for a text vocabulary of the given size.
    pub fn clip(&self, vocabulary: &vocabularies::TokenizerFile) -> ClipConfig {
        let id = |token: &str| vocabulary.special_id(token);
        ClipConfig {
            text: ClipTextConfig {
                vocab_size: vocabulary.len(),
                hidden_size: 128,
                intermediate_size: 512,
                num_hidden_layers: 2,
                num_attention_heads: 4,
                max_position_embeddings: 77,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::QuickGelu,
                bos_token_id: id(vocabularies::CLIP_BOS),
                eos_token_id: id(vocabularies::CLIP_EOS),
                pad_token_id: id(vocabularies::CLIP_EOS),
            },
            vision: VisionConfig {
                family: VisionFamily::Clip,
                hidden_size: 160,
                intermediate_size: 640,
                num_hidden_layers: 5,
                num_attention_heads: 5,
                image_size: IMAGE_SIZE as usize,
                patch_size: 16,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::QuickGelu,
            },
            projection_dim: 128,
            logit_scale_init_value: 10.0_f64.ln(),
        }
    }

    /// The LLaVA to train around an image tower, for a text vocabulary of the given size.
    pub fn llava(
        &self,
        vision: VisionConfig,
        vocabulary: &vocabularies::TokenizerFile,
    ) -> LlavaConfig {
        let id = |token: &str| vocabulary.special_id(token);
        LlavaConfig {
            text: LlamaConfig {
                family: DecoderFamily::Llama,
                vocab_size: vocabulary.len(),
                hidden_size: 192,
                intermediate_size: 512,
                num_hidden_layers: 4,
                num_attention_heads: 6,
                num_key_value_heads: 6,
                head_dim: 32,
                max_position_embeddings: 512,
                rms_norm_eps: 1e-5,
                rope_theta: 10_000.0,
                rope_scaling: RopeScaling::Default,
                sliding_window: None,
                positions: PositionScheme::Sequential,
                tie_word_embeddings: false,
            },
            vision,
            tokens: TokenIds {
                image: id(vocabularies::IMAGE),
                bos: id(vocabularies::LLAMA_BOS),
                eos: id(vocabularies::LLAMA_EOS),
                stop: Vec::new(),
                pad: id(vocabularies::LLAMA_PAD),
            },
            vision_feature_layer: -2,
            vision_feature_select_strategy: FeatureSelect::Default,
            tiling: None,
            projector_hidden_act: Activation::Gelu,
        }
    }
}

/// Image processing of the models made here.
pub fn image_processor() -> ImageProcessor {
    ImageProcessor::clip(IMAGE_SIZE)
}

/// The Vicuna conversation around one instruction about one image, as LLaVA-1.5 was tuned on it.
pub fn conversation(instruction: &str) -> String {
    format!("USER: <image>\n{instruction} ASSISTANT:")
}
