//! SigLIP's pooling of an image (`fisao-models/src/siglip/pooling.rs`): attention of one learned query to all positions, and a feed-forward
//! part behind it.

use crate::arena::{FEWER_IMAGES, with_reserved};
use crate::kernels::{
    Appended, Gelu, HeadTransforms, Heads, Rotary, Rows, add_bias, cross_attention, gather_rows,
    gelu, layer_norm, narrow, rotary_append,
};
use crate::source::compiled_head_size;
use crate::weights::{OnCard, Upload, WeightSource, filled};
use crate::{Arena, Buffer, CudaError, Driver, Matrix, Product, Storage};

/// Positions that are on the card at a time, where an image has no more.
const AT_ONCE: usize = 8192;

/// Sizes of a pooling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolingConfig {
    /// Element type of matrices and activations; input and output are f32.
    pub storage: Storage,
    /// Model width.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of attention heads; divides the width.
    pub heads: usize,
    /// ε of the layer norm.
    pub epsilon: f32,
    /// Non-linearity of the feed-forward part.
    pub activation: Gelu,
}

/// A matrix, `[out, in]`, and a vector, `[out]` f32.
type Linear = [Buffer; 2];

/// Where all weights lie.
#[derive(Debug, Clone, Copy)]
struct Weights {
    /// The query before its projection, `[1, hidden]` f32.
    probe: Buffer,
    /// Queries, keys and values one below the other: `[3 · hidden, hidden]`.
    input: Linear,
    output: Linear,
    norm: [Buffer; 2],
    fc1: Linear,
    fc2: Linear,
}

/// A pooling whose weights are on a card.
#[derive(Debug)]
pub struct Pooling {
    config: PoolingConfig,
    memory: Buffer,
    weights: Weights,
}

impl PoolingConfig {
    fn take_weights(&self, arena: &mut Arena) -> Weights {
        let (width, inner, float) = (self.hidden, self.intermediate, size_of::<f32>());
        let element = self.storage.bytes();
        let mut linear = |inputs: usize, outputs: usize| {
            [arena.take(inputs * outputs * element), arena.take(outputs * float)]
        };
        let (input, output) = (linear(width, 3 * width), linear(width, width));
        let (fc1, fc2) = (linear(width, inner), linear(inner, width));
        let norm = [(); 2].map(|()| arena.take(width * float));
        Weights { probe: arena.take(width * float), input, output, norm, fc1, fc2 }
    }

    /// Bytes of the weights on a card.
    pub fn weight_bytes(&self) -> usize {
        let mut arena = Arena::counting();
        self.take_weights(&mut arena);
        arena.used()
    }

    /// Bytes of the arena that images of so many positions need beside the weights.
    pub fn bytes(&self, [images, positions]: [usize; 2]) -> usize {
        let mut arena = Arena::counting();
        Activations::take(&mut arena, self, [at_once(images, positions), positions]);
        arena.used()
    }
}

/// How many images are on the card at a time.
fn at_once(images: usize, positions: usize) -> usize {
    images.min((AT_ONCE / positions.max(1)).max(1))
}

/// Memory for some images.
#[derive(Clone, Copy)]
struct Activations {
    /// States, later what is pooled of them, `[images · positions, hidden]` f32.
    wide: Buffer,
    /// States, `[images · positions, hidden]`; later the feed-forward part's, `[images, hidden]`.
    narrow: Buffer,
    /// `[images · positions, 2 · hidden]`
    projected: Buffer,
    /// Keys and values, `[images, heads, positions, size]`.
    caches: [Buffer; 2],
    /// Queries as they are projected, and as attention reads them, `[images, hidden]`.
    queries: [Buffer; 2],
    /// `[images, hidden]`
    mixed: Buffer,
    /// `[images, intermediate]`
    inner: Buffer,
    /// No rotation: one position's cosines of 1 and sines of 0, `[1, size / 2, 2]` f32.
    angles: Buffer,
    /// Zeros, `[images · positions]` i32.
    zeros: Buffer,
}

