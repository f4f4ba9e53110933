//! Llama's gate: `y = silu(gate) · up` with `silu(x) = x σ(x)` (Shazeer 2020, arXiv 2002.05202).

use crate::rows::fill_rows;
use crate::simd::{sigmoid, vectorised};

/// Two tensors of any equal shape → the same shape.
pub(crate) fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = gate.to_vec();
    apply(&mut out, up);
    out
}

/// The same in the place of the gate.
pub fn apply(gate: &mut [f32], up: &[f32]) {
    assert!(gate.len() == up.len(), "gate and up have one shape");
    fill_rows(gate, 1, |first, part| {
        vectorised(
            #[inline(always)]
            || {
                for (gate, &up) in part.iter_mut().zip(&up[first..]) {
                    *gate = *gate * sigmoid(*gate) * up;
                }
            },
        );
    });
}

/// Gradients of gate and up.
pub(crate) fn backward(gate: &[f32], up: &[f32], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut by_gate = vec![0.0; gate.len()];
    fill_rows(&mut by_gate, 1, |first, part| {
        let (gate, up, gradient) = (&gate[first..], &up[first..], &gradient[first..]);
        vectorised(
            #[inline(always)]
            || {
                for (((y, &gate), &up), &g) in part.iter_mut().zip(gate).zip(up).zip(gradient) {
                    let share = sigmoid(gate);
                    *y = g * up * share * (1.0 + gate * (1.0 - share));
                }
            },
        );
    });
    // The other gradient is the forward pass with ∂y in the place of up.
    (by_gate, forward(gate, gradient))
}
