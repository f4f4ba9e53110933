//! Layers recomputed in the backward pass, instead of keeping all that a pass computes (Chen et al. 2016, "Training
//! Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, one segment to a layer).

use burn::tensor::{Gradients, Int, Tensor};

use super::Llama;
use super::layer::Context;
use super::rotary::RotaryAngles;
use crate::attention::{Mask, Shown};

/// What each layer of a pass was given, and what the last one gave.
#[derive(Debug)]
pub struct LayerInputs {
    inputs: Vec<Tensor<2>>,
    rotary: RotaryAngles,
    batch: usize,
    /// Rows of the last layer's output.
    wanted: Tensor<1, Int>,
    output: Tensor<2>,
}

impl Llama {
    /// Runs the layers as [`forward`](Self::forward) does under the causal mask, keeping what each of them was given.
    /// `self` must not be training, or it keeps everything.
    ///
    /// # Shapes
    /// `x`: `[batch · length, hidden]`, `positions`: `[batch · length]`, `wanted`: rows of the states that are
    pub(crate) fn layer_inputs(
        &self,
        x: Tensor<2>,
        positions: &[usize],
        batch: usize,
        wanted: Tensor<1, Int>,
    ) -> LayerInputs {
        let rotary = self.rotary.at(positions, batch, &x.device());
        let mask = self.within_window(&Mask::causal());
        let context = Context { batch, rotary, shown: Shown::by(&mask) };
        let mut inputs = vec![x];
        for (index, layer) in self.layers.iter().enumerate() {
            let wanted = Some(&wanted).filter(|_| self.is_last(index));
            let output = layer.forward(inputs[inputs.len() - 1].clone(), &context, wanted, None);
            inputs.push(output);
        }
        let output = inputs.pop().expect("as many as layers, and one");
        let output = output.autodiff().require_grad();
        LayerInputs { inputs, rotary: context.rotary, batch, wanted, output }
    }

    /// The final hidden states that are wanted, normed, of a pass that was run by an equal model which is not training.
    pub(crate) fn finish(&self, inputs: &LayerInputs) -> Tensor<2> {
        self.norm.forward(inputs.output.clone())
    }

    /// Backward pass through the layers, from the gradients of what was computed of [`finish`](Self::finish)'s states; adds those of
    /// one layer after the other. What comes before the layers gets none.
    pub(crate) fn backward(&self, inputs: LayerInputs, mut gradients: Gradients) -> Vec<Gradients> {
        let LayerInputs { inputs, rotary, batch, wanted, output } = inputs;
        let mask = self.within_window(&Mask::causal());
        let context = Context { batch, rotary, shown: Shown::by(&mask) };
        let mut gradient = output.grad_remove(&mut gradients);
        let mut found = vec![gradients];
        for (index, (layer, input)) in self.layers.iter().zip(inputs).enumerate().rev() {
            let Some(arrived) = gradient else { break };
            let input = input.autodiff().require_grad();
            let wanted = Some(&wanted).filter(|_| self.is_last(index));
            let output = layer.forward(input.clone(), &context, wanted, None);
            let mut gradients = (output * arrived).sum().backward();
            gradient = input.grad_remove(&mut gradients);
            found.push(gradients);
        }
        found
    }
}
