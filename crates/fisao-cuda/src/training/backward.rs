//! The backward pass: from the scores to the adapter, a layer at a time.

use super::memory::BackwardMemory;
use super::{Forwarded, Training};
use crate::adapter::LowRankScratch;
use crate::decoder::Decoder;
use crate::forward::{Attention, Pass};
use crate::kernels::{
    AttentionGradients, HeadTransforms, Rows, add_rows, attention_backward, log_probs_backward,
    narrow, rms_norm_backward, rotary_backward, swiglu_backward,
};
use crate::plan::Activations;
use crate::{Buffer, CudaError, Driver, Matrix, Product, Storage};

impl Training {
    /// Adds to the gradients of the adapter those of `Σ by_log_probs · log p + by_entropies · H + ⟨by_states, states⟩` over the tokens
    /// of the batch that went forward last.
    ///
    /// * `by_log_probs`, `by_entropies` — `[targets]`
    /// * `by_states` — `[targets, hidden]`, or empty
    ///
    /// # Errors
    /// Those of the driver.
    ///
    /// # Panics
    /// When no batch went forward, or the plan is one without gradients.
    pub fn backward(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        [by_log_probs, by_entropies, by_states]: [&[f32]; 3],
    ) -> Result<(), CudaError> {
        let config = decoder.config();
        let forwarded = self.forwarded.expect("a batch that went forward");
        let Forwarded { sequences, length, targets, temperature, segments } = forwarded;
        let memory = self.memory.backward.as_ref().expect("a plan with gradients");
        let rows = sequences * length;
        assert!(
            by_log_probs.len() == targets && by_entropies.len() == targets,
            "a gradient for every scored token"
        );
        let scale = loss_scale(config.storage, [by_log_probs, by_entropies, by_states]);
        let by_scores: Vec<f32> = by_log_probs
            .iter()
            .zip(by_entropies)
            .flat_map(|(&p, &h)| [scale * p, scale * h])
            .collect();
        driver.upload(memory.by_scores, bytemuck::cast_slice(&by_scores))?;
        self.head_backward(driver, decoder, memory, targets, temperature)?;
        let wanted = Rows { rows: targets, width: config.hidden };
        let [by_before, by_behind] = memory.by_states;
        if !by_states.is_empty() {
            assert_eq!(by_states.len(), targets * config.hidden, "a gradient for every state");
            let scaled: Vec<f32> = by_states.iter().map(|x| scale * x).collect();
            driver.upload(by_behind, bytemuck::cast_slice(&scaled))?;
            let norm = [self.memory.states[0], decoder.weights.norm, by_behind, by_before];
            rms_norm_backward(driver, Storage::F32, norm, wanted, config.epsilon)?;
        }
        driver.clear(memory.by_x.slice(0, rows * config.hidden * size_of::<f32>()))?;
        add_rows(driver, [by_before, self.memory.rows, memory.by_x], wanted)?;
        let pass = self.pass(decoder, [sequences, length], segments);
        for layer in (0..config.layers).rev() {
            self.layer_backward(driver, &pass, memory, layer, scale.recip())?;
        }
        Ok(())
    }

    /// From the scores to the states before the last norm.
    fn head_backward(
        &self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        memory: &BackwardMemory,
        targets: usize,
        temperature: f32,
    ) -> Result<(), CudaError> {
        let config = decoder.config();
        let (storage, hidden, vocabulary) = (config.storage, config.hidden, config.vocabulary);
        let float = size_of::<f32>();
        let by_before = memory.by_states[0];
        driver.clear(by_before.slice(0, targets * hidden * float))?;
        for first in (0..targets).step_by(self.plan.logit_rows) {
            let part = self.logits(driver, decoder, first, targets)?;
            let rows = part.rows;
            let by_scores = memory.by_scores.slice(2 * first * float, 2 * rows * float);
            let buffers = [self.memory.logits, part.targets, by_scores, memory.by_logits];
            let size = Rows { rows, width: vocabulary };
            log_probs_backward(driver, storage, buffers, size, temperature)?;
            driver.product(&Product {
                a: Matrix::new(memory.by_logits, storage, [rows, vocabulary]),
                b: Matrix::new(decoder.weights.head, storage, [vocabulary, hidden]),
                out: Matrix::new(memory.by_head_inputs, storage, [rows, hidden]),
                scale: 1.0,
                accumulate: false,
            })?;
            let part = |buffer: Buffer| buffer.slice(first * hidden * float, rows * hidden * float);
            let states = part(self.memory.states[0]);
            let to = part(by_before);
            let norm = [states, decoder.weights.norm, memory.by_head_inputs, to];
            let size = Rows { rows, width: hidden };
            rms_norm_backward(driver, storage, norm, size, config.epsilon)?;
        }
        Ok(())
    }

