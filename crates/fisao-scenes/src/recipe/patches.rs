//! A start for the image tower's first layer: patches come out whitened, positions as waves.
//!
//! Random filters see mostly a patch's mean colour, which is all background. The principal directions of
//! the world's own patches, each scaled to the same spread, show a fresh tower edges and shapes at once
//! (Jordan 2024, arXiv 2404.00498, does so for convolutions). Position embeddings start as the sines and
//! cosines of Beyer et al. 2022, arXiv 2205.01580, which tell neighbours from the first update on.

use burn::tensor::{Device, Tensor};
use fisao_models::clip::Clip;
use fisao_models::parameters::{Parameters, floats, from_floats};
use fisao_models::vision::VisionConfig;
use fisao_models::weights::{Init, draw};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::image_processor;
use crate::{IMAGE_SIZE, Split, World};

/// Scenes whose patches are looked at.
const SCENES: u64 = 256;

/// Rounds of subspace iteration; the spectrum falls fast.
const ROUNDS: usize = 40;

/// Added to every direction's variance, as a fraction of the mean one, so that faint directions are not
/// blown up to full size.
const FLOOR: f64 = 0.02;

/// Amplitude of the position waves; a whitened patch has spread 1.
const WAVE: f64 = 0.5;

/// Longest wave of the position embedding, patches.
const LONGEST_WAVE: f64 = 40.0;

/// Writes the start into a fresh model.
pub(super) fn prepare(clip: &mut Clip, world: &World, seed: u64, device: &Device) {
    let config = clip.config().vision.clone();
    let patches = collect(world, seed, config.patch_size);
    let (kernel, offset) = whitening(&patches, &config, seed, device);
    let waves = positions(&config, &offset);
    clip.visit_mut("", &mut |name, mut parameter| match name {
        "vision_model.embeddings.patch_embedding.weight" => parameter.set_values(kernel.clone()),
        "vision_model.embeddings.position_embedding.weight" => parameter.set_values(waves.clone()),
        _ => {}
    });
}

/// Patches of some scenes, each in channel, row, column order.
fn collect(world: &World, seed: u64, side: usize) -> Vec<Vec<f32>> {
    let whole = IMAGE_SIZE as usize;
    let mut patches = Vec::new();
    for index in 0..SCENES {
        let image = world.render(&world.scene(Split::Train, seed, index));
        let pixels = image_processor().process(&image).values;
        for (top, left) in corners(whole, side) {
            let mut patch = Vec::with_capacity(3 * side * side);
            for channel in 0..3 {
                for row in top..top + side {
                    let start = (channel * whole + row) * whole + left;
                    patch.extend_from_slice(&pixels[start..start + side]);
                }
            }
            patches.push(patch);
        }
    }
    patches
}

fn corners(whole: usize, side: usize) -> impl Iterator<Item = (usize, usize)> {
    let starts = move || (0..whole / side).map(move |at| at * side);
    starts().flat_map(move |top| starts().map(move |left| (top, left)))
}

/// The whitening filters, `[width, pixels of a patch]`, and what they make of the mean patch, `[width]`.
fn whitening(
    patches: &[Vec<f32>],
    config: &VisionConfig,
    seed: u64,
    device: &Device,
) -> (Vec<f32>, Vec<f32>) {
    let (count, size) = (patches.len(), patches[0].len());
    let width = config.hidden_size.min(size);
    let all: Tensor<2> = from_floats(patches.concat(), [count, size], device);
    let mean = all.clone().mean_dim(0);
    let centred = all - mean.clone();
    let covariance = centred.clone().transpose().matmul(centred) / count as f64;

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let start = draw(&mut rng, config.hidden_size * size, Init::Normal { std: 1.0 });
    // Rows beyond the patch's own size have no direction of their own and stay random.
    let mut rows: Vec<Vec<f32>> = start.chunks_exact(size).map(<[f32]>::to_vec).collect();
    let mut lengths = vec![1.0; width];
    for _ in 0..ROUNDS {
        let directions = from_floats(rows[..width].concat(), [width, size], device);
        let moved = floats(&directions.matmul(covariance.clone()));
        for (row, moved) in rows.iter_mut().zip(moved.chunks_exact(size)) {
            row.copy_from_slice(moved);
        }
        lengths = orthonormalise(&mut rows[..width]);
    }
    let floor = FLOOR * lengths.iter().sum::<f64>() / width as f64;
    for (row, variance) in rows.iter_mut().zip(&lengths) {
        let scale = 1.0 / (variance + floor).sqrt();
        for value in row {
            *value *= scale as f32;
        }
    }
    let kernel = rows.concat();
    let filters: Tensor<2> = from_floats(kernel.clone(), [config.hidden_size, size], device);
    (kernel, floats(&mean.matmul(filters.transpose())))
}

