//! Fused operations on burn's CPU backend.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::{bf16, f16};

use crate::ActivationDtype;
use crate::matrix::Matrix;
use crate::matrix::StoredMatrix;
use crate::view::{
    assert_f32, contiguous, forward_strides, heads_inside, stored, tensor, values, view,
};
use crate::{
    FusedGradients, FusedOperations, Operation, activation, attention, bf16_linear, half_linear,
    layer_norm, linear, low_rank, rms_norm, rotary, swiglu, token_log_probs,
};

impl FusedOperations for Flex {
    fn fused_1(x: FlexTensor, operation: Operation) -> FlexTensor {
        forward(&operation, [x])
    }

    fn fused_2(x: FlexTensor, y: FlexTensor, operation: Operation) -> FlexTensor {
        forward(&operation, [x, y])
    }

    fn fused_3(x: FlexTensor, y: FlexTensor, z: FlexTensor, operation: Operation) -> FlexTensor {
        forward(&operation, [x, y, z])
    }

    fn fused_4(
        w: FlexTensor,
        x: FlexTensor,
        y: FlexTensor,
        z: FlexTensor,
        operation: Operation,
    ) -> FlexTensor {
        forward(&operation, [w, x, y, z])
    }

    fn fused_5(
        v: FlexTensor,
        w: FlexTensor,
        x: FlexTensor,
        y: FlexTensor,
        z: FlexTensor,
        operation: Operation,
    ) -> FlexTensor {
        forward(&operation, [v, w, x, y, z])
    }
}

/// A matrix of a tensor whose rows and columns may lie in any order.
pub(crate) fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
    let x = view::<2>(tensor);
    Matrix {
        data: x.data,
        rows: x.shape[0],
        columns: x.shape[1],
        row_stride: x.strides[0],
        column_stride: x.strides[1],
    }
}

/// A matrix of 16-bit floats that lies in row-major order.
fn narrow_matrix<'a, T>(data: &'a [T], shape: &[usize]) -> StoredMatrix<'a, T> {
    StoredMatrix { data, rows: shape[0], columns: shape[1] }
}

/// Whether the weight of a linear layer is kept in 16 bits.
fn is_narrow(weight: &FlexTensor) -> bool {
    matches!(weight.dtype(), DType::BF16 | DType::F16)
}

/// Checks that a weight is of a type that learns.
fn assert_learns(weight: &FlexTensor) {
    assert!(!is_narrow(weight), "a weight of 16 bits is frozen; training widens it first");
}

fn dims(tensor: &FlexTensor) -> Vec<usize> {
    tensor.layout().shape().iter().copied().collect()
}

/// The inputs as the operation reads them: through strides where it can, else in row-major order.
fn prepared<const N: usize>(operation: &Operation, inputs: [FlexTensor; N]) -> [FlexTensor; N] {
    let is_linear = matches!(
        operation,
        Operation::Linear(_) | Operation::LowRankLinear { .. } | Operation::HeadLogProbs { .. }
    );
    let by_heads = matches!(
        operation,
        Operation::RotaryEmbedding(_) | Operation::Attention(_) | Operation::SharedAttention { .. }
    );
    let by_strides = is_linear || by_heads;
    let mut place = 0..;
    inputs.map(|input| {
        let is_weight = is_linear && place.next() == Some(1);
        if is_weight && is_narrow(&input) {
            return contiguous(input);
        }
        assert_f32(&input);
        if by_strides { forward_strides(input) } else { contiguous(input) }
    })
}

