//! Responses to one prompt in one row give the gradients of a row for each response, whatever the objective.

use burn::tensor::{DType, Device};
use fisao_align::group::GroupRelativeConfig;
use fisao_align::objective::{DpoConfig, LossInputs, Normaliser, Objective, SftConfig};
use fisao_align::ppo::PpoConfig;
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, collect_all_gradients, floats, gradient_norm,
};
use fisao_models::sequences::Example;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use fisao_models::weights::RandomWeights;
use fisao_testkit::tiny::{RoundedWeights, llava_config, pixels, prompt};
use proptest::prelude::*;

/// Largest difference between gradients, as a fraction of their norm: f32, sums in another order.
const TOLERANCE: f64 = 2e-5;

/// The image of each of four responses, the first two and the last two to one prompt each: the same image, or its copies, whose
/// responses have rows of their own.
const TOGETHER: [usize; 4] = [0, 0, 2, 2];
const APART: [usize; 4] = [0, 1, 2, 3];

/// A model seen as nothing but its adapter.
struct Adapted(VisionLanguageModel);

impl Parameters for Adapted {
    fn visit_mut(&mut self, _prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.0.visit_lora_mut(visitor);
    }
}

fn model(dtype: DType) -> VisionLanguageModel {
    let mut weights = RoundedWeights { weights: RandomWeights::new(3), dtype, widened: false };
    let mut model =
        VisionLanguageModel::load(llava_config(), &mut weights, &Device::flex()).unwrap();
    model.add_lora(&LoraConfig { rank: 3, alpha: 6.0, ..LoraConfig::default() }, 1).unwrap();
    model.visit_lora_mut(&mut |name, mut parameter| {
        if name.ends_with("lora_B.weight") {
            let count = parameter.values().len();
            parameter.set_values((0..count).map(|at| 0.1 * (at as f32).sin()).collect());
        }
    });
    model
}

fn objectives() -> Vec<Objective> {
    let ppo = PpoConfig { entropy_coefficient: 0.1, ..PpoConfig::default() };
    let group = GroupRelativeConfig { dual_clip: Some(3.0), ..GroupRelativeConfig::default() };
    vec![
        Objective::Ppo(ppo),
        Objective::GroupRelative(group),
        Objective::Dpo(DpoConfig::default()),
        Objective::Sft(SftConfig::default()),
    ]
}

/// Four responses, and for each token how far the policies before and the reference are from the model, and its advantage.
#[derive(Debug, Clone)]
struct Minibatch {
    prompts: [Vec<u32>; 2],
    responses: Vec<Vec<u32>>,
    signals: Vec<[f32; 3]>,
}

fn minibatch() -> impl Strategy<Value = Minibatch> {
    let text = |most| prop::collection::vec(4u32..24, 1..most);
    let signal = prop::array::uniform3(-0.15f32..0.15);
    let responses = prop::collection::vec(text(12), 4);
    (text(6), text(3), responses, prop::collection::vec(signal, 48)).prop_map(
        |(first, second, responses, signals)| Minibatch {
            prompts: [prompt(&first), prompt(&second)],
            responses,
            signals,
        },
    )
}

impl Minibatch {
    /// The loss of an objective and the adapter's gradients.
    fn differentiate(
        &self,
        (model, features): (&VisionLanguageModel, &ImageFeatures),
        images: [usize; 4],
        objective: &Objective,
        recomputed: bool,
    ) -> (f32, GradientMap) {
        let mut replica = Adapted(model.clone());
        replica.train_where(&|_| true);
        let examples = images.iter().zip(&self.responses).enumerate();
        let examples: Vec<Example<'_>> = examples
            .map(|(at, (&image, response))| Example {
                prompt: &self.prompts[at / 2],
                image,
                response,
            })
            .collect();
        let recomputed = recomputed.then_some(model);
        let (scores, pass) =
            replica.0.training_scores(recomputed, &examples, features, 0.9).expect("no card");
        let lengths: Vec<usize> = self.responses.iter().map(Vec::len).collect();
        let count = lengths.iter().sum();
        let signals = &self.signals[..count];
        let near = |which: usize| -> Vec<f32> {
            // What the model itself says, which both layouts must agree about.
            floats(&scores.log_probs).iter().zip(signals).map(|(x, s)| x + s[which]).collect()
        };
        let advantages: Vec<f32> = signals.iter().map(|signal| 10.0 * signal[2]).collect();
        let loss = objective.definition().loss(LossInputs {
            old_log_probs: &near(0),
            reference_log_probs: &near(1),
            log_probs: scores.log_probs.clone(),
            entropy: scores.entropies.clone(),
            advantages: &advantages,
            lengths: &lengths,
            normaliser: Normaliser { items: 2.0, tokens: count as f64, first_tokens: 7.0 },
        });
        let parts = replica.0.backward(pass, &loss.loss).expect("no card");
        (floats(&loss.loss)[0], collect_all_gradients(&mut replica, &parts).unwrap())
    }
}

/// Norm of the difference, as a fraction of the first's norm.
fn distance(a: &GradientMap, b: &GradientMap) -> f64 {
    let difference = a.iter().map(|(name, values)| {
        let pairs = values.iter().zip(&b[name]);
        (name.clone(), pairs.map(|(x, y)| x - y).collect())
    });
    gradient_norm(&difference.collect()) / gradient_norm(a)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn gradients_of_shared_prompts_equal_those_of_separate_rows(minibatch in minibatch()) {
        for dtype in [DType::F32, DType::BF16] {
            let model = model(dtype);
            let of_image = |image: usize| model.image_features(pixels(2, 4).narrow(0, image, 1)).unwrap();
            let features = ImageFeatures::cat([0, 0, 1, 1].map(of_image).to_vec());
            for objective in objectives() {
                let run = |images, recomputed| {
                    minibatch.differentiate((&model, &features), images, &objective, recomputed)
                };
                let (loss, expected) = run(APART, false);
                prop_assert!(gradient_norm(&expected) > 1e-4, "{objective:?}: nothing to learn");
                for recomputed in [false, true] {
                    let (found, gradients) = run(TOGETHER, recomputed);
                    prop_assert!((found - loss).abs() < 1e-5 * loss.abs().max(1.0));
                    let distance = distance(&expected, &gradients);
                    prop_assert!(distance < TOLERANCE, "{objective:?}, {dtype:?}: {distance}");
                }
            }
        }
    }
}
