//! Every fused operation against the composed one, forwards and backwards, and against finite
//! differences.

use burn::tensor::{DType, Device, Tensor};
use fisao_kernels::attention::Mask;
use fisao_kernels::matrix::Matrix;
use fisao_kernels::rotary::Angles;
use fisao_kernels::{Operation, adapted, linear, one, three, two};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::activation::Activation;
use crate::attention::{SharedPrefix, Shown, attend_behind, composed as composed_attention};
use crate::linear::ActivationDtype;
use crate::parameters::{floats, from_floats, indices};
use crate::sequences::composed as composed_log_probs;

/// Largest difference allowed between two f32 computations of one number of order 1.
const CLOSE: f32 = 2e-5;

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.5..1.5)).collect()
}

/// A tensor that keeps its gradient.
fn leaf<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let values = random(shape.iter().product(), seed);
    from_floats::<D>(values, shape, &Device::flex()).autodiff().require_grad()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= CLOSE * (1.0 + b.abs()), "{what}[{at}]: {a} is not {b}");
    }
}

/// Compares values and all gradients of two computations on the same leaves, under a loss whose
/// gradient differs from element to element.
fn compare<const N: usize, const D: usize, const R: usize>(
    what: &str,
    leaves: &[Tensor<D>; N],
    fused: impl Fn([Tensor<D>; N]) -> Tensor<R>,
    composed: impl Fn([Tensor<D>; N]) -> Tensor<R>,
) {
    let run = |work: &dyn Fn([Tensor<D>; N]) -> Tensor<R>| {
        let y = work(leaves.clone());
        let values = floats(&y);
        let factors = from_floats(random(values.len(), 99), y.dims(), &Device::flex());
        let gradients = (y * factors).sum().backward();
        let all = leaves
            .each_ref()
            .map(|leaf| floats(&leaf.grad(&gradients).expect("a gradient reaches every leaf")));
        (values, all)
    };
    let (values, gradients) = run(&fused);
    let (expected, expected_gradients) = run(&composed);
    assert_close(&values, &expected, what);
    for (index, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
        assert_close(found, expected, &format!("{what}, gradient {index}"));
    }
}

#[test]
fn layer_norm_equals_composed_operations() {
    for (rows, width) in [(1, 1), (3, 5), (7, 160), (300, 128)] {
        let x: Tensor<2> = leaf([rows, width], 1);
        let parameters: Tensor<2> = leaf([2, width], 2);
        let apply = |x: Tensor<2>, p: Tensor<2>, fused: bool| {
            let row = |at: usize| p.clone().narrow(0, at, 1).reshape([width]);
            if fused {
                three(x, row(0), row(1), Operation::LayerNorm { epsilon: 1e-5 })
            } else {
                let centred = x.clone() - x.mean_dim(1);
                let variance = centred.clone().square().mean_dim(1);
                centred * (variance + 1e-5).sqrt().recip() * row(0).unsqueeze() + row(1).unsqueeze()
            }
        };
        compare(
            "layer norm",
            &[x, parameters],
            |[x, p]| apply(x, p, true),
            |[x, p]| apply(x, p, false),
        );
    }
}

#[test]
fn rms_norm_equals_composed_operations() {
    for (rows, width) in [(2, 3), (5, 192), (400, 64)] {
        compare(
            "rms norm",
            &[leaf([rows, width], 3), leaf([1, width], 4)],
            |[x, w]| two(x, w.reshape([width]), Operation::RmsNorm { epsilon: 1e-5 }),
            |[x, w]| {
                let mean = x.clone().square().mean_dim(1);
                x * (mean + 1e-5).sqrt().recip() * w
            },
        );
    }
}

#[test]
fn activations_equal_composed_operations() {
    for kind in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        compare(
            "activation",
            &[leaf([37, 19], 5)],
            |[x]| one(x * 3.0, Operation::Activation(kind)),
            |[x]| kind.composed(x * 3.0),
        );
    }
}

