//! Models of given sizes with drawn weights.

use burn::tensor::{DType, TensorData};
use fisao_models::activation::Activation;
use fisao_models::linear::ActivationDtype;
use fisao_models::llama::{DecoderFamily, LlamaConfig, PositionScheme, RopeScaling};
use fisao_models::qformer::QFormerConfig;
use fisao_models::vision::{VisionConfig, VisionFamily};
use fisao_models::vision_language::TokenIds;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig};
use fisao_models::weights::{Init, WeightError, WeightSource};
use half::bf16;

/// Type that matrices are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    F32,
    Bf16,
    /// What they are multiplied with is rounded to it, too.
    Bf16Rounded,
}

impl Held {
    /// Bytes of one element.
    pub(super) fn bytes(self) -> f64 {
        match self {
            Self::F32 => 4.0,
            Self::Bf16 | Self::Bf16Rounded => 2.0,
        }
    }

    /// What they are multiplied with.
    pub(super) fn activations(self) -> ActivationDtype {
        match self {
            Self::F32 | Self::Bf16 => ActivationDtype::F32,
            Self::Bf16Rounded => ActivationDtype::Bf16,
        }
    }
}

/// Weights drawn fast enough for billions of them: uniform, with the deviation asked for.
pub(super) struct FastWeights {
    pub(super) held: Held,
    state: u64,
}

impl FastWeights {
    pub(super) fn new(held: Held) -> Self {
        Self { held, state: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Between −1 and 1 (Marsaglia's xorshift).
    fn next(&mut self) -> f32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

impl WeightSource for FastWeights {
    fn tensor(
        &mut self,
        _name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<TensorData, WeightError> {
        let count = shape.iter().product();
        let (offset, width) = match init {
            Init::Zeros => (0.0, 0.0),
            Init::Ones => (1.0, 0.0),
            Init::Constant(value) => (value as f32, 0.0),
            Init::Normal { std } => (0.0, (std * 3.0_f64.sqrt()) as f32),
            Init::KaimingUniform { fan_in } => (0.0, (fan_in as f32).sqrt().recip()),
        };
        let held = self.held;
        let mut draw = || offset + width * self.next();
        Ok(match held {
            Held::F32 => TensorData::new((0..count).map(|_| draw()).collect::<Vec<f32>>(), shape),
            Held::Bf16 | Held::Bf16Rounded => {
                let values = (0..count).map(|_| bf16::from_f32(draw())).collect::<Vec<bf16>>();
                let data = TensorData::new(values, shape);
                debug_assert_eq!(data.dtype(), DType::BF16);
                data
            }
        })
    }
}

fn decoder(
    [vocab_size, hidden_size, intermediate_size]: [usize; 3],
    [num_hidden_layers, heads]: [usize; 2],
) -> LlamaConfig {
    LlamaConfig {
        family: DecoderFamily::Llama,
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: hidden_size / heads,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::Default,
        sliding_window: None,
        positions: PositionScheme::Sequential,
        tie_word_embeddings: false,
    }
}

/// The embedded model's decoder.
pub(super) fn embedded() -> LlamaConfig {
    decoder([1009, 192, 512], [4, 6])
}

/// d = 256, 4 layers.
pub(super) fn small() -> LlamaConfig {
    decoder([2048, 256, 704], [4, 8])
}

/// d = 1024, 8 layers.
pub(super) fn middle() -> LlamaConfig {
    decoder([4096, 1024, 2816], [8, 16])
}

/// LLaVA-1.5-7B's decoder.
pub(super) fn seven() -> LlamaConfig {
    decoder([32_064, 4096, 11_008], [32, 32])
}

/// A model with this decoder that hardly has a tower, and never ends a response.
pub(super) fn llava(text: LlamaConfig) -> LlavaConfig {
    LlavaConfig {
        text,
        vision: VisionConfig {
            hidden_size: 16,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            image_size: 2,
            patch_size: 2,
            ..clip_large()
        },
        tokens: TokenIds { image: IMAGE, bos: 1, eos: u32::MAX, stop: Vec::new(), pad: 0 },
        vision_feature_layer: -1,
        vision_feature_select_strategy: FeatureSelect::Default,
        projector_hidden_act: Activation::Gelu,
        tiling: None,
    }
}

/// Id of the image token in [`llava`].
pub(super) const IMAGE: u32 = 3;

/// CLIP ViT-L/14 at 336 pixels.
pub(super) fn clip_large() -> VisionConfig {
    VisionConfig {
        family: VisionFamily::Clip,
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        image_size: 336,
        patch_size: 14,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::QuickGelu,
    }
}

/// CLIP ViT-B/32 at 224 pixels.
pub(super) fn clip_base() -> VisionConfig {
    base(32, &clip_large())
}

/// SigLIP B/16 at 224 pixels.
pub(super) fn siglip_base() -> VisionConfig {
    base(16, &siglip_so400m())
}

/// The base size of a tower, for 224 pixels.
fn base(patch_size: usize, of: &VisionConfig) -> VisionConfig {
    VisionConfig {
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        image_size: 224,
        patch_size,
        ..of.clone()
    }
}

/// EVA ViT-g/14 at 224 pixels, of which BLIP-2 and InstructBLIP run 39 layers.
pub(super) fn eva_giant() -> VisionConfig {
    VisionConfig {
        family: VisionFamily::Eva,
        hidden_size: 1408,
        intermediate_size: 6144,
        num_hidden_layers: 39,
        num_attention_heads: 16,
        image_size: 224,
        patch_size: 14,
        layer_norm_eps: 1e-6,
        hidden_act: Activation::Gelu,
    }
}

/// SigLIP so400m/14 at 384 pixels.
pub(super) fn siglip_so400m() -> VisionConfig {
    VisionConfig {
        family: VisionFamily::Siglip,
        hidden_size: 1152,
        intermediate_size: 4304,
        num_hidden_layers: 27,
        num_attention_heads: 16,
        image_size: 384,
        patch_size: 14,
        layer_norm_eps: 1e-6,
        hidden_act: Activation::GeluTanh,
    }
}

/// InstructBLIP's Q-Former: BERT's base size.
pub(super) fn qformer() -> QFormerConfig {
    QFormerConfig {
        vocab_size: 30_523,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        cross_attention_frequency: 2,
        encoder_hidden_size: eva_giant().hidden_size,
        max_position_embeddings: 512,
        layer_norm_eps: 1e-12,
        hidden_act: Activation::Gelu,
    }
}