    /// Takes the gradient of the residual stream from the output of a layer to its input.
    fn layer_backward(
        &self,
        driver: &mut dyn Driver,
        pass: &Pass<'_>,
        memory: &BackwardMemory,
        index: usize,
        unscale: f32,
    ) -> Result<(), CudaError> {
        let decoder = pass.decoder;
        let config = decoder.config();
        let weights = &decoder.weights.layers[index];
        let Activations { x, normed, query_key_value, queries, mixed, gate_up, inner, low } =
            self.memory.activations;
        let (storage, heads, rows) = (config.storage, config.heads, pass.rows);
        let (hidden, width) = (config.hidden, config.intermediate);
        let size = Rows { rows, width: hidden };
        let scratch = LowRankScratch { low, by_low: memory.by_low };
        let gradients = memory.layers.get(index);
        // ∂x = ∂y W, and the paths of an adapter.
        let linear = |driver: &mut dyn Driver,
                      which: usize,
                      weight,
                      [input, by_out, by_input]: [Matrix; 3]| {
            let b = Matrix::new(weight, storage, [by_out.columns, by_input.columns]);
            let product = Product { a: by_out, b, out: by_input, scale: 1.0, accumulate: false };
            driver.product(&product)?;
            match (pass.adapter(index), gradients) {
                (Some(adapter), Some(gradients)) => {
                    let matrices = [input, by_out, by_input];
                    let fused = adapter.all()[which];
                    fused.backward(driver, storage, matrices, scratch, &gradients[which], unscale)
                }
                _ => Ok(()),
            }
        };
        let narrowed = |driver: &mut dyn Driver| {
            narrow(driver, storage, [memory.by_x, memory.by_x_narrow], rows * hidden)
        };
        let by_x = pass.matrix(memory.by_x_narrow, hidden);

        let kept = self.kept(config, index, rows);
        driver.copy(kept, x.slice(0, kept.bytes()))?;
        pass.attention_input(driver, index)?;
        pass.attention_output(driver, index)?;
        pass.feed_forward_input(driver, index)?;

        narrowed(driver)?;
        let by_inner = pass.matrix(memory.by_inner, width);
        linear(driver, 3, weights.down, [pass.matrix(inner, width), by_x, by_inner])?;
        let buffers = [gate_up, memory.by_inner, memory.by_gate_up];
        swiglu_backward(driver, storage, buffers, Rows { rows, width })?;
        let by_gate_up = pass.matrix(memory.by_gate_up, 2 * width);
        let (input, by_normed) =
            (pass.matrix(normed, hidden), pass.matrix(memory.by_normed, hidden));
        linear(driver, 2, weights.gate_up, [input, by_gate_up, by_normed])?;
        let norm = [x, weights.post_attention_norm, memory.by_normed, memory.by_x];
        rms_norm_backward(driver, storage, norm, size, config.epsilon)?;

        narrowed(driver)?;
        let by_mixed = pass.matrix(memory.by_mixed, heads.queries());
        let of_attention = [pass.matrix(mixed, heads.queries()), by_x, by_mixed];
        linear(driver, 1, weights.output, of_attention)?;
        let [keys, values] = self.memory.caches;
        let [by_keys, by_values] = memory.by_keys;
        let Attention::Sequences { sequences: seen, .. } = pass.attention else {
            unreachable!("training passes are of whole sequences")
        };
        let attention = AttentionGradients {
            q: queries,
            k: keys,
            v: values,
            out: mixed,
            log_sums: self.memory.log_sums,
            by_out: memory.by_mixed,
            deltas: memory.deltas,
            by_q: memory.by_queries,
            by_k: by_keys,
            by_v: by_values,
        };
        attention_backward(driver, storage, &attention, heads, &seen)?;
        let transforms = HeadTransforms {
            bias: weights.query_key_value_bias,
            query_norm: weights.query_norm,
            key_norm: weights.key_norm,
            epsilon: config.epsilon,
        };
        let fused = memory.by_query_key_value;
        let buffers = [query_key_value, memory.by_queries, by_keys, by_values, fused];
        rotary_backward(driver, storage, buffers, seen.length, heads, &transforms, &pass.rotary)?;
        driver.copy(kept, x.slice(0, kept.bytes()))?;
        pass.input_norm(driver, index)?;
        let by_fused = pass.matrix(fused, heads.fused());
        linear(driver, 0, weights.query_key_value, [input, by_fused, by_normed])?;
        let norm = [x, weights.input_norm, memory.by_normed, memory.by_x];
        rms_norm_backward(driver, storage, norm, size, config.epsilon)
    }
}

/// What the largest gradient of a score becomes in f16, where numbers below 6e-8 are lost.
const LARGEST: f32 = 16.0;

/// The power of two that gradients are multiplied by on their way through the layers, so that they are numbers that f16 has.
fn loss_scale(storage: Storage, by: [&[f32]; 3]) -> f32 {
    let most = by.into_iter().flatten().fold(0.0_f32, |most, x| most.max(x.abs()));
    if storage == Storage::F16 && most > 0.0 && most.is_finite() {
        (LARGEST / most).log2().floor().clamp(-60.0, 60.0).exp2()
    } else {
        1.0
    }
}
