//! Layers computed a second time on the way back, instead of keeping all that a pass computes (Chen et al. 2016, "Training
//! Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, one segment to a layer).

use burn::tensor::{Gradients, Tensor};

use super::Llama;
use super::layer::Context;
use super::rotary::Rotation;
use crate::attention::Mask;

/// What each layer of a pass was given, and what the last one gave.
#[derive(Debug)]
pub struct LayerInputs {
    inputs: Vec<Tensor<2>>,
    rotation: Rotation,
    batch: usize,
    output: Tensor<2>,
}

impl Llama {
    /// Runs the layers as [`forward`](Self::forward) does under the causal mask, keeping what each of them was given.
    /// `self` must not be training, or it keeps everything.
    ///
    /// # Shapes
    /// `x`: `[batch · length, hidden]`, `positions`: `[batch · length]`
    pub(crate) fn layer_inputs(
        &self,
        x: Tensor<2>,
        positions: &[usize],
        batch: usize,
    ) -> LayerInputs {
        let rotation = self.rotary.at(positions, batch, &x.device());
        let context = Context { batch, rotation, mask: &Mask::causal() };
        let mut inputs = vec![x];
        for layer in &self.layers {
            let output = layer.forward(inputs[inputs.len() - 1].clone(), &context, None);
            inputs.push(output);
        }
        let output = inputs.pop().expect("as many as layers, and one");
        let output = output.autodiff().require_grad();
        LayerInputs { inputs, rotation: context.rotation, batch, output }
    }

    /// Final hidden states, normed, of a pass that was run by an equal model which is not training.
    pub(crate) fn finish(&self, inputs: &LayerInputs) -> Tensor<2> {
        self.norm.forward(inputs.output.clone())
    }

    /// Goes back through the layers from the gradients of what was computed of [`finish`](Self::finish)'s states; adds those of
    /// one layer after the other. What comes before the layers gets none.
    pub(crate) fn backward(&self, inputs: LayerInputs, mut gradients: Gradients) -> Vec<Gradients> {
        let LayerInputs { inputs, rotation, batch, output } = inputs;
        let context = Context { batch, rotation, mask: &Mask::causal() };
        let mut gradient = output.grad_remove(&mut gradients);
        let mut found = vec![gradients];
        for (layer, input) in self.layers.iter().zip(inputs).rev() {
            let Some(arrived) = gradient else { break };
            let input = input.autodiff().require_grad();
            let output = layer.forward(input.clone(), &context, None);
            let mut gradients = (output * arrived).sum().backward();
            gradient = input.grad_remove(&mut gradients);
            found.push(gradients);
        }
        found
    }
}
