//! Layers recomputed in the backward pass, instead of keeping all that a pass computes (Chen et al. 2016, "Training
//! Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, one segment to a layer).

use burn::tensor::{Gradients, Int, Tensor};

use super::layer::Context;
use super::{Llama, Pass};

/// What each layer of a pass was given, and what the last one gave.
#[derive(Debug)]
pub struct LayerInputs {
    inputs: Vec<Tensor<2>>,
    context: Context,
    /// Rows of the last layer's output.
    wanted: Tensor<1, Int>,
    output: Tensor<2>,
}

impl Llama {
    /// Runs the layers as [`forward`](Self::forward) does, keeping what each of them was given. `self` must not be training, or it
    /// keeps everything.
    ///
    /// # Panics
    /// The pass says of no rows that they are wanted.
    ///
    /// # Shapes
    /// `x`: `[batch · length, hidden]`
    pub(crate) fn layer_inputs(&self, x: Tensor<2>, pass: &Pass<'_>) -> LayerInputs {
        let wanted = pass.wanted.clone().expect("rows that are wanted");
        let context = self.context(&x, pass);
        let mut inputs = vec![x];
        for index in 0..self.layers.len() {
            let input = inputs[inputs.len() - 1].clone();
            inputs.push(self.layer_output(index, input, &context, pass, None));
        }
        let output = inputs.pop().expect("as many as layers, and one");
        let output = output.autodiff().require_grad();
        LayerInputs { inputs, context, wanted, output }
    }

    /// The final hidden states that are wanted, normed, of a pass that was run by an equal model which is not training.
    pub(crate) fn finish(&self, inputs: &LayerInputs) -> Tensor<2> {
        self.norm.forward(inputs.output.clone())
    }

    /// Backward pass through the layers, from the gradients of what was computed of [`finish`](Self::finish)'s states; adds those of
    /// one layer after the other. What comes before the layers gets none. What is [added behind layers](Pass::deep) is constant, so
    /// that gradients go past it as they are.
    pub(crate) fn backward(&self, inputs: LayerInputs, mut gradients: Gradients) -> Vec<Gradients> {
        let LayerInputs { inputs, context, wanted, output } = inputs;
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
