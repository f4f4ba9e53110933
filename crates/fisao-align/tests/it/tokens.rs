use burn::tensor::{Device, Tensor};
use fisao_align::ppo::{ClipRange, RealTokens, policy_loss};

const CLIP: ClipRange = ClipRange { epsilon: 0.2, dual: None };
const NAN: f32 = f32::NAN;

/// Padding holds NaN: whatever touched it would show.
#[test]
fn padding_contributes_nothing_to_loss_and_gradient() {
    let device = Device::flex().autodiff();
    let real = [-0.5, -0.7, -0.9, -1.1];
    let (old, advantages) = ([-0.6, -0.7, -0.8, -1.3], [1.0, -1.0, 0.5, -0.25]);
    let spans = [1..2, 0..3];
    let tokens = RealTokens::new(&spans, 4);
    assert_eq!(tokens.len(), 4);

    let padded = [[NAN, real[0], NAN, NAN], [real[1], real[2], real[3], NAN]];
    let padded = Tensor::<2>::from_data(padded, &device).require_grad();
    let (loss, _) = policy_loss(tokens.gather(padded.clone()), &old, &advantages, CLIP, 4.0);
    let gradients = loss.backward();
    let padded: Vec<f32> = padded.grad(&gradients).expect("tracked").to_data().iter().collect();

    let dense = Tensor::<1>::from_data(real, &device).require_grad();
    let (dense_loss, _) = policy_loss(dense.clone(), &old, &advantages, CLIP, 4.0);
    let gradients = dense_loss.backward();
    let dense: Vec<f32> = dense.grad(&gradients).expect("tracked").to_data().iter().collect();

    assert_eq!(loss.into_scalar::<f32>().to_bits(), dense_loss.into_scalar::<f32>().to_bits());
    assert_eq!(padded, [0.0, dense[0], 0.0, 0.0, dense[1], dense[2], dense[3], 0.0]);
    assert!(dense.iter().all(|&g| g != 0.0));
}

#[test]
fn vectors_are_gathered_row_by_row() {
    let device = Device::flex();
    let hidden = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [NAN, NAN]]];
    let tokens = RealTokens::new(&[1..2, 0..1], 2);
    let gathered = tokens.gather_vectors(Tensor::<3>::from_data(hidden, &device));
    assert_eq!(gathered.dims(), [2, 2]);
    let gathered: Vec<f32> = gathered.to_data().iter().collect();
    assert_eq!(gathered, [3.0, 4.0, 5.0, 6.0]);
}

#[test]
#[should_panic(expected = "exceeds 2 columns")]
fn a_span_beyond_the_batch_is_refused() {
    let _ = RealTokens::new(&[0..1, 0..3], 2);
}
