//! LoRA (Hu et al. 2021, arXiv 2106.09685): two thin products beside a matrix, which is not changed.

use crate::{Arena, Buffer, CudaError, DecoderConfig, Driver, Matrix, Product, Storage};

/// A linear layer of a decoder's layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdapterTarget {
    /// `self_attn.q_proj`
    Query,
    /// `self_attn.k_proj`
    Key,
    /// `self_attn.v_proj`
    Value,
    /// `self_attn.o_proj`
    Output,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

/// The low-rank path of one linear layer: `y += scale · (x Aᵀ) Bᵀ`.
#[derive(Debug, Clone, Copy)]
pub struct AdapterWeights<'a> {
    /// Which layer.
    pub layer: usize,
    /// Which of its linear layers.
    pub target: AdapterTarget,
    /// A, `[rank, in]`.
    pub a: &'a [f32],
    /// B, `[out, rank]`.
    pub b: &'a [f32],
    /// Factor on the path.
    pub scale: f32,
}

/// Paths beside one fused matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FusedAdapter {
    /// A of all paths, one below the other, `[Σ rank, in]`.
    a: Option<Buffer>,
    inputs: usize,
    ranks: usize,
    paths: Vec<Path>,
}

/// One path's B, and the columns that it adds to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Path {
    target: AdapterTarget,
    b: Buffer,
    rank: usize,
    first_rank: usize,
    first_column: usize,
    columns: usize,
    scale: f32,
}

/// The paths of one layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LayerAdapter {
    pub(crate) query_key_value: FusedAdapter,
    pub(crate) output: FusedAdapter,
    pub(crate) gate_up: FusedAdapter,
    pub(crate) down: FusedAdapter,
}

/// All paths of a decoder, in memory of their own.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub(crate) memory: Buffer,
    pub(crate) layers: Vec<LayerAdapter>,
}

impl AdapterTarget {
    /// Inputs, first column in the fused matrix, and columns.
    fn place(self, config: &DecoderConfig) -> [usize; 3] {
        let DecoderConfig { hidden, intermediate: inner, heads, .. } = *config;
        let (queries, keys) = (heads.queries(), heads.keys());
        match self {
            Self::Query => [hidden, 0, queries],
            Self::Key => [hidden, queries, keys],
            Self::Value => [hidden, queries + keys, keys],
            Self::Output => [queries, 0, hidden],
            Self::Gate => [hidden, 0, inner],
            Self::Up => [hidden, inner, inner],
            Self::Down => [inner, 0, hidden],
        }
    }
}

impl LayerAdapter {
    /// In the order of their targets.
    pub(crate) fn all(&self) -> [&FusedAdapter; 4] {
        [&self.query_key_value, &self.output, &self.gate_up, &self.down]
    }

    fn fused(&mut self, target: AdapterTarget) -> &mut FusedAdapter {
        match target {
            AdapterTarget::Query | AdapterTarget::Key | AdapterTarget::Value => {
                &mut self.query_key_value
            }
            AdapterTarget::Output => &mut self.output,
            AdapterTarget::Gate | AdapterTarget::Up => &mut self.gate_up,
            AdapterTarget::Down => &mut self.down,
        }
    }
}

