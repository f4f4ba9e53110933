//! Grouped-query attention against its definition: each key–value head repeated for its group.

use std::collections::BTreeMap;

use burn::tensor::Device;
use fisao_models::llama::LlamaConfig;
use fisao_models::parameters::{Parameters, floats};
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::vision_language::llava::LlavaConfig;
use fisao_models::weights::RandomWeights;
use fisao_testkit::compare::{assert_close, largest_difference};
use fisao_testkit::tiny::{llava_config, pixels, prompt, tiny_llava};
use fisao_testkit::tolerance::F32_FORWARD;

fn values(model: &VisionLanguageModel) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    model.clone().visit_mut("", &mut |name, parameter| {
        all.insert(name.to_owned(), parameter.values());
    });
    all
}

/// The same model with as many key–value heads as query heads; `order` says which key–value head
/// each query head gets.
fn spread(grouped: &VisionLanguageModel, order: &[usize]) -> VisionLanguageModel {
    let config = llava_config();
    let text = LlamaConfig { num_key_value_heads: order.len(), ..config.text.clone() };
    let head = config.text.head_dim * config.text.hidden_size;
    let wide = LlavaConfig { text, ..config };
    let mut model = VisionLanguageModel::load(wide, &mut RandomWeights::new(0), &Device::flex())
        .expect("random weights fit every shape");
    let stored = values(grouped);
    model.visit_mut("", &mut |name, mut parameter| {
        let mut values = stored[name].clone();
        let of_decoder = name.starts_with("language_model.");
        if of_decoder && (name.contains("k_proj") || name.contains("v_proj")) {
            values = order.iter().flat_map(|&at| &values[at * head..][..head]).copied().collect();
        }
        parameter.set_values(values);
    });
    model
}

fn logits(model: &VisionLanguageModel) -> Vec<f32> {
    let features = model.image_features(pixels(1, 4)).unwrap();
    let ids = prompt(&[5, 9, 12]);
    let example = Example { prompt: &ids, image: 0, response: &[4, 7, 11, 2] };
    floats(&model.log_distribution(&model.response_states(&[example], &features), 1.0))
}

#[test]
fn grouped_query_attention_equals_repeated_key_heads() {
    let grouped = tiny_llava(9);
    let expected = logits(&spread(&grouped, &[0, 0, 1, 1]));
    assert_close("logits", &logits(&grouped), &expected, F32_FORWARD);
    let interleaved = logits(&spread(&grouped, &[0, 1, 0, 1]));
    assert!(largest_difference(&expected, &interleaved) > 1e-2, "the order of heads must matter");
}