#[test]
fn swiglu_equals_composed_operations() {
    compare(
        "swiglu",
        &[leaf([33, 17], 6), leaf([33, 17], 7)],
        |[gate, up]| two(gate, up, Operation::SwiGlu),
        |[gate, up]| gate.clone() * burn::tensor::activation::sigmoid(gate) * up,
    );
}

#[test]
fn linear_equals_matmul_with_and_without_bias() {
    for (rows, inputs, outputs) in [(1, 4, 3), (5, 7, 9), (300, 33, 65)] {
        let x: Tensor<2> = leaf([inputs, rows], 8);
        let w: Tensor<2> = leaf([outputs, inputs], 9);
        let b: Tensor<2> = leaf([1, outputs], 10);
        compare(
            "linear",
            &[x.clone(), w.clone(), b],
            |[x, w, b]| {
                three(
                    x.transpose(),
                    w,
                    b.reshape([outputs]),
                    Operation::Linear(ActivationDtype::F32),
                )
            },
            |[x, w, b]| x.transpose().matmul(w.transpose()) + b,
        );
        compare(
            "linear without bias",
            &[x, w],
            |[x, w]| two(x.transpose(), w, Operation::Linear(ActivationDtype::F32)),
            |[x, w]| x.transpose().matmul(w.transpose()),
        );
    }
}

#[test]
fn linear_with_frozen_weight_passes_gradient_to_its_input() {
    let x: Tensor<2> = leaf([4, 6], 11);
    let w: Tensor<2> = from_floats(random(30, 12), [5, 6], &Device::flex());
    let y: Tensor<2> = two(x.clone(), w.clone(), Operation::Linear(ActivationDtype::F32));
    let gradients = y.sum().backward();
    let found = floats(&x.grad(&gradients).expect("the input has a gradient"));
    let expected: Vec<f32> = floats(&w.sum_dim(0)).repeat(4);
    assert_close(&found, &expected, "input gradient");
}

#[test]
fn rotary_embedding_equals_composed_operations() {
    let (batch, heads, length, width) = (2, 3, 5, 8);
    let angles = random(batch * length * width / 2, 13);
    let table = |f: fn(f32) -> f32| angles.iter().map(|&a| f(a)).collect::<Vec<_>>();
    let (cos, sin) = (table(f32::cos), table(f32::sin));
    let constant = |values: &[f32]| -> Tensor<4> {
        from_floats(values.to_vec(), [batch, 1, length, width / 2], &Device::flex())
    };
    let operation = Operation::RotaryEmbedding(
        Angles { cos: cos.clone(), sin: sin.clone(), half: width / 2 }.into(),
    );
    compare(
        "rotary",
        &[leaf([batch, length, heads, width], 14)],
        |[x]| one::<4, 4>(x.swap_dims(1, 2), operation.clone()),
        |[x]| {
            let x = x.swap_dims(1, 2);
            let low = x.clone().narrow(3, 0, width / 2);
            let high = x.narrow(3, width / 2, width / 2);
            let (cos, sin) = (constant(&cos), constant(&sin));
            let first = low.clone() * cos.clone() - high.clone() * sin.clone();
            Tensor::cat(vec![first, high * cos + low * sin], 3)
        },
    );
}

#[test]
fn attention_equals_composed_for_every_mask_and_grouping() {
    let padded = Mask::Causal { first: vec![0, 3, 1].into() };
    let window = |mask: &Mask, window| mask.clone().within(Some(window));
    let windows = [window(&padded, 4), window(&Mask::causal(), 1), window(&Mask::causal(), 70)];
    for mask in [Mask::Full, Mask::causal(), padded].into_iter().chain(windows) {
        // The last has several blocks of queries.
        let sizes = [(4, 4, 6, 6), (4, 2, 1, 7), (6, 1, 3, 9), (2, 1, 140, 150)];
        for (heads, key_heads, queries, keys) in sizes {
            let width = 8;
            let shape = |heads, length| [3, length, heads, width];
            compare(
                "attention",
                &[
                    leaf(shape(heads, queries), 15),
                    leaf(shape(key_heads, keys), 16),
                    leaf(shape(key_heads, keys), 17),
                ],
                |[q, k, v]| {
                    let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2));
                    three::<4, 4, 4, 4>(q, k, v, Operation::Attention(mask.clone()))
                },
                |[q, k, v]| {
                    let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2));
                    composed_attention(q, k, v, &Shown::by(&mask))
                },
            );
        }
    }
}

