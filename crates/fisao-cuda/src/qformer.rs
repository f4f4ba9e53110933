//! The Q-Former of BLIP-2 and InstructBLIP (`fisao-models/src/qformer.rs`): post-norm layers in which queries and text attend to each other,
//! queries of some layers to an image, and either has a feed-forward part of its own.
//!
//! Rows of all queries come first in memory and those of all texts behind them, so that what both share is one product.

use std::ops::Range;

use crate::arena::{FEWER_IMAGES, with_reserved};
use crate::kernels::{
    Appended, Gelu, HeadTransforms, Heads, Rotary, Rows, add_bias, cross_attention, gelu,
    layer_norm, narrow, rotary_append,
};
use crate::source::compiled_head_size;
use crate::weights::{OnCard, Upload, WeightSource, filled};
use crate::{Arena, Buffer, CudaError, Driver, Matrix, Product, Storage};

/// Sizes of a Q-Former.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QFormerConfig {
    /// Element type of matrices and activations. The residual stream is f32.
    pub storage: Storage,
    /// Model width.
    pub hidden: usize,
    /// Width inside the feed-forward parts.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of attention heads; divides the width.
    pub heads: usize,
    /// Every so many layers one attends to the image, the first of them included.
    pub cross_attention_frequency: usize,
    /// Width of the image's states.
    pub image_width: usize,
    /// ε of the layer norms.
    pub epsilon: f32,
    /// Non-linearity of the feed-forward parts.
    pub activation: Gelu,
}

/// What a batch consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QFormerBatch {
    /// Number of images, or of texts where there are no queries.
    pub batch: usize,
    /// Queries of each.
    pub queries: usize,
    /// Length of each text.
    pub text: usize,
    /// Positions of each image; none is read where there are no queries.
    pub positions: usize,
}

impl QFormerBatch {
    fn rows(&self) -> usize {
        self.batch * (self.queries + self.text)
    }
}

/// A layer norm: weight and bias, `[width]` f32.
type Norm = [Buffer; 2];
/// A linear layer: `[out, in]`, and `[out]` f32.
type Linear = [Buffer; 2];

/// Attention, the layer behind it, and the norm behind that.
#[derive(Debug, Clone, Copy)]
struct Attention {
    /// Of those that attend to themselves with keys and values, else alone.
    query: Linear,
    /// Keys and values of an image; null where a layer attends to itself.
    key_value: Linear,
    output: Linear,
    norm: Norm,
}

#[derive(Debug, Clone, Copy)]
struct FeedForward {
    inner: Linear,
    outer: Linear,
    norm: Norm,
}

#[derive(Debug, Clone, Copy)]
struct Layer {
    attention: Attention,
    cross: Option<Attention>,
    query: FeedForward,
    text: FeedForward,
}

/// A Q-Former whose weights are on a card.
#[derive(Debug)]
pub struct QFormer {
    config: QFormerConfig,
    memory: Buffer,
    layers: Vec<Layer>,
}

impl QFormerConfig {
    fn crosses(&self, layer: usize) -> bool {
        layer.is_multiple_of(self.cross_attention_frequency)
    }

    fn take_layers(&self, arena: &mut Arena) -> Vec<Layer> {
        let (width, inner, float) = (self.hidden, self.intermediate, size_of::<f32>());
        let element = self.storage.bytes();
        let linear = |arena: &mut Arena, inputs: usize, outputs: usize| {
            [arena.take(inputs * outputs * element), arena.take(outputs * float)]
        };
        let norm = |arena: &mut Arena| [(); 2].map(|()| arena.take(width * float));
        let feed_forward = |arena: &mut Arena| FeedForward {
            inner: linear(arena, width, inner),
            outer: linear(arena, inner, width),
            norm: norm(arena),
        };
        let layer = |index: usize| Layer {
            attention: Attention {
                query: linear(arena, width, 3 * width),
                key_value: [Buffer::NULL; 2],
                output: linear(arena, width, width),
                norm: norm(arena),
            },
            cross: self.crosses(index).then(|| Attention {
                query: linear(arena, width, width),
                key_value: linear(arena, self.image_width, 2 * width),
                output: linear(arena, width, width),
                norm: norm(arena),
            }),
            query: feed_forward(arena),
            text: feed_forward(arena),
        };
        (0..self.layers).map(layer).collect()
    }

