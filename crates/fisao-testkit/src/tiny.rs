//! Models with every part of the real ones, small enough for a test to run thousands of times.

use burn::tensor::{DType, Device, Tensor, TensorData};
use fisao_models::activation::Activation;
use fisao_models::blip2::{Blip2, Blip2Config};
use fisao_models::clip::{Clip, ClipConfig, ClipTextConfig};
use fisao_models::llama::{DecoderFamily, LlamaConfig, PositionScheme, RopeScaling};
use fisao_models::parameters::from_floats;
use fisao_models::qformer::QFormerConfig;
use fisao_models::siglip::{Siglip, SiglipConfig, SiglipTextConfig};
use fisao_models::vision::{VisionConfig, VisionFamily};
use fisao_models::vision_language::FamilyConfig;
use fisao_models::vision_language::TokenIds;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::vision_language::instructblip::InstructBlipConfig;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig};
use fisao_models::weights::{Init, RandomWeights, WeightError, WeightSource};

/// Side of the images the small models take, pixels.
pub const IMAGE_SIZE: usize = 8;

/// Image tower: 3 layers, 4 patches.
pub fn vision_config() -> VisionConfig {
    VisionConfig {
        family: VisionFamily::Clip,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        image_size: IMAGE_SIZE,
        patch_size: 4,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::QuickGelu,
    }
}

/// 2 layers, 4 query heads on 2 key–value heads, 32 tokens: 0 pads, 1 begins, 2 ends, 31 is an image.
pub fn llava_config() -> LlavaConfig {
    LlavaConfig {
        text: LlamaConfig {
            family: DecoderFamily::Llama,
            vocab_size: 32,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::Default,
            sliding_window: None,
            positions: PositionScheme::Sequential,
            tie_word_embeddings: false,
        },
        vision: vision_config(),
        tokens: TokenIds { image: 31, bos: 1, eos: 2, stop: Vec::new(), pad: 0 },
        vision_feature_layer: -2,
        vision_feature_select_strategy: FeatureSelect::Default,
        projector_hidden_act: Activation::Gelu,
        tiling: None,
    }
}

/// 40 tokens, at most 12 per text: 37 begins a text, 38 ends and pads it.
pub fn clip_config() -> ClipConfig {
    ClipConfig {
        text: ClipTextConfig {
            vocab_size: 40,
            hidden_size: 12,
            intermediate_size: 20,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 12,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
            bos_token_id: 37,
            eos_token_id: 38,
            pad_token_id: 38,
        },
        vision: vision_config(),
        projection_dim: 10,
        logit_scale_init_value: 2.6592,
    }
}

/// EVA's tower in the sizes of [`vision_config`].
pub fn eva_config() -> VisionConfig {
    VisionConfig { family: VisionFamily::Eva, hidden_act: Activation::Gelu, ..vision_config() }
}

/// A Q-Former of 2 layers for the small tower; 40 tokens, texts of at most 12.
pub fn qformer_config() -> QFormerConfig {
    QFormerConfig {
        vocab_size: 40,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        cross_attention_frequency: 2,
        encoder_hidden_size: eva_config().hidden_size,
        max_position_embeddings: 12,
        layer_norm_eps: 1e-12,
        hidden_act: Activation::Gelu,
    }
}

/// The decoder and tokens of [`llava_config`] behind a Q-Former with 3 queries.
pub fn instructblip_config() -> InstructBlipConfig {
    let llava = llava_config();
    InstructBlipConfig {
        text: llava.text,
        vision: eva_config(),
        qformer: qformer_config(),
        query_tokens: 3,
        tokens: llava.tokens,
    }
}

/// An InstructBLIP of [`instructblip_config`] with random weights on the CPU.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn tiny_instructblip(seed: u64) -> VisionLanguageModel {
    let mut weights = RandomWeights::new(seed);
    VisionLanguageModel::load(instructblip_config(), &mut weights, &Device::flex())
        .expect("random weights fit every shape")
}

/// A BLIP-2 image–text model with 4 queries on [`eva_config`], with random weights on the CPU.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn tiny_blip2(seed: u64) -> Blip2 {
    let config = Blip2Config {
        vision: eva_config(),
        qformer: qformer_config(),
        query_tokens: 4,
        projection_dim: 10,
    };
    Blip2::load(config, &mut RandomWeights::new(seed), &Device::flex())
        .expect("random weights fit every shape")
}

/// A LLaVA of [`llava_config`] with random weights on the CPU.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn tiny_llava(seed: u64) -> VisionLanguageModel {
    VisionLanguageModel::load(llava_config(), &mut RandomWeights::new(seed), &Device::flex())
        .expect("random weights fit every shape")
}

/// A CLIP of [`clip_config`] with random weights on the CPU.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn tiny_clip(seed: u64) -> Clip {
    tiny_clip_for(IMAGE_SIZE, seed)
}

/// The same for images of another side, in pixels.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn tiny_clip_for(image_size: usize, seed: u64) -> Clip {
    let mut config = clip_config();
    config.vision.image_size = image_size;
    Clip::load(config, &mut RandomWeights::new(seed), &Device::flex())
        .expect("random weights fit every shape")
}

/// A SigLIP with the tower of [`vision_config`], but SigLIP's.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn tiny_siglip(seed: u64) -> Siglip {
    let vision = VisionConfig { family: VisionFamily::Siglip, ..vision_config() };
    let text = SiglipTextConfig {
        vocab_size: 40,
        hidden_size: 12,
        projection_size: vision.hidden_size,
        intermediate_size: 20,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 8,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::GeluTanh,
        pad_token_id: 1,
    };
    let config = SiglipConfig { text, vision };
    Siglip::load(config, &mut RandomWeights::new(seed), &Device::flex())
        .expect("random weights fit every shape")
}

/// Rounds the weights of a source to a type; gives them out in that type or widened again.
#[derive(Debug)]
pub struct RoundedWeights<W> {
    /// What is rounded.
    pub weights: W,
    /// What it is rounded to.
    pub dtype: DType,
    /// Whether it is given out in f32.
    pub widened: bool,
}

impl<W: WeightSource> WeightSource for RoundedWeights<W> {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<TensorData, WeightError> {
        let rounded = self.weights.tensor(name, shape, init)?.convert_dtype(self.dtype);
        Ok(if self.widened { rounded.convert_dtype(DType::F32) } else { rounded })
    }
}

/// `count` images of standard normal noise: `[count, 3, 8, 8]`.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn pixels(count: usize, seed: u64) -> Tensor<4> {
    let shape = [count, 3, IMAGE_SIZE, IMAGE_SIZE];
    let data = RandomWeights::new(seed).tensor("pixels", &shape, Init::Normal { std: 1.0 });
    Tensor::from_data(data.expect("random weights fit every shape"), &Device::flex())
}

/// Images without content: `[count, 3, 8, 8]`, all zero.
pub fn blank_pixels(count: usize) -> Tensor<4> {
    let shape = [count, 3, IMAGE_SIZE, IMAGE_SIZE];
    from_floats(vec![0.0; shape.iter().product()], shape, &Device::flex())
}

/// A prompt of `text` after the image: BOS, image placeholders, the ids.
///
/// # Panics
/// Never: there is exactly one placeholder before expansion.
pub fn prompt(text: &[u32]) -> Vec<u32> {
    let config = llava_config();
    let ids = [&[config.tokens.bos, config.tokens.image], text].concat();
    config
        .expand_image_token(&ids, (IMAGE_SIZE as u32, IMAGE_SIZE as u32))
        .expect("one placeholder")
}