fn forward<const N: usize>(operation: &Operation, inputs: [FlexTensor; N]) -> FlexTensor {
    let inputs = prepared(operation, inputs);
    let shape = dims(&inputs[0]);
    match (operation, inputs.as_slice()) {
        (Operation::LayerNorm { epsilon }, [x, w, b]) => {
            tensor(layer_norm::forward(values(x), values(w), values(b), *epsilon), &shape)
        }
        (Operation::RmsNorm { epsilon }, [x, w]) => {
            tensor(rms_norm::forward(values(x), values(w), *epsilon), &shape)
        }
        (Operation::Activation(kind), [x]) => tensor(activation::forward(values(x), *kind), &shape),
        (Operation::SwiGlu, [gate, up]) => {
            tensor(swiglu::forward(values(gate), values(up)), &shape)
        }
        (Operation::Linear(activations), [x, w, bias @ ..]) => {
            let bias = bias.first().map(|bias| contiguous(bias.clone()));
            let out = linear_forward(matrix(x), w, bias.as_ref().map(values), *activations);
            tensor(out, &[shape[0], dims(w)[0]])
        }
        (Operation::LowRankLinear { scale, activations }, [x, w, a, b, bias @ ..]) => {
            let bias = bias.first().map(|bias| contiguous(bias.clone()));
            let mut out = linear_forward(matrix(x), w, bias.as_ref().map(values), *activations);
            let (x, a, b) = (matrix(x), matrix(a), matrix(b));
            low_rank::Path { x, a, b, scale: *scale }.add_to(&mut out);
            tensor(out, &[shape[0], dims(w)[0]])
        }
        (Operation::RotaryEmbedding(angles), [x]) => {
            let x = view::<4>(x);
            heads_inside(rotary::apply_rotary(x, angles, 1.0), x.shape)
        }
        (Operation::Attention(mask), [q, k, v]) => {
            let (q, k, v) = (view::<4>(q), view::<4>(k), view::<4>(v));
            heads_inside(attention::forward(q, None, [k, v], mask), q.shape)
        }
        (Operation::SharedAttention { mask, of }, [q, before @ .., k, v]) => {
            let before = attention::Prompts { k: view(&before[0]), v: view(&before[1]), of };
            let (q, k, v) = (view::<4>(q), view::<4>(k), view::<4>(v));
            heads_inside(attention::forward(q, Some(before), [k, v], mask), q.shape)
        }
        (Operation::TokenLogProbs { targets, temperature }, [logits]) => {
            let out = token_log_probs::forward(values(logits), shape[1], targets, *temperature);
            tensor(out, &[targets.len(), token_log_probs::COLUMNS])
        }
        (Operation::HeadLogProbs { targets, temperature }, [x, w]) => {
            let query = TargetLogProbs { targets, temperature: *temperature };
            tensor(query.forward(matrix(x), w), &[targets.len(), token_log_probs::COLUMNS])
        }
        (operation, inputs) => unreachable!("{operation:?} of {} tensors", inputs.len()),
    }
}

/// Which tokens' log-probabilities are asked for, out of logits that exist for some rows at a time only.
#[derive(Clone, Copy)]
struct TargetLogProbs<'a> {
    targets: &'a [u32],
    temperature: f32,
}

impl<'a> TargetLogProbs<'a> {
    /// Logits that exist at a time, numbers.
    const LOGITS: usize = 1 << 21;

    /// The rows of `x` in parts, each with what is asked of it and its first row.
    fn parts<'x>(
        self,
        x: Matrix<'x>,
        vocabulary: usize,
    ) -> impl Iterator<Item = (usize, Matrix<'x>, &'a [u32])> {
        let rows = (Self::LOGITS / vocabulary.max(1)).max(1);
        self.targets.chunks(rows).enumerate().map(move |(index, targets)| {
            let first = index * rows;
            let data = &x.data[(first * x.row_stride).min(x.data.len())..];
            (first, Matrix { data, rows: targets.len(), ..x }, targets)
        })
    }

    fn forward(self, x: Matrix<'_>, weight: &FlexTensor) -> Vec<f32> {
        let vocabulary = dims(weight)[0];
        let parts = self.parts(x, vocabulary).flat_map(|(_, x, targets)| {
            let logits = linear_forward(x, weight, None, ActivationDtype::F32);
            token_log_probs::forward(&logits, vocabulary, targets, self.temperature)
        });
        parts.collect()
    }

    /// Gradients of the states and, where it is wanted, of the matrix.
    fn backward(
        self,
        x: Matrix<'_>,
        weight: &FlexTensor,
        gradient: &[f32],
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let shape = dims(weight);
        let vocabulary = shape[0];
        let mut by_x = Vec::with_capacity(x.rows * x.columns);
        let mut by_w = wanted[1].then(|| {
            assert_learns(weight);
            vec![0.0; vocabulary * x.columns]
        });
        for (first, x, targets) in self.parts(x, vocabulary) {
            let logits = linear_forward(x, weight, None, ActivationDtype::F32);
            let gradient = &gradient[first * token_log_probs::COLUMNS..];
            let by_logits =
                token_log_probs::backward(&logits, vocabulary, targets, self.temperature, gradient);
            let by_logits = Matrix::dense(&by_logits, x.rows, vocabulary);
            if wanted[0] {
                by_x.extend(linear_input_gradient(by_logits, weight, ActivationDtype::F32));
            }
            if let Some(by_w) = &mut by_w {
                linear::multiply(by_w, x.columns, by_logits.transposed(), x, 1.0, true);
            }
        }
        let by_x = wanted[0].then(|| tensor(by_x, &[x.rows, x.columns]));
        vec![by_x, by_w.map(|by_w| tensor(by_w, &shape))]
    }
}