    /// Bytes of the weights on a card.
    pub fn weight_bytes(&self) -> usize {
        let mut arena = Arena::counting();
        self.take_layers(&mut arena);
        arena.used()
    }

    /// Bytes of the arena that a batch needs beside the weights.
    pub fn bytes(&self, batch: &QFormerBatch) -> usize {
        let mut arena = Arena::counting();
        Activations::take(&mut arena, self, batch);
        arena.used()
    }
}

/// Memory for a batch.
#[derive(Clone, Copy)]
struct Activations {
    /// The residual stream, `[rows, width]` f32.
    x: Buffer,
    /// The same in the storage type.
    narrow: Buffer,
    /// `[rows, 3 · width]`
    projected: Buffer,
    /// `[rows, width]`
    queries: Buffer,
    /// `[rows, width]`
    mixed: Buffer,
    /// Keys and values of queries and texts, `[batch, heads, length, size]`.
    own: [Buffer; 2],
    /// `[rows, intermediate]`
    inner: Buffer,
    /// The image, `[batch · positions, image width]` f32, and in the storage type.
    image: [Buffer; 2],
    /// `[batch · positions, 2 · width]`
    image_projected: Buffer,
    /// Keys and values of images, `[batch, heads, positions, size]`.
    seen: [Buffer; 2],
    /// No rotation: one position's cosines of 1 and sines of 0, `[1, size / 2, 2]` f32.
    angles: Buffer,
    /// Zeros, `[rows or image rows]` i32.
    zeros: Buffer,
    /// How many queries stand before a text, `[batch]` i32.
    before: Buffer,
}

impl Activations {
    fn take(arena: &mut Arena, config: &QFormerConfig, batch: &QFormerBatch) -> Self {
        let (float, int, element) = (size_of::<f32>(), size_of::<i32>(), config.storage.bytes());
        let rows = batch.rows();
        let seen = if batch.queries == 0 { 0 } else { batch.batch * batch.positions };
        let (x, wide) = (
            arena.take(rows * config.hidden * float),
            arena.take(seen * config.image_width * float),
        );
        let mut take = |rows: usize, width: usize| arena.take(rows * width * element);
        let width = config.hidden;
        Self {
            x,
            narrow: take(rows, width),
            projected: take(rows, 3 * width),
            queries: take(rows, width),
            mixed: take(rows, width),
            own: [(); 2].map(|()| take(rows, width)),
            inner: take(rows, config.intermediate),
            image: [wide, take(seen, config.image_width)],
            image_projected: take(seen, 2 * width),
            seen: [(); 2].map(|()| take(seen, width)),
            angles: arena.take(width / config.heads * float),
            zeros: arena.take(rows.max(seen) * int),
            before: arena.take(batch.batch * int),
        }
    }
}

impl OnCard for QFormer {
    type Config = QFormerConfig;

    /// Uploads `{prefix}.encoder.layer.N.*`.
    fn load(
        driver: &mut dyn Driver,
        config: QFormerConfig,
        source: &mut dyn WeightSource,
        prefix: &str,
    ) -> Result<Self, CudaError> {
        compiled_head_size(config.hidden / config.heads)?;
        let needed = ("the Q-Former's weights", config.weight_bytes());
        let place = |memory| {
            let layers = config.take_layers(&mut Arena::within(memory));
            Self { config, memory, layers }
        };
        filled(driver, needed, place, |qformer, driver| {
            qformer.upload(&mut Upload { driver, source }, prefix)
        })
    }