/// Rows with a prefix of their own length, without one and without a continuation; the last is longer than a block of queries.
#[test]
fn shared_prefix_attention_equals_composed() {
    let row = |prefix, ends: &[usize]| SharedPrefix { prefix, ends: ends.to_vec() };
    let cases = [
        (9, [row(4, &[6, 7, 9]), row(1, &[2, 8]), row(3, &[3, 5])]),
        (9, [row(9, &[]), row(0, &[4, 9]), row(5, &[])]),
        (160, [row(70, &[71, 150]), row(130, &[140, 150, 160]), row(3, &[90])]),
    ];
    for (length, rows) in cases {
        let mask = Mask::SharedPrefix { rows: rows.into() };
        for (heads, key_heads) in [(4, 4), (4, 2), (3, 1)] {
            let shape = |heads| [3, length, heads, 8];
            compare(
                "attention with shared prefixes",
                &[leaf(shape(heads), 15), leaf(shape(key_heads), 16), leaf(shape(key_heads), 17)],
                |[q, k, v]| {
                    let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2));
                    three::<4, 4, 4, 4>(q, k, v, Operation::Attention(mask.clone()))
                },
                |[q, k, v]| {
                    let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2));
                    composed_attention(q, k, v, &Shown::by(&mask))
                },
            );
        }
    }
}

/// To the bit, wherever the prompt ends, for one query and for several, with padding that ends in the prompt and behind it.
#[test]
fn shared_prompt_attention_equals_copied_prompt() {
    let of = vec![1, 0, 1];
    for (width, heads, key_heads) in [(8, 4, 2), (32, 2, 2), (67, 2, 1)] {
        for (queries, before, own) in [(1, 21, 18), (1, 16, 1), (1, 33, 5), (1, 2, 40), (4, 21, 9)]
        {
            let cases = [
                (vec![], None),
                (vec![], Some(7)),
                (vec![0, 3, before], None),
                (vec![0, 3, before], Some(own + 2)),
                (vec![before, before - 1, 1], None),
            ];
            for (first, window) in cases {
                let plain = |shape: [usize; 4], seed| -> Tensor<4> {
                    from_floats(random(shape.iter().product(), seed), shape, &Device::flex())
                };
                let q = plain([3, heads, queries, width], 41);
                let prompts = [42, 43].map(|seed| plain([2, key_heads, before, width], seed));
                let own = [44, 45].map(|seed| plain([3, key_heads, own, width], seed));
                let mask = Mask::Causal { first: first.clone().into() };
                let mask = mask.within(window);
                let copied = |at: usize| {
                    let rows = indices(of.iter().map(|&row| row as i64).collect(), &Device::flex());
                    Tensor::cat(vec![prompts[at].clone().select(0, rows), own[at].clone()], 2)
                };
                let operation = Operation::Attention(mask.clone());
                let expected: Tensor<4> = three(q.clone(), copied(0), copied(1), operation);
                let [before_k, before_v] = prompts.clone();
                let [own_k, own_v] = own.clone();
                let of = of.clone().into();
                let found =
                    attend_behind(q, (before_k, before_v), of, (own_k, own_v), &Shown::by(&mask));
                let same = floats(&found) == floats(&expected);
                assert!(same, "{queries} queries behind {before} + {mask:?}, width {width}");
            }
        }
    }
}

#[test]
fn token_log_probabilities_and_entropies_equal_composed() {
    let targets = vec![3, 0, 10, 7, 7];
    for temperature in [1.0, 0.7, 2.0] {
        compare(
            "log-probabilities",
            &[leaf([5, 11], 18)],
            |[logits]| {
                let targets = targets.clone().into();
                one(logits, Operation::TokenLogProbs { targets, temperature: temperature as f32 })
            },
            |[logits]| composed_log_probs(logits, &targets, temperature),
        );
    }
}

