//! Random initialisation, names of tensors, placeholders.

use std::collections::BTreeMap;

use burn::tensor::{Device, TensorData};
use fisao_models::clip::Clip;
use fisao_models::parameters::Parameters;
use fisao_models::text::TextError;
use fisao_models::vision_language::FamilyConfig;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::vision_language::llava::LlavaConfig;
use fisao_models::weights::{Init, RandomWeights, WeightError, WeightSource, draw};
use fisao_testkit::tiny::{clip_config, llava_config, tiny_llava};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::fixture::StoredWeights;

fn all(seed: u64) -> Vec<Vec<f32>> {
    let mut values = Vec::new();
    tiny_llava(seed).visit_mut("", &mut |_, parameter| values.push(parameter.values()));
    values
}

#[test]
fn seed_determines_random_weights() {
    assert_eq!(all(1), all(1));
    assert_ne!(all(1), all(2));
}

#[test]
fn random_weights_have_the_requested_spread() {
    const COUNT: usize = 20_000;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let values = draw(&mut rng, COUNT, Init::Normal { std: 0.5 });
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / COUNT as f64;
    let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / COUNT as f64;
    // Five standard errors: σ/√n of the mean, σ²√(2/n) of the variance.
    assert!(mean.abs() < 5.0 * 0.5 / (COUNT as f64).sqrt(), "mean {mean}");
    assert!((square - 0.25).abs() < 5.0 * 0.25 * (2.0 / COUNT as f64).sqrt(), "square {square}");
    // Uniform on ±1/√16: the bound is respected and nearly reached.
    let values = draw(&mut rng, COUNT, Init::KaimingUniform { fan_in: 16 });
    let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    assert!((0.249..=0.25).contains(&largest), "largest {largest}");
}

/// Notes what is asked for and answers with random values.
#[derive(Default)]
struct Requests(BTreeMap<String, Vec<usize>>);

impl WeightSource for Requests {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<TensorData, WeightError> {
        let before = self.0.insert(name.to_owned(), shape.to_vec());
        assert!(before.is_none(), "{name} is asked for twice");
        RandomWeights::new(0).tensor(name, shape, init)
    }
}

fn shapes(model: &mut impl Parameters) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    model.visit_mut("", &mut |name, parameter| {
        let before = shapes.insert(name.to_owned(), parameter.shape());
        assert!(before.is_none(), "{name} is visited twice");
    });
    shapes
}

/// Constructors ask for exactly the tensors that a visit later shows, under the same names.
#[test]
fn loaded_tensors_are_exactly_the_visited_ones() {
    let mut asked = Requests::default();
    let llava = VisionLanguageModel::load(llava_config(), &mut asked, &Device::flex());
    assert_eq!(asked.0, shapes(&mut llava.expect("random weights fit every shape")));
    let mut asked = Requests::default();
    let clip = Clip::load(clip_config(), &mut asked, &Device::flex());
    assert_eq!(asked.0, shapes(&mut clip.expect("random weights fit every shape")));
}

#[test]
fn misshapen_tensor_is_reported_with_both_shapes() {
    let stored = crate::fixture::json("tiny_llava/expected.json")["llava"]["config"].take();
    let mut config: LlavaConfig = serde_json::from_value(stored).expect("a configuration");
    config.text.intermediate_size += 1;
    let mut weights = StoredWeights::open("tiny_llava/llava.safetensors");
    let error = VisionLanguageModel::load(config, &mut weights, &Device::flex())
        .expect_err("another shape");
    let message = error.to_string();
    let name = "language_model.model.layers.0.mlp.gate_proj.weight";
    assert!(message.contains(name) && message.contains("[40, 24]"), "{message}");
    assert!(message.contains("[41, 24]"), "{message}");
}

/// Of an image; it is of no account to a model without tiles.
const SIZE: (u32, u32) = (8, 8);

#[test]
fn image_placeholder_expands_to_one_per_image_token() {
    let config = llava_config();
    let image = config.tokens.image;
    let expanded = vec![1, image, image, image, image, 5];
    assert_eq!(config.expand_image_token(&[1, image, 5], SIZE).expect("one placeholder"), expanded);
    assert_eq!(config.expand_image_token(&expanded, SIZE).expect("already expanded"), expanded);
    for wrong in [&[1, 5][..], &[1, image, 5, image]] {
        let found = wrong.iter().filter(|&&id| id == image).count();
        let error = config.expand_image_token(wrong, SIZE).expect_err("none or two");
        assert!(matches!(error, TextError::ImagePlaceholders { found: f, .. } if f == found));
    }
}
