//! Gradients through a whole LLaVA against finite differences, and graphs that are cut off.

use burn::tensor::Tensor;
use fisao_models::parameters::{
    GradientMap, Parameters, add_gradients, clip_gradients, collect_gradients, floats,
    gradient_norm,
};
use fisao_models::sequences::Example;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use fisao_models::weights::{Init, RandomWeights, WeightSource};
use fisao_testkit::tiny::{pixels, prompt, tiny_llava};
use fisao_testkit::tolerance::F32_FINITE_DIFFERENCE;

/// Change of the loss, in nats, that a step along a gradient aims at: far above rounding, far below
/// where the loss bends.
const CHANGE: f64 = 2e-2;

/// Mean negative log-likelihood of two responses about two images.
fn loss(model: &VisionLanguageModel, features: &ImageFeatures) -> Tensor<1> {
    let ids = [prompt(&[5, 9, 12]), prompt(&[8])];
    let responses = [vec![4, 7, 11, 2], vec![13, 2]];
    let examples =
        [0, 1].map(|at| Example { prompt: &ids[at], image: at, response: &responses[at] });
    let states = model.response_states(&examples, features);
    model.log_probabilities(&states, 1.0).0.mean().neg()
}

fn value(model: &VisionLanguageModel) -> f64 {
    f64::from(floats(&loss(model, &model.image_features(pixels(2, 4)).unwrap()))[0])
}

/// Tensors that the loss does not depend on: the tower is read before its last layer.
fn unused(name: &str) -> bool {
    let tower = "vision_tower.vision_model.";
    name.starts_with(&format!("{tower}encoder.layers.2."))
        || name.starts_with(&format!("{tower}post_layernorm."))
}

fn gradients(model: &VisionLanguageModel) -> GradientMap {
    let mut model = model.clone();
    model.train_where(&|name| !unused(name));
    let loss = loss(&model, &model.image_features(pixels(2, 4)).unwrap());
    collect_gradients(&mut model, &loss.backward()).expect("every tensor is reached")
}

/// The loss with one tensor moved by `distance` along `direction`.
fn moved(model: &VisionLanguageModel, tensor: &str, direction: &[f64], distance: f64) -> f64 {
    let mut model = model.clone();
    model.visit_mut("", &mut |name, mut parameter| {
        if name == tensor {
            let values = parameter.values();
            let moved =
                values.iter().zip(direction).map(|(&x, d)| (f64::from(x) + distance * d) as f32);
            parameter.set_values(moved.collect());
        }
    });
    value(&model)
}

/// Derivative along a unit direction by central differences of fourth order.
fn directional(model: &VisionLanguageModel, tensor: &str, direction: &[f64], step: f64) -> f64 {
    let difference =
        |step| moved(model, tensor, direction, step) - moved(model, tensor, direction, -step);
    (8.0 * difference(step) - difference(2.0 * step)) / (12.0 * step)
}

fn unit(values: impl Iterator<Item = f32>) -> Vec<f64> {
    let values: Vec<f64> = values.map(f64::from).collect();
    let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    values.into_iter().map(|x| x / length).collect()
}