    fn memory(&self) -> Buffer {
        self.memory
    }
}

impl QFormer {
    /// Sizes.
    pub fn config(&self) -> &QFormerConfig {
        &self.config
    }

    fn upload(&self, upload: &mut Upload<'_>, prefix: &str) -> Result<(), CudaError> {
        let QFormerConfig { storage, hidden: width, intermediate, image_width, .. } = self.config;
        for (index, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("{prefix}.encoder.layer.{index}.{part}");
            // A linear layer whose rows come from matrices of one size, one below the other.
            let mut linear = |to: Linear, parts: &[String], [inputs, outputs]: [usize; 2]| {
                let (matrix, vector) = ([outputs, inputs], [outputs]);
                let weights = parts.iter().map(|part| (format!("{part}.weight"), &matrix[..]));
                upload.tensors(to[0], storage, &weights.collect::<Vec<_>>())?;
                let biases = parts.iter().map(|part| (format!("{part}.bias"), &vector[..]));
                upload.tensors(to[1], Storage::F32, &biases.collect::<Vec<_>>())
            };
            let mut norms = Vec::new();
            for (attention, part) in
                [(Some(layer.attention), "attention"), (layer.cross, "crossattention")]
            {
                let Some(attention) = attention else { continue };
                let [query, key, value] =
                    ["query", "key", "value"].map(|of| name(&format!("{part}.attention.{of}")));
                if attention.key_value[0] == Buffer::NULL {
                    linear(attention.query, &[query, key, value], [width, width])?;
                } else {
                    linear(attention.query, &[query], [width, width])?;
                    linear(attention.key_value, &[key, value], [image_width, width])?;
                }
                let output = name(&format!("{part}.output"));
                linear(attention.output, &[format!("{output}.dense")], [width, width])?;
                norms.push((attention.norm, output));
            }
            for (part, inner, outer) in [
                (layer.query, "intermediate_query", "output_query"),
                (layer.text, "intermediate", "output"),
            ] {
                let [inner, outer] = [name(inner), name(outer)];
                linear(part.inner, &[format!("{inner}.dense")], [width, intermediate])?;
                linear(part.outer, &[format!("{outer}.dense")], [intermediate, width])?;
                norms.push((part.norm, outer));
            }
            for (norm, of) in norms {
                for (to, kind) in norm.into_iter().zip(["weight", "bias"]) {
                    let name = format!("{of}.LayerNorm.{kind}");
                    upload.tensors(to, Storage::F32, &[(name, &[width][..])])?;
                }
            }
        }
        Ok(())
    }

    /// Runs all layers: states of queries and of texts, in the shapes of what is given.
    ///
    /// # Shapes
    /// * `queries`: `[batch · queries, hidden]`, `text`: `[batch · text, hidden]`, embedded and normed
    /// * `image`: `[batch · positions, image width]`; not read where there are no queries
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, and those of the driver.
    ///
    /// # Panics
    /// When lengths do not fit the batch.
    pub fn forward(
        &self,
        driver: &mut dyn Driver,
        [queries, text, image]: [&[f32]; 3],
        batch: &QFormerBatch,
    ) -> Result<[Vec<f32>; 2], CudaError> {
        let (width, each) = (self.config.hidden, batch.batch);
        assert_eq!(queries.len(), each * batch.queries * width, "rows of queries");
        assert_eq!(text.len(), each * batch.text * width, "rows of texts");
        let bytes = self.config.bytes(batch);
        with_reserved(driver, "the Q-Former's images", bytes, FEWER_IMAGES, |driver, arena| {
            let memory = Activations::take(arena, &self.config, batch);
            let run = Run { config: self.config, memory, batch: *batch };
            run.all(driver, &self.layers, [queries, text, image])
        })
    }
}

/// One forward pass.
struct Run {
    config: QFormerConfig,
    memory: Activations,
    batch: QFormerBatch,
}

