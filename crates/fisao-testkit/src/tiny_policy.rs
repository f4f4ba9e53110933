//! A small random policy with its verifier, tokenizer and tasks: everything that an alignment run takes.

use std::sync::Arc;

use burn::tensor::Device;
use fisao_align::AlignError;
use fisao_align::mentions::MentionScorer;
use fisao_align::tasks::{Answer, Task, TaskSource};
use fisao_models::clip::{Clip, ClipConfig, ClipTextConfig};
use fisao_models::image::PixelValues;
use fisao_models::llama::LlamaConfig;
use fisao_models::text::{DecodedText, TextError, Tokenizer};
use fisao_models::vision::VisionConfig;
use fisao_models::vision_language::TokenIds;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::vision_language::llava::{LlavaConfig, with_vision_tower};
use fisao_models::weights::RandomWeights;
use fisao_verifier::calibration::{Calibration, fit_annotated};
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::regions::ScoreConfig;
use fisao_verifier::scorer::Verifier;
use fisao_verifier::templates::Templates;

use crate::tiny;

/// The tokens, by id.
pub const WORDS: [&str; 16] = [
    "<pad>", "<s>", "</s>", "<image>", "a", "dog", "cat", "car", "the", "and", "in", "red", "big",
    "on", "it", "is",
];

/// Padding.
pub const PAD: u32 = 0;

/// Begins a text.
const BOS: u32 = 1;
/// Ends a response.
pub const EOS: u32 = 2;

/// Stands for a patch of the image.
pub const IMAGE: u32 = 3;

/// Side of the images, pixels.
pub const SIDE: usize = tiny::IMAGE_SIZE;

/// One word per token.
#[derive(Debug)]
pub struct Words;

impl Tokenizer for Words {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let mut ids: Vec<u32> = text
            .split([' ', '.'])
            .filter_map(|word| WORDS.iter().position(|known| *known == word))
            .map(|id| id as u32)
            .collect();
        if add_special_tokens {
            ids.insert(0, BOS);
            ids.push(EOS);
        }
        Ok(ids)
    }

    fn decode(&self, ids: &[u32]) -> Result<DecodedText, TextError> {
        let mut decoded = DecodedText::default();
        for &id in ids {
            let start = decoded.text.len();
            if id > IMAGE {
                if start > 0 {
                    decoded.text.push(' ');
                }
                decoded.text.push_str(WORDS[id as usize]);
            }
            decoded.spans.push(start..decoded.text.len());
        }
        Ok(decoded)
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        WORDS.iter().position(|word| *word == token).map(|id| id as u32)
    }
}

/// Twelve images of noise and one prompt.
#[derive(Debug)]
pub struct Noise;

impl TaskSource for Noise {
    fn count(&self) -> usize {
        12
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        let value = |at: usize| ((at * 7919 + index * 104_729) % 1000) as f32 / 500.0 - 1.0;
        let size = (SIDE as u32, SIDE as u32);
        let image = PixelValues {
            values: (0..3 * SIDE * SIDE).map(value).collect(),
            tile_size: size,
            original_size: size,
        };
        let (id, prompt) = (format!("noise-{index}"), vec![1, 3, 3, 3, 3, 8, 14]);
        let (instruction, answer) = (Vec::new(), Answer::None);
        let (further_images, verifier_images) = (Vec::new(), Vec::new());
        Ok(Task { id, image, further_images, verifier_images, prompt, instruction, answer })
    }
}

fn vision() -> VisionConfig {
    VisionConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        ..tiny::vision_config()
    }
}

/// A policy, and a scorer whose verifier has the same vision encoder.
///
/// # Panics
/// Never: random weights fit every shape.
pub fn models() -> (VisionLanguageModel, MentionScorer) {
    let device = Device::flex();
    let base = tiny::clip_config();
    let clip = ClipConfig {
        text: ClipTextConfig {
            vocab_size: WORDS.len(),
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            max_position_embeddings: 16,
            bos_token_id: BOS,
            eos_token_id: EOS,
            pad_token_id: PAD,
            ..base.text
        },
        vision: vision(),
        projection_dim: 8,
        logit_scale_init_value: 2.0,
    };
    let clip = Clip::load(clip, &mut RandomWeights::new(1), &device).unwrap();
    let base = tiny::llava_config();
    let llava = LlavaConfig {
        text: LlamaConfig { vocab_size: WORDS.len(), intermediate_size: 32, ..base.text },
        vision: vision(),
        tokens: TokenIds { image: IMAGE, ..base.tokens },
        ..base
    };
    let mut weights = RandomWeights::new(2);
    let llava = with_vision_tower(llava, clip.vision.clone(), &mut weights, &device).unwrap();
    let forms = |name: &str| (name.to_owned(), vec![name.to_owned()]);
    let vocabulary = ObjectVocabulary::new(vec![forms("dog"), forms("cat"), forms("car")]).unwrap();
    let tokenizer: Arc<dyn Tokenizer> = Arc::new(Words);
    let verifier =
        Verifier::new(clip, Arc::clone(&tokenizer), Templates::default(), ScoreConfig::default());
    (llava, MentionScorer { tokenizer, vocabulary, verifier })
}

/// Two classes of scores around the given centre, far enough apart to be told from each other.
///
/// # Panics
/// Never: the classes do not overlap.
pub fn calibration(centre: f64) -> Calibration {
    let scores: Vec<f64> =
        (0..40).map(|i| centre + 0.1 * f64::from(i % 2) + 0.003 * f64::from(i / 2)).collect();
    let correct: Vec<bool> = (0..40).map(|i| i % 2 == 1).collect();
    fit_annotated(&scores, &correct).unwrap()
}