impl Adapter {
    /// Uploads all paths, rounded to the decoder's type: to the places of those of `before`, where they are of the same shapes.
    pub(crate) fn upload(
        driver: &mut dyn Driver,
        config: &DecoderConfig,
        weights: &[AdapterWeights<'_>],
        before: Option<Self>,
    ) -> Result<Self, CudaError> {
        let mut sorted: Vec<&AdapterWeights<'_>> = weights.iter().collect();
        sorted.sort_by_key(|of| (of.layer, of.target));
        let mut counting = Arena::counting();
        Self::lay_out(&mut counting, config, &sorted)?;
        let memory = match before {
            Some(before) if before.memory.bytes() == counting.used() => before.memory,
            Some(before) => {
                driver.release(before.memory)?;
                driver.reserve(counting.used())?
            }
            None => driver.reserve(counting.used())?,
        };
        let (layers, places) = Self::lay_out(&mut Arena::within(memory), config, &sorted)?;
        for (of, [a, b]) in sorted.iter().zip(places) {
            driver.upload(a, &config.storage.narrowed(of.a))?;
            driver.upload(b, &config.storage.narrowed(of.b))?;
        }
        Ok(Self { memory, layers })
    }

    /// Gives each path its place; those of A and B in the order of `sorted`.
    fn lay_out(
        arena: &mut Arena,
        config: &DecoderConfig,
        sorted: &[&AdapterWeights<'_>],
    ) -> Result<(Vec<LayerAdapter>, Vec<[Buffer; 2]>), CudaError> {
        let element = config.storage.bytes();
        let mut layers = vec![LayerAdapter::default(); config.layers];
        for of in sorted {
            let [inputs, first_column, columns] = of.target.place(config);
            let rank = of.a.len() / inputs;
            let wrong = |problem: String| CudaError::Weight {
                name: format!("adapter of layer {}, {:?}", of.layer, of.target),
                problem,
            };
            if rank == 0 || of.a.len() != rank * inputs || of.b.len() != columns * rank {
                return Err(wrong(format!(
                    "A has {} numbers and B has {}, for {inputs} inputs and {columns} outputs",
                    of.a.len(),
                    of.b.len()
                )));
            }
            let layer = layers.get_mut(of.layer);
            let layer = layer.ok_or_else(|| wrong(format!("there are {}", config.layers)))?;
            let fused = layer.fused(of.target);
            if fused.paths.iter().any(|path| path.first_column == first_column) {
                return Err(wrong("it is there twice".to_owned()));
            }
            let b = arena.take(of.b.len() * element);
            let (first_rank, scale) = (fused.ranks, of.scale);
            let target = of.target;
            fused.paths.push(Path { target, b, rank, first_rank, first_column, columns, scale });
            fused.ranks += rank;
            fused.inputs = inputs;
        }
        for layer in &mut layers {
            let all = [&mut layer.query_key_value, &mut layer.output, &mut layer.gate_up];
            for fused in all.into_iter().chain([&mut layer.down]) {
                if fused.ranks > 0 {
                    fused.a = Some(arena.take(fused.ranks * fused.inputs * element));
                }
            }
        }
        let mut seen = vec![[0_usize; 4]; config.layers];
        let places = sorted.iter().map(|of| {
            let group = match of.target {
                AdapterTarget::Query | AdapterTarget::Key | AdapterTarget::Value => 0,
                AdapterTarget::Output => 1,
                AdapterTarget::Gate | AdapterTarget::Up => 2,
                AdapterTarget::Down => 3,
            };
            let index = seen[of.layer][group];
            seen[of.layer][group] += 1;
            let fused = layers[of.layer].fused(of.target);
            let path = fused.paths[index];
            let a = fused.a.expect("a path has a rank");
            let row = fused.inputs * element;
            [a.slice(path.first_rank * row, path.rank * row), path.b]
        });
        let places = places.collect();
        Ok((layers, places))
    }

    /// Most ranks beside one fused matrix.
    pub(crate) fn ranks(&self) -> usize {
        let of = |layer: &LayerAdapter| layer.all().into_iter().map(|fused| fused.ranks).max();
        self.layers.iter().filter_map(of).max().unwrap_or(0)
    }
}

impl FusedAdapter {
    /// Adds the paths of `x`, `[rows, in]`, to `out`; `low` is scratch for `[rows, Σ rank]`.
    pub(crate) fn add(
        &self,
        driver: &mut dyn Driver,
        storage: Storage,
        x: Matrix,
        low: Buffer,
        out: Matrix,
    ) -> Result<(), CudaError> {
        let Some(a) = self.a else { return Ok(()) };
        let rows = x.rows;
        let low = Matrix::new(low, storage, [rows, self.ranks]);
        let a = Matrix::new(a, storage, [self.ranks, self.inputs]).transposed();
        driver.product(&Product { a: x, b: a, out: low, scale: 1.0, accumulate: false })?;
        for path in &self.paths {
            let b = Matrix::new(path.b, storage, [path.columns, path.rank]).transposed();
            driver.product(&Product {
                a: low.columns(path.first_rank, path.rank),
                b,
                out: out.columns(path.first_column, path.columns),
                scale: path.scale,
                accumulate: true,
            })?;
        }
        Ok(())
    }
}

/// Gradients of the paths beside one fused matrix, f32.
#[derive(Debug, Clone)]
pub(crate) struct FusedGradients {
    /// `[Σ rank, in]`
    a: Buffer,
    /// Of each path, `[columns, rank]`.
    b: Vec<Buffer>,
}

/// The gradient of one path.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterGradient {
    /// Which layer.
    pub layer: usize,
    /// Which of its linear layers.
    pub target: AdapterTarget,
    /// Of A, `[rank, in]`.
    pub a: Vec<f32>,
    /// Of B, `[out, rank]`.
    pub b: Vec<f32>,
}

/// Scratch of a backward pass, `[rows, Σ rank]` each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LowRankScratch {
    pub(crate) low: Buffer,
    pub(crate) by_low: Buffer,
}