/// Makes the rows orthonormal in order (modified Gram–Schmidt); returns their lengths before scaling.
fn orthonormalise(rows: &mut [Vec<f32>]) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let mut lengths = Vec::with_capacity(rows.len());
    for at in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(at);
        let row = &mut rest[0];
        for other in before.iter() {
            let along = dot(other, row) as f32;
            row.iter_mut().zip(other).for_each(|(value, &other)| *value -= along * other);
        }
        let length = dot(row, row).sqrt();
        for value in row.iter_mut() {
            *value /= length.max(1e-12) as f32;
        }
        lengths.push(length);
    }
    lengths
}

/// Sines and cosines of row and column, the mean patch taken off: `[1 + patches, width]`, the class
/// token's row zero.
fn positions(config: &VisionConfig, offset: &[f32]) -> Vec<f32> {
    let side = config.image_size / config.patch_size;
    let width = config.hidden_size;
    let quarter = width / 4;
    let mut values = vec![0.0; width];
    for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
        for (at, &offset) in (0..width).zip(offset) {
            let place = if at < width / 2 { row } else { column } as f64;
            let (index, is_sine) = (at % (width / 2), at % (width / 2) < quarter);
            let frequency =
                LONGEST_WAVE.powf(-((index % quarter.max(1)) as f64) / quarter.max(1) as f64);
            let angle = place * frequency;
            let wave = if is_sine { angle.sin() } else { angle.cos() };
            values.push((WAVE * wave) as f32 - offset);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::RecipeConfig;
    use crate::recipe::vocabularies::clip_tokenizer;
    use fisao_models::weights::RandomWeights;

    /// Filters that see the mean patch as zero and every direction alike, the faint ones less.
    #[test]
    fn whitening_filters_centre_and_decorrelate_patches() {
        let (world, device) = (World::new(), Device::flex());
        let config = RecipeConfig::default();
        let clip_config = config.clip(&clip_tokenizer(&world, 0).expect("the tokenizer trains"));
        let vision = clip_config.vision.clone();
        let patches = collect(&world, 1, vision.patch_size);
        let (kernel, offset) = whitening(&patches, &vision, 0, &device);
        let (width, size) = (vision.hidden_size, patches[0].len());
        let all: Tensor<2> = from_floats(patches.concat(), [patches.len(), size], &device);
        let filters: Tensor<2> = from_floats(kernel, [width, size], &device);
        let offset: Tensor<2> = from_floats(offset, [1, width], &device);
        let out = all.matmul(filters.transpose()) - offset;
        let mean = floats(&out.clone().mean_dim(0));
        assert!(mean.iter().all(|mean| mean.abs() < 1e-3), "means {mean:?}");
        let covariance = floats(&(out.clone().transpose().matmul(out) / patches.len() as f64));
        for (at, row) in covariance.chunks_exact(width).enumerate() {
            assert!((0.02..1.05).contains(&row[at]), "direction {at} has variance {}", row[at]);
            let others = row.iter().enumerate().filter(|(other, _)| *other != at);
            let largest = others.map(|(_, value)| value.abs()).fold(0.0, f32::max);
            assert!(largest < 0.2, "direction {at} is correlated with another: {largest}");
        }
    }

    #[test]
    fn preparation_changes_only_the_vision_embedding_weights() {
        let (world, device) = (World::new(), Device::flex());
        let config = RecipeConfig::default();
        let clip_config = config.clip(&clip_tokenizer(&world, 0).expect("the tokenizer trains"));
        let fresh = || {
            Clip::load(clip_config.clone(), &mut RandomWeights::new(0), &device)
                .expect("random weights fit every model")
        };
        let (mut random, mut prepared) = (fresh(), fresh());
        prepare(&mut prepared, &world, 0, &device);
        let mut before = std::collections::BTreeMap::new();
        random.visit_mut("", &mut |name, parameter| {
            before.insert(name.to_owned(), parameter.values());
        });
        let mut changed = Vec::new();
        prepared.visit_mut("", &mut |name, parameter| {
            if before[name] != parameter.values() {
                changed.push(name.to_owned());
            }
        });
        changed.sort();
        let expected = ["patch_embedding", "position_embedding"]
            .map(|part| format!("vision_model.embeddings.{part}.weight"));
        assert_eq!(changed, expected);
    }
}