/// With more rows than have their logits made at a time.
#[test]
fn log_probabilities_from_states_equal_those_from_logits() {
    let vocabulary = 300;
    let rows = 7_200;
    let targets: Vec<u32> = (0..rows).map(|row| row * 4001 % vocabulary).collect();
    let (rows, vocabulary) = (rows as usize, vocabulary as usize);
    for (temperature, weights) in [(1.0, 40), (0.7, vocabulary)] {
        let targets: Vec<u32> = targets.iter().map(|target| target % weights as u32).collect();
        compare(
            "log-probabilities from states",
            &[leaf([rows, 6], 18), leaf([weights, 6], 19)],
            |[x, w]| {
                let (targets, temperature) = (targets.clone().into(), temperature as f32);
                two(x, w, Operation::HeadLogProbs { targets, temperature })
            },
            |[x, w]| composed_log_probs(x.matmul(w.transpose()), &targets, temperature),
        );
    }
    for dtype in [DType::BF16, DType::F16] {
        let [narrow, wide] = narrow_weight(dtype, 37, 83);
        let targets: Vec<u32> = (0..50).map(|row| row % 37).collect();
        compare(
            &format!("log-probabilities from states, {dtype:?}"),
            &[leaf([50, 83], 18)],
            |[x]| {
                let targets = targets.clone().into();
                let operation = Operation::HeadLogProbs { targets, temperature: 1.0 };
                two(x, narrow.clone(), operation)
            },
            |[x]| composed_log_probs(x.matmul(wide.clone().transpose()), &targets, 1.0),
        );
    }
}