impl FusedAdapter {
    /// Gradients of A and B of every path.
    fn gradient_matrices(&self, gradients: &FusedGradients) -> Vec<Buffer> {
        let row = self.inputs * size_of::<f32>();
        let part = |path: &Path| gradients.a.slice(path.first_rank * row, path.rank * row);
        let paths = self.paths.iter().zip(&gradients.b);
        paths.flat_map(|(path, &b)| [part(path), b]).collect()
    }

    /// Places for gradients.
    pub(crate) fn gradients(&self, arena: &mut Arena) -> FusedGradients {
        let mut take = |count: usize| arena.take(count * size_of::<f32>());
        FusedGradients {
            a: take(self.ranks * self.inputs),
            b: self.paths.iter().map(|path| take(path.columns * path.rank)).collect(),
        }
    }

    /// Adds the gradients of A and B, and adds that of `x` to `by_x`, which is as `x`. `by_out` is `[rows, columns]`, as the result;
    /// gradients of A and B are multiplied by `unscale`.
    pub(crate) fn backward(
        &self,
        driver: &mut dyn Driver,
        storage: Storage,
        [x, by_out, by_x]: [Matrix; 3],
        scratch: LowRankScratch,
        gradients: &FusedGradients,
        unscale: f32,
    ) -> Result<(), CudaError> {
        let Some(a) = self.a else { return Ok(()) };
        let low_rank = |buffer| Matrix::new(buffer, storage, [x.rows, self.ranks]);
        let (low, by_low) = (low_rank(scratch.low), low_rank(scratch.by_low));
        let a = Matrix::new(a, storage, [self.ranks, self.inputs]);
        let product = |a: Matrix, b: Matrix, out: Matrix| Product {
            a,
            b,
            out,
            scale: 1.0,
            accumulate: false,
        };
        driver.product(&product(x, a.transposed(), low))?;
        for (path, &by_b) in self.paths.iter().zip(&gradients.b) {
            let by_columns = by_out.columns(path.first_column, path.columns);
            let b = Matrix::new(path.b, storage, [path.columns, path.rank]);
            let by_part = by_low.columns(path.first_rank, path.rank);
            driver.product(&Product { scale: path.scale, ..product(by_columns, b, by_part) })?;
            let part = low.columns(path.first_rank, path.rank);
            let to = Matrix::new(by_b, Storage::F32, [path.columns, path.rank]);
            let by_b = product(by_columns.transposed(), part, to);
            let scale = path.scale * unscale;
            driver.product(&Product { scale, accumulate: true, ..by_b })?;
        }
        let to = Matrix::new(gradients.a, Storage::F32, [self.ranks, self.inputs]);
        let by_a = product(by_low.transposed(), x, to);
        driver.product(&Product { scale: unscale, accumulate: true, ..by_a })?;
        driver.product(&Product { accumulate: true, ..product(by_low, a, by_x) })
    }

    /// Copies gradients from the card.
    pub(crate) fn download(
        &self,
        driver: &mut dyn Driver,
        layer: usize,
        gradients: &FusedGradients,
        found: &mut Vec<AdapterGradient>,
    ) -> Result<(), CudaError> {
        let matrices = self.gradient_matrices(gradients);
        for (path, pair) in self.paths.iter().zip(matrices.chunks_exact(2)) {
            let mut a = vec![0.0_f32; path.rank * self.inputs];
            let mut b = vec![0.0_f32; path.columns * path.rank];
            driver.download(pair[0], bytemuck::cast_slice_mut(&mut a))?;
            driver.download(pair[1], bytemuck::cast_slice_mut(&mut b))?;
            found.push(AdapterGradient { layer, target: path.target, a, b });
        }
        Ok(())
    }
}
