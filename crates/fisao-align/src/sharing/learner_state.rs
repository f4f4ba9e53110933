//! What training moves, as it is sent.

use fisao_models::linear::{ActivationDtype, LowRank};
use fisao_models::parameters::{ParameterMut, Parameters as _};
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::VisionLanguageModel;
use serde::{Deserialize, Serialize};

use super::packed::Matrix;

/// What training moves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LearnerState {
    /// By the names of the linear layers.
    adapters: Vec<(String, Adapter)>,
    /// What linear layers multiply.
    activations: ActivationDtype,
    /// The critic's tensors in their order, where there is one.
    critic: Option<Vec<Matrix>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Adapter {
    a: Matrix,
    b: Matrix,
    scale: f64,
}

impl LearnerState {
    pub(crate) fn of(policy: &VisionLanguageModel, critic: Option<&ValueHead>) -> Self {
        let (mut adapters, mut activations) = (Vec::new(), ActivationDtype::F32);
        policy.clone().visit_linears_mut(&mut |name, linear| {
            if linear.activations == ActivationDtype::Bf16 {
                activations = ActivationDtype::Bf16;
            }
            if let Some(LowRank { a, b, scale }) = &linear.adapter {
                let adapter = Adapter { a: Matrix::of(a), b: Matrix::of(b), scale: *scale };
                adapters.push((name.to_owned(), adapter));
            }
        });
        let critic = critic.map(|critic| {
            let mut tensors = Vec::new();
            critic.clone().visit_mut("", &mut |_, parameter| {
                let values = parameter.values();
                tensors.push(Matrix { size: [1, values.len()], values });
            });
            tensors
        });
        Self { adapters, activations, critic }
    }

    /// Lets a model be so, and returns its critic.
    pub(crate) fn apply(self, policy: &mut VisionLanguageModel) -> Option<ValueHead> {
        policy.set_activation_dtype(self.activations);
        let device = policy.device().inner();
        let mut adapters = self.adapters.into_iter().peekable();
        policy.visit_linears_mut(&mut |name, linear| {
            linear.adapter =
                adapters.next_if(|(adapted, _)| adapted == name).map(|(_, adapter)| {
                    let Adapter { a, b, scale } = adapter;
                    LowRank { a: a.on(&device), b: b.on(&device), scale }
                });
        });
        assert!(adapters.next().is_none(), "all processes have opened the same model");
        self.critic.map(|tensors| {
            let hidden = policy.language_model().config().hidden_size;
            let mut critic = ValueHead::new(hidden, &policy.device());
            let mut tensors = tensors.into_iter();
            critic.visit_mut("", &mut |_, mut parameter: ParameterMut<'_>| {
                parameter.set_values(tensors.next().expect("as many tensors").values);
            });
            critic
        })
    }
}