impl Activations {
    fn take(arena: &mut Arena, config: &PoolingConfig, [images, positions]: [usize; 2]) -> Self {
        let (width, rows) = (config.hidden, images * positions);
        let wide = arena.take(rows * width * size_of::<f32>());
        let mut take =
            |rows: usize, width: usize| arena.take(rows * width * config.storage.bytes());
        Self {
            wide,
            narrow: take(rows, width),
            projected: take(rows, 2 * width),
            caches: [(); 2].map(|()| take(rows, width)),
            queries: [(); 2].map(|()| take(images, width)),
            mixed: take(images, width),
            inner: take(images, config.intermediate),
            angles: arena.take(width / config.heads * size_of::<f32>()),
            zeros: arena.take(rows * size_of::<i32>()),
        }
    }
}

impl OnCard for Pooling {
    type Config = PoolingConfig;

    /// Uploads `{prefix}.probe`, `{prefix}.attention.*`, `{prefix}.layernorm.*` and `{prefix}.mlp.*`.
    fn load(
        driver: &mut dyn Driver,
        config: PoolingConfig,
        source: &mut dyn WeightSource,
        prefix: &str,
    ) -> Result<Self, CudaError> {
        compiled_head_size(config.hidden / config.heads)?;
        let needed = ("the pooling's weights", config.weight_bytes());
        let place = |memory| {
            let weights = config.take_weights(&mut Arena::within(memory));
            Self { config, memory, weights }
        };
        filled(driver, needed, place, |pooling, driver| {
            pooling.upload(&mut Upload { driver, source }, prefix)
        })
    }

    fn memory(&self) -> Buffer {
        self.memory
    }
}

impl Pooling {
    /// Sizes.
    pub fn config(&self) -> &PoolingConfig {
        &self.config
    }

    fn upload(&self, upload: &mut Upload<'_>, prefix: &str) -> Result<(), CudaError> {
        let PoolingConfig { storage, hidden: width, intermediate: inner, .. } = self.config;
        let Weights { probe, input, output, norm, fc1, fc2 } = self.weights;
        let name = |part: &str| format!("{prefix}.{part}");
        upload.tensors(probe, Storage::F32, &[(name("probe"), &[1, width][..])])?;
        for (to, weight, bias, [inputs, outputs]) in [
            (input, "attention.in_proj_weight", "attention.in_proj_bias", [width, 3 * width]),
            (output, "attention.out_proj.weight", "attention.out_proj.bias", [width, width]),
            (fc1, "mlp.fc1.weight", "mlp.fc1.bias", [width, inner]),
            (fc2, "mlp.fc2.weight", "mlp.fc2.bias", [inner, width]),
        ] {
            upload.tensors(to[0], storage, &[(name(weight), &[outputs, inputs][..])])?;
            upload.tensors(to[1], Storage::F32, &[(name(bias), &[outputs][..])])?;
        }
        for (to, part) in norm.into_iter().zip(["layernorm.weight", "layernorm.bias"]) {
            upload.tensors(to, Storage::F32, &[(name(part), &[width][..])])?;
        }
        Ok(())
    }

    /// `[images · positions, hidden]` → `[images, hidden]`, some thousand positions at a time.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, and those of the driver.
    ///
    /// # Panics
    /// When the states have no whole number of images.
    pub fn forward(
        &self,
        driver: &mut dyn Driver,
        states: &[f32],
        positions: usize,
    ) -> Result<Vec<f32>, CudaError> {
        let each = positions * self.config.hidden;
        assert!(states.len().is_multiple_of(each), "images of {positions} positions");
        let images = states.len() / each;
        let bytes = self.config.bytes([images, positions]);
        with_reserved(driver, "pooled images", bytes, FEWER_IMAGES, |driver, arena| {
            let images = at_once(images, positions);
            let memory = Activations::take(arena, &self.config, [images, positions]);
            let parts = states.chunks((images * each).max(1));
            let parts = parts.map(|states| self.run(driver, &memory, states, positions));
            Ok(parts.collect::<Result<Vec<_>, _>>()?.concat())
        })
    }

