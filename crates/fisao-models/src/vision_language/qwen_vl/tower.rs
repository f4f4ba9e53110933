//! The image tower: patches at places of their own, in images of any size.

use burn::tensor::{Device, Tensor};

use super::block::{Block, Surroundings};
use super::patches::{PatchGrid, PatchOrder};
use super::{QwenGeneration, QwenVisionConfig};
use crate::linear::{Embedding, LinearVisitor, product};
use crate::llama::rotary::RotaryAngles;
use crate::parameters::{ParameterMut, Parameters, from_floats, indices};
use crate::weights::{Init, WeightError, WeightSource, widened};

/// Names of the embeddings within the tower.
const KERNEL: &str = "patch_embed.proj.weight";
const BIAS: &str = "patch_embed.proj.bias";
const POSITIONS: &str = "pos_embed";

/// The image tower.
#[derive(Debug, Clone)]
pub(super) struct Tower {
    config: QwenVisionConfig,
    /// `[width, 3, frames, patch, patch]`.
    patch_embedding: Tensor<5>,
    /// Qwen3-VL's only.
    patch_bias: Option<Tensor<1>>,
    /// `[side · side, width]`, Qwen3-VL's only.
    positions: Option<Embedding>,
    blocks: Vec<Block>,
}

/// What the tower makes of one image, patches in an order of its own.
pub(super) struct TowerOutput {
    /// Patches along each side.
    pub(super) grid: PatchGrid,
    /// `[patches, width]`.
    pub(super) states: Tensor<2>,
    /// The same behind each of the layers that are asked for.
    pub(super) deep: Vec<Tensor<2>>,
    /// Where each token's patches stand, row by row.
    pub(super) tokens: Vec<usize>,
}

impl Tower {
    pub(super) fn load(
        config: &QwenVisionConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let QwenVisionConfig { hidden_size: width, patch_size: patch, frames, .. } = *config;
        let inputs = 3 * frames * patch * patch;
        let init = Init::Normal { std: (inputs as f64).sqrt().recip() };
        let shape = [width, 3, frames, patch, patch];
        let kernel = weights.tensor(&format!("{name}.{KERNEL}"), &shape, init)?;
        let (patch_bias, positions) = match config.generation {
            QwenGeneration::Qwen2_5 { .. } => (None, None),
            QwenGeneration::Qwen3 { position_side, .. } => {
                let bias = weights.tensor(&format!("{name}.{BIAS}"), &[width], Init::Zeros)?;
                let size = [position_side * position_side, width];
                let table = format!("{name}.{POSITIONS}");
                let table = Embedding::load_widened(weights, &table, size, device)?;
                (Some(widened(bias, device)), Some(table))
            }
        };
        let block = |index| Block::load(config, weights, &format!("{name}.blocks.{index}"), device);
        Ok(Self {
            patch_embedding: widened(kernel, device),
            patch_bias,
            positions,
            blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }

    /// `pixels`: `[1, 3, height, width]`, whole tokens along each side.
    pub(super) fn forward(&self, pixels: Tensor<4>) -> TowerOutput {
        let [_, _, height, width] = pixels.dims();
        let QwenVisionConfig { patch_size: patch, merge_size: merge, .. } = self.config;
        let grid = PatchGrid { rows: height / patch, columns: width / patch, merge };
        assert!(
            height % (patch * merge) == 0 && width % (patch * merge) == 0,
            "the image tower takes images in squares of {} pixels, got {width}×{height}",
            patch * merge
        );
        let (window, full_layers, deep_layers) = match &self.config.generation {
            QwenGeneration::Qwen2_5 { window_size, full_layers } => {
                (Some(window_size / patch / merge), full_layers.as_slice(), [].as_slice())
            }
            QwenGeneration::Qwen3 { deep_layers, .. } => {
                (None, [].as_slice(), deep_layers.as_slice())
            }
        };
        let order = grid.order(window);
        let mut x = self.embed(pixels, grid, &order);
        let half = self.config.hidden_size / self.config.num_attention_heads / 2;
        let angles = order.angles(self.config.rope_theta, half);
        let rotary = RotaryAngles::new(angles, 1, &x.device());
        let around = Surroundings { rotary, windows: order.windows };
        let mut deep = Vec::with_capacity(deep_layers.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let windowed = window.is_some() && !full_layers.contains(&index);
            x = block.forward(x, &around, windowed);
            if deep_layers.contains(&index) {
                deep.push(x.clone());
            }
        }
        TowerOutput { grid, states: x, deep, tokens: order.tokens }
    }

    /// Embedded patches with what their places add, `[patches, width]`. The frames of an image are all the same, so that their
    /// kernels are added up.
    fn embed(&self, pixels: Tensor<4>, grid: PatchGrid, order: &PatchOrder) -> Tensor<2> {
        let PatchGrid { rows, columns, .. } = grid;
        let [width, channels, _, patch, _] = self.patch_embedding.dims();
        let inputs = channels * patch * patch;
        let device = pixels.device();
        let patches = pixels
            .reshape([channels, rows, patch, columns, patch])
            .permute([1, 3, 0, 2, 4])
            .reshape([rows * columns, inputs])
            .select(0, indices(order.row_by_row(columns), &device));
        let kernel = self.patch_embedding.clone().sum_dim(2).reshape([width, inputs]);
        let mut x = product(patches, &kernel);
        if let Some(bias) = &self.patch_bias {
            x = x + bias.clone().unsqueeze();
        }
        let (Some(table), QwenGeneration::Qwen3 { position_side, .. }) =
            (&self.positions, &self.config.generation)
        else {
            return x;
        };
        for (entries, weights) in order.table_taps(grid, *position_side) {
            let count = weights.len();
            let weights = from_floats(weights, [count, 1], &device);
            x = x + table.forward(indices(entries, &device)) * weights;
        }
        x
    }

    pub(super) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        for (index, block) in self.blocks.iter_mut().enumerate() {
            block.visit_linears_mut(&format!("{prefix}.blocks.{index}"), visitor);
        }
    }
}

impl Parameters for Tower {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let kernel = ParameterMut::Volume(&mut self.patch_embedding);
        visitor(&format!("{prefix}.{KERNEL}"), kernel);
        if let Some(bias) = &mut self.patch_bias {
            visitor(&format!("{prefix}.{BIAS}"), ParameterMut::Vector(bias));
        }
        if let Some(positions) = &mut self.positions {
            positions.visit_mut(&format!("{prefix}.{POSITIONS}"), visitor);
        }
        for (index, block) in self.blocks.iter_mut().enumerate() {
            block.visit_mut(&format!("{prefix}.blocks.{index}"), visitor);
        }
    }
}
