//! Coefficients to samples: the "islow" inverse cosine transform of Loeffler, Ligtenberg and
//! Moschytz (ICASSP 1989) with 13-bit constants, to the bit as in libjpeg.
//!
//! Sums of inputs are kept in 16 bits and intermediate values are clipped to them, as vector code does
//! it; only damaged files tell the difference.

use super::frame::SIDE;

/// Fraction bits of the constants.
const BITS: u32 = 13;
/// Fraction bits between the two passes.
const BETWEEN: u32 = 2;

/// Transforms blocks that stand `across` to a row; `plane` has `8 · across` samples to a row.
pub(super) fn blocks_to_samples(
    blocks: &[[i16; 64]],
    across: usize,
    steps: &[i16; 64],
    plane: &mut [u8],
) {
    let stride = across * SIDE;
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let rows = blocks.chunks_exact(across).zip(plane.chunks_exact_mut(stride * SIDE));
            for (blocks, samples) in rows {
                for (x, block) in blocks.iter().enumerate() {
                    let samples = &mut samples[x * SIDE..];
                    let values = block_to_samples(block, steps);
                    for (y, row) in values.as_chunks::<SIDE>().0.iter().enumerate() {
                        samples[y * stride..][..SIDE].copy_from_slice(row);
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn block_to_samples(block: &[i16; 64], steps: &[i16; 64]) -> [u8; 64] {
    if block[1..].iter().fold(0, |any, &value| any | value) == 0 {
        // The first pass would only shift it, the second divides by 8 and rounds.
        let level = i32::from(block[0].wrapping_mul(steps[0]));
        return [sample(((level + 4) >> 3) as i16); 64];
    }
    let mut frequencies = [0_i16; 64];
    for ((product, &value), &step) in frequencies.iter_mut().zip(block).zip(steps) {
        *product = value.wrapping_mul(step);
    }
    let mut columns = [0; 64];
    pass::<{ BITS - BETWEEN }>(&frequencies, &mut columns);
    let mut values = [0; 64];
    pass::<{ BITS + BETWEEN + 3 }>(&columns, &mut values);
    values.map(sample)
}

#[inline(always)]
fn sample(value: i16) -> u8 {
    (value.clamp(-128, 127) + 128) as u8
}

/// Transforms the eight columns, and stores them as rows; the result loses `SHIFT` bits, rounded.
#[inline(always)]
fn pass<const SHIFT: u32>(input: &[i16; 64], output: &mut [i16; 64]) {
    for column in 0..SIDE {
        let at = |row: usize| input[row * SIDE + column];
        let row = transform(&[at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)]);
        for (index, value) in row.into_iter().enumerate() {
            let value = value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
            output[column * SIDE + index] = value.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        }
    }
}

/// One transform; the result has [`BITS`] more bits. What does not fit 32 bits is cut off.
#[inline(always)]
fn transform(input: &[i16; SIDE]) -> [i32; SIDE] {
    let times = |value: i16, factor: i32| i32::from(value).wrapping_mul(factor);
    let [zero, one, two, three, four, five, six, seven] = *input;
    // Even frequencies.
    let plus = i32::from(zero.wrapping_add(four)) << BITS;
    let minus = i32::from(zero.wrapping_sub(four)) << BITS;
    let outer = times(two, 10_703).wrapping_add(times(six, 4_433));
    let inner = times(two, 4_433).wrapping_add(times(six, -10_704));
    let even = [
        plus.wrapping_add(outer),
        minus.wrapping_add(inner),
        minus.wrapping_sub(inner),
        plus.wrapping_sub(outer),
    ];
    // Odd frequencies; 9633 is 1.175875602, the others are sums of it and of libjpeg's constants.
    let (z3, z4) = (seven.wrapping_add(three), five.wrapping_add(one));
    let mixed3 = times(z3, -6_436).wrapping_add(times(z4, 9_633));
    let mixed4 = times(z3, 9_633).wrapping_add(times(z4, 6_437));
    let odd = [
        times(one, 4_926).wrapping_add(times(seven, -7_373)).wrapping_add(mixed4),
        times(three, 4_177).wrapping_add(times(five, -20_995)).wrapping_add(mixed3),
        times(five, -4_176).wrapping_add(times(three, -20_995)).wrapping_add(mixed4),
        times(seven, -4_927).wrapping_add(times(one, -7_373)).wrapping_add(mixed3),
    ];
    let sum = |at: usize| even[at].wrapping_add(odd[at]);
    let difference = |at: usize| even[at].wrapping_sub(odd[at]);
    [sum(0), sum(1), sum(2), sum(3), difference(3), difference(2), difference(1), difference(0)]
}