#[test]
fn attention_gradients_equal_finite_differences() {
    let shape = [1, 4, 2, 4];
    let [q, k, v] = [20, 21, 22].map(|seed| random(32, seed));
    let factors = random(32, 23);
    let run = |q: &[f32], k: &[f32], v: &[f32]| {
        let [q, k, v] = [q, k, v].map(|x| {
            let x: Tensor<4> = from_floats(x.to_vec(), shape, &Device::flex());
            x.autodiff().require_grad()
        });
        let views = [&q, &k, &v].map(|x| x.clone().swap_dims(1, 2));
        let [vq, vk, vv] = views;
        let y: Tensor<4> = three(vq, vk, vv, Operation::Attention(Mask::causal()));
        let weights = from_floats(factors.clone(), shape, &Device::flex());
        let loss = (y.swap_dims(1, 2) * weights).sum();
        let value = f64::from(floats(&loss)[0]);
        let gradients = loss.backward();
        (value, [q, k, v].map(|x| floats(&x.grad(&gradients).expect("gradient"))))
    };
    let (_, gradients) = run(&q, &k, &v);
    let step = 1e-2;
    for at in [0, 5, 17, 31] {
        for which in 0..3 {
            let moved = |by: f32| {
                let mut all = [q.clone(), k.clone(), v.clone()];
                all[which][at] += by;
                run(&all[0], &all[1], &all[2]).0
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let found = f64::from(gradients[which][at]);
            assert!((found - slope).abs() < 2e-3, "input {which}[{at}]: {found} is not {slope}");
        }
    }
}

/// Many rows by few columns, as an adapter's products are, from every way its sides can lie; then more columns than count as few,
/// and a right side large enough to be transposed in panels.
#[test]
fn matmul_does_not_depend_on_memory_layout() {
    for (rows, inner, width) in
        [(90, 50, 3), (41, 700, 16), (70, 33, 40), (45, 70, 60), (45, 800, 700)]
    {
        let (a, b) = (random(rows * inner, 31), random(inner * width, 32));
        let [transposed_a, transposed_b] =
            [(&a, rows, inner), (&b, inner, width)].map(|(x, rows, columns)| {
                (0..x.len()).map(|at| x[at % rows * columns + at / rows]).collect::<Vec<f32>>()
            });
        let dense = Matrix::dense;
        for a_lies in [dense(&a, rows, inner), dense(&transposed_a, inner, rows).transposed()] {
            for b_lies in [dense(&b, inner, width), dense(&transposed_b, width, inner).transposed()]
            {
                let found = linear::product(a_lies, b_lies, 0.5);
                for (at, &found) in found.iter().enumerate() {
                    let (row, column) = (at / width, at % width);
                    let terms = (0..inner)
                        .map(|i| f64::from(a[row * inner + i]) * f64::from(b[i * width + column]));
                    let expected = 0.5 * terms.sum::<f64>();
                    let close = (f64::from(found) - expected).abs() < 1e-6 * inner as f64;
                    assert!(close, "{found} for {expected} at {at} of {rows} × {inner} × {width}");
                }
            }
        }
    }
}

#[test]
fn matmul_panics_on_mismatched_shapes() {
    let a = Matrix::dense(&[0.0; 6], 2, 3);
    let fails =
        |work: &(dyn Fn() + std::panic::RefUnwindSafe)| std::panic::catch_unwind(work).is_err();
    assert!(fails(&|| linear::multiply(&mut [0.0; 3], 2, a, a.transposed(), 1.0, false)));
    assert!(fails(&|| linear::multiply(&mut [0.0; 4], 2, a, a, 1.0, false)));
    let short = Matrix { rows: 9, ..a };
    assert!(fails(&|| linear::multiply(&mut [0.0; 99], 9, short, short.transposed(), 1.0, false)));
}

/// Enough keys for the heads of one query to be shared among threads, and widths of one vector, of several and of parts.
#[test]
fn single_query_attention_equals_composed() {
    for (width, keys) in [(64, 130), (32, 37), (128, 9), (80, 66), (24, 5), (200, 4)] {
        let shape = |heads, length| [2, heads, length, width];
        let [q, k, v] = [(shape(8, 1), 1), (shape(4, keys), 2), (shape(4, keys), 3)]
            .map(|(shape, seed)| leaf::<4>(shape, seed).inner());
        let mask = Mask::Causal { first: [0, 3].into() };
        let fused: Tensor<4> =
            three(q.clone(), k.clone(), v.clone(), Operation::Attention(mask.clone()));
        assert_close(
            &floats(&fused),
            &floats(&composed_attention(q, k, v, &Shown::by(&mask))),
            "a step",
        );
    }
}

/// With few rows and many, with a bias and without, beside weights of every type.
#[test]
fn adapted_linear_equals_linear_plus_low_rank_path() {
    let scale = 1.5;
    let operation = Operation::LowRankLinear { scale, activations: ActivationDtype::F32 };
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for (rows, biased) in [(1, false), (5, true), (50, false), (90, true)] {
            let [weight, wide] = narrow_weight(dtype, 37, 83);
            let bias = leaf::<2>([1, 37], 4);
            let factors = [leaf::<2>([rows, 83], 1), leaf([6, 83], 2), leaf([37, 6], 3), bias];
            compare(
                &format!("{dtype:?}, {rows} rows, bias {biased}"),
                &factors,
                |[x, a, b, bias]| {
                    let kept = biased.then(|| bias.clone().reshape([37]));
                    let y = adapted(x, [weight.clone(), a, b], kept, operation.clone());
                    if biased { y } else { y + bias }
                },
                |[x, a, b, bias]| {
                    let path = x.clone().matmul(a.transpose()).matmul(b.transpose());
                    x.matmul(wide.clone().transpose()) + bias + path * scale
                },
            );
        }
    }
    compare(
        "a map that learns beside its adapter",
        &[leaf::<2>([9, 12], 1), leaf([7, 12], 2), leaf([3, 12], 3), leaf([7, 3], 4)],
        |[x, w, a, b]| adapted(x, [w, a, b], None, operation.clone()),
        |[x, w, a, b]| {
            let path = x.clone().matmul(a.transpose()).matmul(b.transpose());
            x.matmul(w.transpose()) + path * scale
        },
    );
}