impl Run {
    fn all(
        &self,
        driver: &mut dyn Driver,
        layers: &[Layer],
        [queries, text, image]: [&[f32]; 3],
    ) -> Result<[Vec<f32>; 2], CudaError> {
        let QFormerConfig { storage, hidden: width, image_width, .. } = self.config;
        let Activations { x, zeros, before, angles, image: [wide, narrowed], .. } = self.memory;
        let QFormerBatch { batch, queries: count, positions, .. } = self.batch;
        let bytes = size_of_val(queries);
        driver.upload(x, bytemuck::cast_slice(queries))?;
        driver.upload(x.slice(bytes, size_of_val(text)), bytemuck::cast_slice(text))?;
        driver.clear(zeros)?;
        let there = vec![count as i32; batch];
        driver.upload(before, bytemuck::cast_slice(&there))?;
        let unturned = [1.0_f32, 0.0].repeat(width / self.config.heads / 2);
        driver.upload(angles, bytemuck::cast_slice(&unturned))?;
        if count > 0 {
            assert_eq!(image.len(), batch * positions * image_width, "states of images");
            driver.upload(wide, bytemuck::cast_slice(image))?;
            narrow(driver, storage, [wide, narrowed], image.len())?;
        }
        let (rows, own) = (self.batch.rows(), batch * count);
        for layer in layers {
            self.attend(driver, &layer.attention, 0..rows)?;
            if let (Some(cross), true) = (&layer.cross, count > 0) {
                self.attend(driver, cross, 0..own)?;
            }
            self.feed_forward(driver, &layer.query, 0..own)?;
            self.feed_forward(driver, &layer.text, own..rows)?;
        }
        let mut states = vec![0.0_f32; rows * width];
        driver.download(x, bytemuck::cast_slice_mut(&mut states))?;
        let texts = states.split_off(own * width);
        Ok([states, texts])
    }

    /// Runs an attention on some rows: of all rows among themselves, of queries to the image.
    fn attend(
        &self,
        driver: &mut dyn Driver,
        attention: &Attention,
        rows: Range<usize>,
    ) -> Result<(), CudaError> {
        let (storage, width) = (self.config.storage, self.config.hidden);
        let Activations { x, narrow: narrowed, projected, queries, mixed, zeros, .. } = self.memory;
        let QFormerBatch { batch, queries: count, text, positions } = self.batch;
        let crosses = attention.key_value[0] != Buffer::NULL;
        let heads = self.config.heads;
        let size = width / heads;
        let outputs = if crosses { width } else { 3 * width };
        narrow(driver, storage, [x, narrowed], rows.len() * width)?;
        let sizes = [rows.len(), width, outputs];
        self.product(driver, [narrowed, attention.query[0], projected], sizes)?;
        let split = |driver: &mut dyn Driver, from, bias, heads, to: &Appended, rows| {
            let (query_norm, key_norm) = (Buffer::NULL, Buffer::NULL);
            let transforms = HeadTransforms { bias, query_norm, key_norm, epsilon: 0.0 };
            let (table, axis) = (self.memory.angles, Buffer::NULL);
            let rotary = Rotary { rows, table, positions: zeros, axis, axes: 1 };
            rotary_append(driver, storage, from, heads, &transforms, &rotary, to)
        };
        let element = storage.bytes();
        let part = |buffer: Buffer, width: usize, rows: &Range<usize>| {
            buffer.slice(rows.start * width * element, rows.len() * width * element)
        };
        let ([keys, values], length) = if crosses {
            let [key_value, bias] = attention.key_value;
            let (image, seen) = (self.memory.image[1], batch * positions);
            let to = self.memory.image_projected;
            let sizes = [seen, self.config.image_width, 2 * width];
            self.product(driver, [image, key_value, to], sizes)?;
            let [keys, values] = self.memory.seen;
            let filled = Buffer::NULL;
            let appended =
                Appended { keys, values, filled, capacity: positions, length: positions };
            let of_image = Heads { heads: 0, key_heads: heads, size };
            split(driver, [to, Buffer::NULL], bias, of_image, &appended, seen)?;
            ([keys, values], positions)
        } else {
            (self.memory.own, count + text)
        };
        let key_heads = if crosses { 0 } else { heads };
        let own = batch * count;
        let kinds = [(0..own, count, Buffer::NULL), (own..rows.end, text, self.memory.before)];
        for (rows, each, filled) in kinds.iter().filter(|(rows, ..)| !rows.is_empty()) {
            let from = [part(projected, outputs, rows), part(queries, width, rows)];
            let appended =
                Appended { keys, values, filled: *filled, capacity: length, length: *each };
            let own = Heads { heads, key_heads, size };
            split(driver, from, attention.query[1], own, &appended, rows.len())?;
        }
        for (rows, each, _) in kinds.iter().filter(|(rows, ..)| !rows.is_empty()) {
            let buffers =
                [part(queries, width, rows), keys, values, part(mixed, width, rows), zeros];
            let own = Heads { heads, key_heads: heads, size };
            cross_attention(driver, storage, buffers, own, [batch, *each, length])?;
        }
        self.add(driver, mixed, width, attention.output, attention.norm, rows)
    }