    fn run(
        &self,
        driver: &mut dyn Driver,
        memory: &Activations,
        states: &[f32],
        positions: usize,
    ) -> Result<Vec<f32>, CudaError> {
        let PoolingConfig { storage, hidden: width, epsilon, activation, .. } = self.config;
        let (rows, images) = (states.len() / width, states.len() / width / positions);
        let Activations { wide, narrow: narrowed, mixed, inner, .. } = *memory;
        driver.upload(wide, bytemuck::cast_slice(states))?;
        narrow(driver, storage, [wide, narrowed], states.len())?;
        self.attend(driver, memory, [rows, images, positions])?;

        let size = Rows { rows: images, width };
        let matrix = |buffer: Buffer, width: usize| Matrix::new(buffer, storage, [images, width]);
        let stream = Matrix::new(wide, Storage::F32, [images, width]);
        let [weight, bias] = self.weights.output;
        self.product(driver, matrix(mixed, width), weight, stream, false)?;
        add_bias(driver, [wide, bias], size)?;
        let [norm_weight, norm_bias] = self.weights.norm;
        let buffers = [wide, Buffer::NULL, norm_weight, norm_bias, narrowed];
        layer_norm(driver, storage, buffers, size, epsilon)?;
        let [weight, bias] = self.weights.fc1;
        let inner_width = self.config.intermediate;
        self.product(driver, matrix(narrowed, width), weight, matrix(inner, inner_width), false)?;
        let inner_size = Rows { rows: images, width: inner_width };
        gelu(driver, storage, [inner, bias], inner_size, activation)?;
        let [weight, bias] = self.weights.fc2;
        self.product(driver, matrix(inner, inner_width), weight, stream, true)?;
        add_bias(driver, [wide, bias], size)?;
        let mut pooled = vec![0.0_f32; images * width];
        driver.download(wide, bytemuck::cast_slice_mut(&mut pooled))?;
        Ok(pooled)
    }

    /// What the query takes of each image's states, to `mixed`.
    fn attend(
        &self,
        driver: &mut dyn Driver,
        memory: &Activations,
        [rows, images, positions]: [usize; 3],
    ) -> Result<(), CudaError> {
        let PoolingConfig { storage, hidden: width, heads, .. } = self.config;
        let Activations { wide, narrow: narrowed, projected, mixed, zeros, angles, .. } = *memory;
        let [keys, values] = memory.caches;
        let [query_rows, queries] = memory.queries;
        let size = width / heads;
        driver.clear(zeros)?;
        let unturned = [1.0_f32, 0.0].repeat(size / 2);
        driver.upload(angles, bytemuck::cast_slice(&unturned))?;
        let split = |driver: &mut dyn Driver, from, bias, heads, rows, positions| {
            let (query_norm, key_norm) = (Buffer::NULL, Buffer::NULL);
            let transforms = HeadTransforms { bias, query_norm, key_norm, epsilon: 0.0 };
            let (table, axis) = (angles, Buffer::NULL);
            let rotary = Rotary { rows, table, positions: zeros, axis, axes: 1 };
            let filled = Buffer::NULL;
            let to = Appended { keys, values, filled, capacity: positions, length: positions };
            rotary_append(driver, storage, from, heads, &transforms, &rotary, &to)
        };
        let [weight, bias] = self.weights.input;
        let (element, float) = (storage.bytes(), size_of::<f32>());
        let third = width * width * element;
        let key_value = weight.slice(third, 2 * third);
        let states = Matrix::new(narrowed, storage, [rows, width]);
        let out = Matrix::new(projected, storage, [rows, 2 * width]);
        self.product(driver, states, key_value, out, false)?;
        let of_image = Heads { heads: 0, key_heads: heads, size };
        let key_value_bias = bias.slice(width * float, 2 * width * float);
        let from = [projected, Buffer::NULL];
        split(driver, from, key_value_bias, of_image, rows, positions)?;

        // The states are not needed any more: the query for each image takes their place.
        let each = Rows { rows: images, width };
        gather_rows(driver, [self.weights.probe, zeros, wide], each)?;
        narrow(driver, storage, [wide, narrowed], images * width)?;
        let probes = Matrix::new(narrowed, storage, [images, width]);
        let out = Matrix::new(query_rows, storage, [images, width]);
        self.product(driver, probes, weight.slice(0, third), out, false)?;
        let own = Heads { heads, key_heads: 0, size };
        split(driver, [query_rows, queries], bias.slice(0, width * float), own, images, 1)?;
        let all = Heads { heads, key_heads: heads, size };
        let buffers = [queries, keys, values, mixed, zeros];
        cross_attention(driver, storage, buffers, all, [images, 1, positions])
    }

    /// `out = a Wᵀ`, or added to what is there.
    fn product(
        &self,
        driver: &mut dyn Driver,
        a: Matrix,
        weight: Buffer,
        out: Matrix,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        let b = Matrix::new(weight, self.config.storage, [out.columns, a.columns]).transposed();
        driver.product(&Product { a, b, out, scale: 1.0, accumulate })
    }
}
