//! Decoding and scores on a card against those on the CPU, for every kind of decoder and every type of its weights.

use burn::tensor::{DType, Device};
use fisao_cuda::Storage;
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::llama::{DecoderFamily, LlamaConfig, PositionScheme};
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use fisao_models::weights::RandomWeights;
use fisao_testkit::compare::largest_difference;
use fisao_testkit::tiny::{RoundedWeights, llava_config, pixels};

use crate::card::{disturb, host};
use crate::fixture::StoredWeights;
use crate::{generation, qwen_vl};

/// Types of weights, and how far log-probabilities are apart at most: activations are rounded to the type of the weights on the card, and are
/// f32 on the CPU.
const STORAGES: [(DType, Storage, f32); 3] = [
    (DType::F32, Storage::F32, 1e-4),
    (DType::BF16, Storage::Bf16, 8e-2),
    // Three bits more.
    (DType::F16, Storage::F16, 1e-2),
];

/// Weights that are rounded to a type.
fn rounded<W>(weights: W, dtype: DType) -> RoundedWeights<W> {
    RoundedWeights { weights, dtype, widened: false }
}

/// A model and what it is asked.
struct Case {
    name: String,
    model: VisionLanguageModel,
    features: ImageFeatures,
    prompts: Vec<Prompt>,
}

/// The small LLaVA with another decoder.
fn llava(name: &str, dtype: DType, change: impl FnOnce(&mut LlamaConfig)) -> Case {
    let mut config = llava_config();
    change(&mut config.text);
    let mut weights = rounded(RandomWeights::new(3), dtype);
    let model = VisionLanguageModel::load(config, &mut weights, &Device::flex());
    let model = model.expect("random weights fit every shape");
    let features = model.image_features(pixels(3, 4)).unwrap();
    Case { name: name.to_owned(), model, features, prompts: generation::prompts() }
}

/// A Qwen-VL, whose images have grids of positions, Qwen3's with features behind its first layers.
fn qwen(name: &str, dtype: DType) -> Case {
    let open = StoredWeights::open(&format!("tiny_qwen_vl/{name}.safetensors"));
    let (model, cases) = qwen_vl::family_from(name, &mut rounded(open, dtype));
    let features = qwen_vl::features(&model, &cases);
    let prompts = qwen_vl::prompts(&model, &cases).into_iter().enumerate();
    let prompts = prompts.map(|(image, ids)| Prompt { ids, image, stream: image as u64 }).collect();
    Case { name: name.to_owned(), model, features, prompts }
}

fn cases(dtype: DType) -> Vec<Case> {
    let multimodal = |interleaved| PositionScheme::Multimodal { sections: [2, 1, 1], interleaved };
    vec![
        llava("Llama", dtype, |_| {}),
        llava("Mistral", dtype, |text| {
            (text.family, text.sliding_window) = (DecoderFamily::Mistral, Some(5));
        }),
        llava("Qwen2", dtype, |text| text.family = DecoderFamily::Qwen2),
        llava("Qwen3", dtype, |text| {
            (text.family, text.tie_word_embeddings) = (DecoderFamily::Qwen3, true);
        }),
        llava("Qwen2, M-RoPE", dtype, |text| {
            (text.family, text.head_dim) = (DecoderFamily::Qwen2, 8);
            text.positions = multimodal(false);
        }),
        llava("Qwen3, M-RoPE", dtype, |text| {
            (text.family, text.head_dim) = (DecoderFamily::Qwen3, 8);
            text.positions = multimodal(true);
        }),
        qwen("qwen2_5_vl", dtype),
        qwen("qwen3_vl", dtype),
    ]
}

/// Log-probabilities and entropies of responses, two to each prompt.
fn scores(model: &VisionLanguageModel, case: &Case, responses: &[Vec<u32>]) -> [Vec<f32>; 2] {
    let examples: Vec<Example<'_>> = responses
        .iter()
        .enumerate()
        .map(|(at, response)| {
            let prompt = &case.prompts[at / 2];
            Example { prompt: &prompt.ids, image: prompt.image, response }
        })
        .collect();
    let scores = model.response_scores(&examples, &case.features, 1.0).expect("scores");
    [floats(&scores.log_probs), floats(&scores.entropies)]
}

/// What is not as on the CPU.
fn differences(
    case: &Case,
    (dtype, storage, close): (DType, Storage, f32),
    (adapted, temperature): (bool, f64),
) -> Vec<String> {
    let what = format!("{} in {dtype:?} at temperature {temperature}", case.name);
    let mut model = case.model.clone();
    if adapted {
        model.add_lora(&LoraConfig { rank: 3, ..LoraConfig::default() }, 5).expect("an adapter");
        disturb(&mut model, 0.05);
    }
    let Some(driver) = host(&what, storage) else { return Vec::new() };
    let mut on_card = model.clone();
    on_card.language_model_mut().use_card(Box::new(driver)).expect("a copy");
    assert_eq!(on_card.language_model().storage(), storage, "{what}");
    let sampling = Sampling { max_new_tokens: 8, temperature, seed: 5 };
    let [expected, found] = [&model, &on_card].map(|model| {
        model.generate(&case.prompts, &case.features, 2, &sampling).expect("responses")
    });
    let said: Vec<Vec<u32>> = found.iter().map(|of| of.tokens.clone()).collect();
    let logprobs: Vec<f32> = found.iter().flat_map(|of| of.logprobs.clone()).collect();
    assert!(said.iter().any(|tokens| tokens.len() > 4), "{what}: too short to tell: {said:?}");
    // Rounded states may decide otherwise between tokens that are about as likely.
    if dtype == DType::F32 {
        let expected: Vec<Vec<u32>> = expected.into_iter().map(|of| of.tokens).collect();
        assert_eq!(said, expected, "{what}");
    }
    let [on_cpu, there] = [&model, &on_card].map(|model| scores(model, case, &said));
    assert!(there != on_cpu, "{what}: nothing was computed on the card");
    assert_eq!(on_card.language_model().batches_left_to_cpu(), 0, "{what}");
    [("written", &logprobs, 0), ("scored", &there[0], 0), ("entropies", &there[1], 1)]
        .into_iter()
        .map(|(kind, found, at)| (kind, largest_difference(found, &on_cpu[at])))
        .filter(|(_, off)| off.is_nan() || *off > close)
        .map(|(kind, off)| format!("{what}: {kind}: {off} apart"))
        .collect()
}

#[test]
fn every_decoder_on_a_card_says_what_it_says_on_the_cpu() {
    let mut all = Vec::new();
    for storage in STORAGES {
        for case in cases(storage.0) {
            for how in [(false, 0.0), (true, 1.0)] {
                all.extend(differences(&case, storage, how));
            }
        }
    }
    assert!(all.is_empty(), "{all:#?}");
}
