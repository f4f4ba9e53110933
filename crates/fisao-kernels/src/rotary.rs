//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864), "rotate half" convention:
//! `(x₁, x₂) ↦ (x₁ cos − x₂ sin, x₂ cos + x₁ sin)`.
//!
//! A rotation's transpose is its inverse, so the backward pass applies the opposite angles.

use crate::rows::fill_rows;
use crate::simd::vectorised;
use crate::view::View;

/// cos and sin of every position of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Angles {
    /// `[batch · length, half]`.
    pub cos: Vec<f32>,
    /// `[batch · length, half]`.
    pub sin: Vec<f32>,
    /// Half the width of a head.
    pub half: usize,
}

/// `[batch, heads, length, width]` → the same, in memory `[batch, length, heads, width]`. `direction`
/// is 1 forwards and −1 backwards.
pub(crate) fn apply_rotary(x: View<'_, 4>, angles: &Angles, direction: f32) -> Vec<f32> {
    let [batch, heads, length, width] = x.shape;
    let half = angles.half;
    assert!(width == 2 * half && x.strides[3] == 1, "rotary angles are for another width");
    assert_eq!(angles.cos.len(), batch * length * half, "rotary angles of another batch");
    let mut out = vec![0.0; batch * heads * length * width];
    fill_rows(&mut out, heads * width, |first, part| {
        vectorised(
            #[inline(always)]
            || {
                for (index, out) in part.chunks_exact_mut(heads * width).enumerate() {
                    let row = first + index;
                    let (in_batch, at) = (row / length, row % length);
                    let cos = &angles.cos[row * half..(row + 1) * half];
                    let sin = &angles.sin[row * half..(row + 1) * half];
                    for (head, out) in out.chunks_exact_mut(width).enumerate() {
                        let start =
                            in_batch * x.strides[0] + head * x.strides[1] + at * x.strides[2];
                        out.copy_from_slice(&x.data[start..start + width]);
                        rotate_half(out, cos, sin, direction);
                    }
                }
            },
        );
    });
    out
}

/// Rows of heads, `[rows, heads · width]`, forwards and in their place; row `r` gets the angles at `positions[r]`.
pub fn apply_rotary_in_place(x: &mut [f32], row: usize, angles: &Angles, positions: &[usize]) {
    let half = angles.half;
    assert!(x.len() == row * positions.len() && row.is_multiple_of(2 * half), "rows of heads");
    vectorised(
        #[inline(always)]
        || {
            for (x, &at) in x.chunks_exact_mut(row).zip(positions) {
                let cos = &angles.cos[at * half..(at + 1) * half];
                let sin = &angles.sin[at * half..(at + 1) * half];
                for head in x.chunks_exact_mut(2 * half) {
                    rotate_half(head, cos, sin, 1.0);
                }
            }
        },
    );
}

/// One head in its place.
#[inline(always)]
fn rotate_half(head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    let half = cos.len();
    let (low, high) = head.split_at_mut(half);
    for i in 0..half {
        let (a, b, sine) = (low[i], high[i], sin[i] * direction);
        low[i] = a * cos[i] - b * sine;
        high[i] = b * cos[i] + a * sine;
    }
}