/// Every tensor along its gradient, which shows its length, and along a random direction, which
/// shows that it points the right way.
#[test]
fn gradients_equal_finite_differences() {
    let model = tiny_llava(3);
    let mut random = RandomWeights::new(1);
    let gradients = gradients(&model);
    assert!(gradients.len() > 50, "{} tensors", gradients.len());
    for (name, gradient) in &gradients {
        let length = gradient_norm(&GradientMap::from([(name.clone(), gradient.clone())]));
        // The bias of a key adds the same to every score of a query, which softmax takes out.
        if name.ends_with("k_proj.bias") {
            assert!(length < F32_FINITE_DIFFERENCE, "{name}: {length}");
            continue;
        }
        let draw = random.tensor(name, &[gradient.len()], Init::Normal { std: 1.0 });
        let noise: Vec<f32> = draw.expect("a draw").try_into_vec_as().expect("f32");
        let along = gradient.iter().map(|g| g / length as f32);
        // Half gradient, half noise, lest the derivative drown in rounding.
        let scale = (noise.len() as f32).sqrt();
        let oblique = along.clone().zip(&noise).map(|(g, n)| g + n / scale);
        for direction in [unit(along.clone()), unit(oblique)] {
            let expected = directional(&model, name, &direction, CHANGE / length.max(1.0));
            let actual: f64 = gradient.iter().zip(&direction).map(|(&g, d)| f64::from(g) * d).sum();
            let bound = F32_FINITE_DIFFERENCE * length.max(0.05);
            assert!(
                (actual - expected).abs() < bound,
                "{name}: gradient says {actual}, differences say {expected}, bound {bound}"
            );
        }
    }
}

#[test]
fn parameters_without_gradient_are_reported_by_name() {
    let mut model = tiny_llava(3);
    let projector = |name: &str| name.starts_with("multi_modal_projector.");
    let count = model.train_where(&|name| projector(name) || name.starts_with("language_model."));
    assert!(count > 4);
    let features = model.image_features(pixels(2, 4)).unwrap();
    let frozen = ImageFeatures::new(features.tokens().clone().inner(), features.counts().to_vec());
    let severed = loss(&model, &frozen).backward();
    let error = collect_gradients(&mut model, &severed).expect_err("the projector is cut off");
    assert_eq!(error.count, 4);
    assert_eq!(error.first, "multi_modal_projector.linear_1.weight");
    assert!(error.to_string().contains("multi_modal_projector.linear_1.weight"));
    let whole = loss(&model, &features).backward();
    let gradients = collect_gradients(&mut model, &whole).expect("nothing is cut off");
    assert_eq!(gradients.len(), count);
}

#[test]
fn unread_vision_layers_are_reported_as_without_gradient() {
    let mut model = tiny_llava(3);
    model.train_where(&|_| true);
    let backward = loss(&model, &model.image_features(pixels(2, 4)).unwrap()).backward();
    let error = collect_gradients(&mut model, &backward).expect_err("the last layer is not read");
    assert_eq!(error.count, 16 + 2, "one encoder layer and a norm");
    assert!(unused(&error.first), "{}", error.first);
}

#[test]
fn frozen_tensors_receive_no_gradient() {
    let mut model = tiny_llava(3);
    let trained = "language_model.model.norm.weight";
    assert_eq!(model.train_where(&|name| name == trained), 1);
    let backward = loss(&model, &model.image_features(pixels(2, 4)).unwrap()).backward();
    let gradients = collect_gradients(&mut model, &backward).expect("the norm is reached");
    assert_eq!(gradients.into_keys().collect::<Vec<_>>(), [trained]);
    assert_eq!(model.train_where(&|_| false), 0);
}

#[test]
fn gradients_accumulate_and_are_clipped_by_their_joint_norm() {
    let gradient_map = |a: [f32; 2], b: f32| {
        GradientMap::from([("a".to_owned(), a.to_vec()), ("b".to_owned(), vec![b])])
    };
    let mut sum = GradientMap::new();
    add_gradients(&mut sum, &gradient_map([1.0, 2.0], 1.0));
    add_gradients(&mut sum, &gradient_map([1.0, 0.0], 0.0));
    assert_eq!(sum, gradient_map([2.0, 2.0], 1.0));
    // √(2² + 2² + 1²) = 3
    assert!((gradient_norm(&sum) - 3.0).abs() < 1e-12);
    assert!((clip_gradients(&mut sum, 5.0) - 3.0).abs() < 1e-12);
    assert_eq!(sum, gradient_map([2.0, 2.0], 1.0));
    assert!((clip_gradients(&mut sum, 1.5) - 3.0).abs() < 1e-12);
    assert_eq!(sum, gradient_map([1.0, 1.0], 0.5));
}