/// `x Wᵀ + b` for a weight of any type.
fn linear_forward(
    x: Matrix<'_>,
    weight: &FlexTensor,
    bias: Option<&[f32]>,
    activations: ActivationDtype,
) -> Vec<f32> {
    let shape = dims(weight);
    match (weight.dtype(), activations) {
        (DType::F32, _) => linear::forward(x, matrix(weight), bias),
        (DType::BF16, ActivationDtype::Bf16) => {
            bf16_linear::forward(x, narrow_matrix(stored(weight), &shape), bias)
        }
        _ => {
            let mut out = vec![0.0; x.rows * shape[0]];
            fill_linear(&mut out, x, weight, bias, activations);
            out
        }
    }
}

/// The same, into `out`.
pub(crate) fn fill_linear(
    out: &mut [f32],
    x: Matrix<'_>,
    weight: &FlexTensor,
    bias: Option<&[f32]>,
    activations: ActivationDtype,
) {
    let shape = weight.layout().shape();
    match weight.dtype() {
        DType::BF16 => {
            let weight = narrow_matrix(stored::<bf16>(weight), shape);
            match activations {
                ActivationDtype::F32 => half_linear::fill(out, x, weight, bias),
                ActivationDtype::Bf16 => bf16_linear::fill(out, x, weight, bias),
            }
        }
        DType::F16 => {
            half_linear::fill(out, x, narrow_matrix(stored::<f16>(weight), shape), bias);
        }
        _ => linear::fill(out, x, matrix(weight), bias),
    }
}

/// `∂y W` for a weight of any type.
fn linear_input_gradient(
    gradient: Matrix<'_>,
    weight: &FlexTensor,
    activations: ActivationDtype,
) -> Vec<f32> {
    let shape = dims(weight);
    match weight.dtype() {
        DType::BF16 => {
            let weight = narrow_matrix(stored::<bf16>(weight), &shape);
            match activations {
                ActivationDtype::F32 => half_linear::backward_input(gradient, weight),
                ActivationDtype::Bf16 => bf16_linear::backward_input(gradient, weight),
            }
        }
        DType::F16 => {
            half_linear::backward_input(gradient, narrow_matrix(stored::<f16>(weight), &shape))
        }
        _ => linear::backward_input(gradient, matrix(weight)),
    }
}