    fn feed_forward(
        &self,
        driver: &mut dyn Driver,
        part: &FeedForward,
        rows: Range<usize>,
    ) -> Result<(), CudaError> {
        let QFormerConfig { storage, hidden: width, intermediate, activation, .. } = self.config;
        let Activations { narrow: narrowed, inner, .. } = self.memory;
        narrow(driver, storage, [self.stream(&rows), narrowed], rows.len() * width)?;
        let [weight, bias] = part.inner;
        self.product(driver, [narrowed, weight, inner], [rows.len(), width, intermediate])?;
        let size = Rows { rows: rows.len(), width: intermediate };
        gelu(driver, storage, [inner, bias], size, activation)?;
        self.add(driver, inner, intermediate, part.outer, part.norm, rows)
    }

    /// Adds what a linear layer makes of `a` to some rows of the stream, and norms them.
    fn add(
        &self,
        driver: &mut dyn Driver,
        a: Buffer,
        inputs: usize,
        [weight, bias]: Linear,
        norm: Norm,
        rows: Range<usize>,
    ) -> Result<(), CudaError> {
        let (storage, width) = (self.config.storage, self.config.hidden);
        let x = self.stream(&rows);
        let size = Rows { rows: rows.len(), width };
        let a = Matrix::new(a, storage, [rows.len(), inputs]);
        let b = Matrix::new(weight, storage, [width, inputs]).transposed();
        let out = Matrix::new(x, Storage::F32, [rows.len(), width]);
        driver.product(&Product { a, b, out, scale: 1.0, accumulate: true })?;
        add_bias(driver, [x, bias], size)?;
        let buffers = [x, Buffer::NULL, norm[0], norm[1], x];
        layer_norm(driver, Storage::F32, buffers, size, self.config.epsilon)
    }

    /// Some rows of the residual stream.
    fn stream(&self, rows: &Range<usize>) -> Buffer {
        let row = self.config.hidden * size_of::<f32>();
        self.memory.x.slice(rows.start * row, rows.len() * row)
    }

    /// `out = a Wᵀ` in the storage type.
    fn product(
        &self,
        driver: &mut dyn Driver,
        [a, weight, out]: [Buffer; 3],
        [rows, inputs, outputs]: [usize; 3],
    ) -> Result<(), CudaError> {
        let storage = self.config.storage;
        let a = Matrix::new(a, storage, [rows, inputs]);
        let b = Matrix::new(weight, storage, [outputs, inputs]).transposed();
        let out = Matrix::new(out, storage, [rows, outputs]);
        driver.product(&Product { a, b, out, scale: 1.0, accumulate: false })
    }
}