/// A weight of 16 bits, and the same values in f32.
fn narrow_weight(dtype: DType, outputs: usize, inputs: usize) -> [Tensor<2>; 2] {
    let wide = from_floats::<2>(random(outputs * inputs, 5), [outputs, inputs], &Device::flex());
    let narrow = wide.cast(dtype);
    [narrow.clone(), narrow.cast(DType::F32)]
}

#[test]
fn linear_with_16_bit_weight_equals_f32_of_its_values() {
    for dtype in [DType::BF16, DType::F16] {
        for rows in [1, 3, 4, 5, 12, 13, 40] {
            let [narrow, wide] = narrow_weight(dtype, 37, 83);
            let inputs = [leaf::<2>([rows, 83], 1)];
            let bias = from_floats::<1>(random(37, 2), [37], &Device::flex());
            compare(
                &format!("{dtype:?}, {rows} rows"),
                &inputs,
                |[x]| {
                    three(x, narrow.clone(), bias.clone(), Operation::Linear(ActivationDtype::F32))
                },
                |[x]| x.matmul(wide.clone().transpose()) + bias.clone().unsqueeze(),
            );
            compare(
                &format!("{dtype:?}, {rows} rows without bias"),
                &inputs,
                |[x]| two(x, narrow.clone(), Operation::Linear(ActivationDtype::F32)),
                |[x]| x.matmul(wide.clone().transpose()),
            );
        }
    }
}

/// With few rows and many, with an adapter and without: the adapter's path is not rounded, its gradients neither.
#[test]
fn bf16_activations_round_the_base_path_but_not_the_adapter() {
    let round = |x: &Tensor<2>| x.clone().cast(DType::BF16).cast(DType::F32);
    let scale = 1.5;
    let activations = ActivationDtype::Bf16;
    for rows in [3, 70] {
        let [weight, wide] = narrow_weight(DType::BF16, 37, 83);
        let leaves = [leaf::<2>([rows, 83], 1), leaf([6, 83], 2), leaf([37, 6], 3)];
        let [x, a, b] = leaves.each_ref().map(|leaf| leaf.clone().inner());
        let gradient = from_floats::<2>(random(rows * 37, 99), [rows, 37], &Device::flex());
        let base = round(&x).matmul(wide.clone().transpose());
        let by_base = round(&gradient).matmul(wide);

        let linear: Tensor<2> =
            two(leaves[0].clone(), weight.clone(), Operation::Linear(activations));
        assert_close(&floats(&linear), &floats(&base), "a map");
        let gradients = (linear * gradient.clone()).sum().backward();
        let found = leaves[0].grad(&gradients).expect("a gradient");
        assert_close(&floats(&found), &floats(&by_base), "gradient of a map");

        let [leaf_x, leaf_a, leaf_b] = leaves.clone();
        let operation = Operation::LowRankLinear { scale, activations };
        let y = adapted(leaf_x, [weight, leaf_a, leaf_b], None, operation);
        let inner = x.clone().matmul(a.clone().transpose());
        let path = inner.clone().matmul(b.clone().transpose()) * scale;
        assert_close(&floats(&y), &floats(&(base + path)), "a map with an adapter");
        let gradients = (y * gradient.clone()).sum().backward();
        let by_inner = gradient.clone().matmul(b) * scale;
        let expected = [
            by_base + by_inner.clone().matmul(a),
            by_inner.transpose().matmul(x),
            gradient.transpose().matmul(inner) * scale,
        ];
        for (leaf, expected) in leaves.iter().zip(&expected) {
            let found = leaf.grad(&gradients).expect("a gradient");
            assert_close(&floats(&found), &floats(expected), "gradient of a map with an adapter");
        }
    }
}

#[test]
fn linear_reads_a_slice_of_a_16_bit_weight() {
    let [narrow, wide] = narrow_weight(DType::BF16, 30, 20);
    let x = leaf::<2>([2, 20], 1).inner();
    let part: Tensor<2> =
        two(x.clone(), narrow.narrow(0, 10, 10), Operation::Linear(ActivationDtype::F32));
    let expected = x.matmul(wide.narrow(0, 10, 10).transpose());
    assert_close(&floats(&part), &floats(&expected), "a part");
}