impl FusedGradients for Flex {
    fn gradients<const N: usize>(
        operation: &Operation,
        inputs: [FlexTensor; N],
        gradient: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N] {
        let inputs = prepared(operation, inputs);
        let [gradient] = prepared(operation, [gradient]);
        let shape = dims(&inputs[0]);
        let mut found: Vec<Option<FlexTensor>> = match (operation, inputs.as_slice()) {
            (Operation::LayerNorm { epsilon }, [x, w, _]) => {
                let (x, w, g) = (values(x), values(w), values(&gradient));
                let (by_x, by_w, by_b) = layer_norm::backward(x, w, g, *epsilon);
                let width = by_w.len();
                vec![
                    Some(tensor(by_x, &shape)),
                    Some(tensor(by_w, &[width])),
                    Some(tensor(by_b, &[width])),
                ]
            }
            (Operation::RmsNorm { epsilon }, [x, w]) => {
                let (by_x, by_w) =
                    rms_norm::backward(values(x), values(w), values(&gradient), *epsilon);
                let width = by_w.len();
                vec![Some(tensor(by_x, &shape)), Some(tensor(by_w, &[width]))]
            }
            (Operation::Activation(kind), [x]) => {
                let by_x = activation::backward(values(x), values(&gradient), *kind);
                vec![Some(tensor(by_x, &shape))]
            }
            (Operation::SwiGlu, [gate, up]) => {
                let (by_gate, by_up) =
                    swiglu::backward(values(gate), values(up), values(&gradient));
                vec![Some(tensor(by_gate, &shape)), Some(tensor(by_up, &shape))]
            }
            (Operation::Linear(activations), [x, w, ..]) => {
                linear_gradients(x, w, &gradient, *activations, &wanted)
            }
            (Operation::LowRankLinear { scale, activations }, [x, w, a, b, ..]) => {
                low_rank_gradients([x, w, a, b], &gradient, (*scale, *activations), &wanted)
            }
            (Operation::RotaryEmbedding(angles), [_]) => {
                let g = view::<4>(&gradient);
                vec![Some(heads_inside(rotary::apply_rotary(g, angles, -1.0), g.shape))]
            }
            (Operation::Attention(mask), [q, k, v]) => {
                let shapes = [q, k, v].map(|tensor| view::<4>(tensor).shape);
                let views = [view(q), view(k), view(v)];
                let found = attention::backward(views, view(&gradient), mask);
                let pairs = found.into_iter().zip(shapes);
                pairs.map(|(values, shape)| Some(heads_inside(values, shape))).collect()
            }
            (Operation::SharedAttention { .. }, _) => {
                panic!("nothing trains through keys and values that are kept")
            }
            (Operation::TokenLogProbs { targets, temperature }, [logits]) => {
                let (logits, g) = (values(logits), values(&gradient));
                let out = token_log_probs::backward(logits, shape[1], targets, *temperature, g);
                vec![Some(tensor(out, &shape))]
            }
            (Operation::HeadLogProbs { targets, temperature }, [x, w]) => {
                let query = TargetLogProbs { targets, temperature: *temperature };
                let gradient = contiguous(gradient);
                query.backward(matrix(x), w, values(&gradient), &wanted)
            }
            (operation, inputs) => unreachable!("{operation:?} of {} tensors", inputs.len()),
        };
        std::array::from_fn(|at| found[at].take().filter(|_| wanted[at]))
    }
}

/// Only what is wanted: a frozen weight's gradient is a product as large as the forward pass.
fn linear_gradients(
    x: &FlexTensor,
    weight: &FlexTensor,
    gradient: &FlexTensor,
    activations: ActivationDtype,
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    let (x, g) = (matrix(x), matrix(gradient));
    let outputs = g.columns;
    let by_x = wanted[0]
        .then(|| tensor(linear_input_gradient(g, weight, activations), &[x.rows, x.columns]));
    let by_w = wanted[1].then(|| {
        assert_learns(weight);
        tensor(linear::backward_weight(g, x), &[outputs, x.columns])
    });
    let mut found = vec![by_x, by_w];
    if let Some(&wanted) = wanted.get(2) {
        found.push(wanted.then(|| {
            let g = contiguous(gradient.clone());
            tensor(linear::backward_bias(values(&g), outputs), &[outputs])
        }));
    }
    found
}

/// Likewise of a linear layer with an adapter: x, weight, A, B and perhaps a bias.
fn low_rank_gradients(
    [x, weight, a, b]: [&FlexTensor; 4],
    gradient: &FlexTensor,
    (scale, activations): (f32, ActivationDtype),
    wanted: &[bool],
) -> Vec<Option<FlexTensor>> {
    // What the linear layer itself wants is in the first two places and, of a bias, in the last.
    let own: Vec<bool> = [&[false, wanted[1]], wanted.get(4..).unwrap_or_default()].concat();
    let mut own = linear_gradients(x, weight, gradient, activations, &own);
    let by_bias = own.split_off(2);
    let (input, g, a, b) = (matrix(x), matrix(gradient), matrix(a), matrix(b));
    let path = low_rank::Path { x: input, a, b, scale };
    let by_inner = path.inner_gradient(g);
    let by_x = wanted[0].then(|| {
        let mut out = linear_input_gradient(g, weight, activations);
        path.add_input_gradient(&mut out, &by_inner);
        tensor(out, &[input.rows, input.columns])
    });
    let by_a = wanted[2].then(|| tensor(path.by_a(&by_inner), &[a.rows, a.columns]));
    let by_b = wanted[3].then(|| tensor(path.by_b(g), &[b.rows, b.columns]));
    let mut found = vec![by_x, own.swap_remove(1), by_a, by_b];
    found.extend(by_bias);
    found
}
