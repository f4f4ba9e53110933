//! The pre-norm transformer encoder of CLIP's and SigLIP's towers and of EVA's image tower (`fisao-models/src/encoder.rs`).

use std::ops::Range;

use crate::arena::reserve;
use crate::kernels::{
    Appended, Gelu, HeadTransforms, Heads, Rotary, Rows, Sequences, add_bias, attention, gelu,
    layer_norm, narrow, rotary_append,
};
use crate::source::compiled_head_size;
use crate::weights::{OnCard, Upload, WeightSource, filled};
use crate::{Arena, Buffer, CudaError, Driver, Matrix, Product, Storage};

/// Sizes of one encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderConfig {
    /// Element type of matrices and activations. The residual stream is f32.
    pub storage: Storage,
    /// Model width.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of attention heads; divides the width.
    pub heads: usize,
    /// ε of the layer norms.
    pub epsilon: f32,
    /// Non-linearity of the feed-forward part.
    pub activation: Gelu,
    /// Whether queries, keys and values come from one matrix, as in EVA's tower.
    pub fused_query_key_value: bool,
    /// What embeds patches, if it is on the card as well.
    pub patches: Option<PatchConfig>,
}

/// How a tower embeds the patches of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchConfig {
    /// Numbers of a patch.
    pub inputs: usize,
    /// Positions of an image, the class token's among them.
    pub positions: usize,
    /// Whether a class token comes first.
    pub class_token: bool,
    /// Whether patches have a bias.
    pub bias: bool,
    /// Whether there is a norm before the first layer.
    pub norm: bool,
}

impl PatchConfig {
    /// Patches of an image.
    fn patches(&self) -> usize {
        self.positions - usize::from(self.class_token)
    }
}

impl EncoderConfig {
    fn head_sizes(&self) -> Heads {
        Heads { heads: self.heads, key_heads: self.heads, size: self.hidden / self.heads }
    }
}

/// A layer norm: weight and bias, `[width]` f32.
type Norm = [Buffer; 2];
/// A linear layer: `[out, in]`, and `[out]` f32.
type Linear = [Buffer; 2];

/// One layer's weights.
#[derive(Debug, Clone, Copy)]
struct EncoderLayer {
    norms: [Norm; 2],
    query_key_value: Linear,
    output: Linear,
    fc1: Linear,
    fc2: Linear,
}

/// What embeds patches.
#[derive(Debug, Clone, Copy)]
struct PatchEmbedding {
    /// `[width, inputs]`
    matrix: Buffer,
    /// What every image has before its patches are added: positions, and with them the class token and the patches' bias,
    /// `[positions, width]` f32.
    base: Buffer,
    /// `[width]` f32, a vector that is added to the base.
    vector: Buffer,
    norm: Option<Norm>,
}

/// An encoder whose weights are on a card.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    memory: Buffer,
    layers: Vec<EncoderLayer>,
    patches: Option<PatchEmbedding>,
}

fn take_patches(arena: &mut Arena, config: &EncoderConfig) -> Option<PatchEmbedding> {
    let (width, float) = (config.hidden, size_of::<f32>());
    config.patches.map(|patches| PatchEmbedding {
        matrix: arena.take(width * patches.inputs * config.storage.bytes()),
        base: arena.take(patches.positions * width * float),
        vector: arena.take(width * float),
        norm: patches.norm.then(|| [(); 2].map(|()| arena.take(width * float))),
    })
}

fn take_layers(arena: &mut Arena, config: &EncoderConfig) -> Vec<EncoderLayer> {
    let (width, inner) = (config.hidden, config.intermediate);
    let (float, element) = (size_of::<f32>(), config.storage.bytes());
    let linear = |arena: &mut Arena, inputs: usize, outputs: usize| {
        [arena.take(inputs * outputs * element), arena.take(outputs * float)]
    };
    (0..config.layers)
        .map(|_| EncoderLayer {
            norms: [(); 2].map(|()| [(); 2].map(|()| arena.take(width * float))),
            query_key_value: linear(arena, width, 3 * width),
            output: linear(arena, width, width),
            fc1: linear(arena, width, inner),
            fc2: linear(arena, inner, width),
        })
        .collect()
}

impl OnCard for Encoder {
    type Config = EncoderConfig;

    /// Uploads `{prefix}.layers.N.*`; with [patches](EncoderConfig::patches) also `{prefix}.patches`, `{prefix}.positions` and what there is
    /// of `{prefix}.class`, `{prefix}.patch_bias`, `{prefix}.norm.weight` and `{prefix}.norm.bias`, matrices `[out, in]`.
    fn load(
        driver: &mut dyn Driver,
        config: EncoderConfig,
        source: &mut dyn WeightSource,
        prefix: &str,
    ) -> Result<Self, CudaError> {
        compiled_head_size(config.head_sizes().size)?;
        let needed = ("the encoder's weights", Self::weight_bytes(&config));
        let place = |memory| {
            let arena = &mut Arena::within(memory);
            let layers = take_layers(arena, &config);
            Self { config, memory, layers, patches: take_patches(arena, &config) }
        };
        filled(driver, needed, place, |encoder, driver| {
            let upload = &mut Upload { driver, source };
            encoder.upload(upload, prefix)?;
            encoder.upload_patches(upload, prefix)
        })
    }

    fn memory(&self) -> Buffer {
        self.memory
    }
}

impl Encoder {
    /// Bytes of the weights on a card.
    pub fn weight_bytes(config: &EncoderConfig) -> usize {
        let mut arena = Arena::counting();
        take_layers(&mut arena, config);
        take_patches(&mut arena, config);
        arena.used()
    }

    /// Sizes.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    fn upload_patches(&self, upload: &mut Upload<'_>, prefix: &str) -> Result<(), CudaError> {
        let (Some(to), Some(patches)) = (&self.patches, &self.config.patches) else {
            return Ok(());
        };
        let (storage, width) = (self.config.storage, self.config.hidden);
        let name = |part: &str| format!("{prefix}.{part}");
        let matrix = [width, patches.inputs];
        upload.tensors(to.matrix, storage, &[(name("patches"), &matrix[..])])?;
        let positions = [patches.positions, width];
        upload.tensors(to.base, Storage::F32, &[(name("positions"), &positions[..])])?;
        let row = width * size_of::<f32>();
        let class_rows = usize::from(patches.class_token);
        for (there, part, first, rows) in [
            (patches.class_token, "class", 0, 1),
            (patches.bias, "patch_bias", class_rows, patches.patches()),
        ] {
            if there {
                upload.tensors(to.vector, Storage::F32, &[(name(part), &[width][..])])?;
                let base = to.base.slice(first * row, rows * row);
                add_bias(upload.driver, [base, to.vector], Rows { rows, width })?;
            }
        }
        for (to, kind) in to.norm.iter().flatten().zip(["norm.weight", "norm.bias"]) {
            upload.tensors(*to, Storage::F32, &[(name(kind), &[width][..])])?;
        }
        Ok(())
    }

    fn upload(&self, upload: &mut Upload<'_>, prefix: &str) -> Result<(), CudaError> {
        let EncoderConfig { hidden: width, intermediate: inner, storage, .. } = self.config;
        let fused = self.config.fused_query_key_value;
        let separate = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let (parts, output) = if fused {
            (&["self_attn.qkv"][..], "self_attn.projection")
        } else {
            (&separate[..], "self_attn.out_proj")
        };
        for (index, layer) in self.layers.iter().enumerate() {
            // A linear layer whose rows come from matrices of one size, one below the other.
            let mut linear = |to: Linear, parts: &[&str], [inputs, outputs]: [usize; 2]| {
                let name = |part: &str, kind| format!("{prefix}.layers.{index}.{part}.{kind}");
                let (matrix, vector) = ([outputs, inputs], [outputs]);
                let weights = parts.iter().map(|part| (name(part, "weight"), &matrix[..]));
                upload.tensors(to[0], storage, &weights.collect::<Vec<_>>())?;
                let biases = parts.iter().map(|part| (name(part, "bias"), &vector[..]));
                upload.tensors(to[1], Storage::F32, &biases.collect::<Vec<_>>())
            };
            let rows = if fused { 3 * width } else { width };
            linear(layer.query_key_value, parts, [width, rows])?;
            linear(layer.output, &[output], [width, width])?;
            linear(layer.fc1, &["mlp.fc1"], [width, inner])?;
            linear(layer.fc2, &["mlp.fc2"], [inner, width])?;
            for (norm, part) in layer.norms.iter().zip(["layer_norm1", "layer_norm2"]) {
                for (&to, kind) in norm.iter().zip(["weight", "bias"]) {
                    let name = format!("{prefix}.layers.{index}.{part}.{kind}");
                    upload.tensors(to, Storage::F32, &[(name, &[width][..])])?;
                }
            }
        }
        Ok(())
    }
}

/// The largest batch of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderPlan {
    /// Number of sequences: images, or texts.
    pub sequences: usize,
    /// Positions of each.
    pub length: usize,
}

/// Memory for a batch.
#[derive(Debug)]
pub struct EncoderSession {
    plan: EncoderPlan,
    arena: Buffer,
    memory: EncoderMemory,
}

#[derive(Debug, Clone, Copy)]
struct EncoderMemory {
    /// The residual stream, `[rows, width]` f32.
    x: Buffer,
    /// `[rows, width]`
    normed: Buffer,
    /// `[rows, 3 · width]`; before the layers patches, `[rows, inputs]` f32.
    query_key_value: Buffer,
    /// `[rows, width]`
    queries: Buffer,
    /// Keys, values, `[sequences, heads, length, size]`.
    caches: [Buffer; 2],
    /// `[rows, width]`
    mixed: Buffer,
    /// `[rows, intermediate]`; before the layers patches in the storage type, `[rows, inputs]`.
    inner: Buffer,
    /// No rotation: one position's cosines of 1 and sines of 0, `[1, size / 2, 2]` f32.
    angles: Buffer,
    /// Zeros, `[rows]` i32: positions.
    positions: Buffer,
    /// Zeros, `[sequences]` i32.
    padding: Buffer,
}

impl EncoderMemory {
    fn take(arena: &mut Arena, config: &EncoderConfig, plan: &EncoderPlan) -> Self {
        let (float, int, element) = (size_of::<f32>(), size_of::<i32>(), config.storage.bytes());
        let EncoderPlan { sequences, length } = *plan;
        let rows = sequences * length;
        let wide = arena.take(rows * config.hidden * float);
        let inputs = config.patches.map_or(0, |patches| patches.inputs);
        let mut take = |width: usize| arena.take(rows * width * element);
        Self {
            x: wide,
            normed: take(config.hidden),
            query_key_value: take((3 * config.hidden).max((inputs * float).div_ceil(element))),
            queries: take(config.hidden),
            caches: [(); 2].map(|()| take(config.hidden)),
            mixed: take(config.hidden),
            inner: take(config.intermediate.max(inputs)),
            angles: arena.take(config.head_sizes().size * float),
            positions: arena.take(rows * int),
            padding: arena.take(sequences * int),
        }
    }
}

impl EncoderPlan {
    /// Bytes of the arena of a batch.
    pub fn bytes(&self, config: &EncoderConfig) -> usize {
        let mut arena = Arena::counting();
        EncoderMemory::take(&mut arena, config, self);
        arena.used()
    }
}

impl EncoderSession {
    /// Reserves the arena of a plan.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where it does not fit, and those of the driver.
    pub fn open(
        driver: &mut dyn Driver,
        encoder: &Encoder,
        plan: EncoderPlan,
    ) -> Result<Self, CudaError> {
        let config = &encoder.config;
        let hint = "encode fewer images at a time";
        let arena = reserve(driver, "the images", plan.bytes(config), hint)?;
        let memory = EncoderMemory::take(&mut Arena::within(arena), config, &plan);
        driver.clear(memory.positions)?;
        driver.clear(memory.padding)?;
        let angles = [1.0_f32, 0.0].repeat(config.head_sizes().size / 2);
        driver.upload(memory.angles, bytemuck::cast_slice(&angles))?;
        Ok(Self { plan, arena, memory })
    }

    /// Gives the arena back.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn close(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        driver.release(self.arena)
    }

    /// Runs some of the layers: `[sequences · length, width]`.
    ///
    /// * `x` — what the first of them is given, `[sequences · length, width]`
    /// * `causal` — whether a position sees what stands before it and itself only
    ///
    /// # Errors
    /// [`CudaError::Capacity`] beyond the plan, and those of the driver.
    ///
    /// # Panics
    /// When lengths do not fit each other, or there are fewer layers.
    pub fn forward(
        &self,
        driver: &mut dyn Driver,
        encoder: &Encoder,
        x: &[f32],
        [sequences, length]: [usize; 2],
        causal: bool,
        layers: Range<usize>,
    ) -> Result<Vec<f32>, CudaError> {
        let width = encoder.config.hidden;
        assert_eq!(x.len(), sequences * length * width, "embeddings of every position");
        let sequences = self.sequences([sequences, length], causal)?;
        driver.upload(self.memory.x, bytemuck::cast_slice(x))?;
        self.run(driver, encoder, &sequences, layers)
    }

    /// Embeds patches and runs the first `depth` layers: `[images · positions, width]`.
    ///
    /// * `patches` — those of each image row by row, `[images · patches, inputs]`
    ///
    /// # Errors
    /// [`CudaError::Capacity`] beyond the plan, and those of the driver.
    ///
    /// # Panics
    /// When the encoder embeds no patches, they are of no whole number of images, or there are fewer layers.
    pub fn encode_patches(
        &self,
        driver: &mut dyn Driver,
        encoder: &Encoder,
        patches: &[f32],
        depth: usize,
    ) -> Result<Vec<f32>, CudaError> {
        let of = encoder.config.patches.expect("an encoder that embeds patches");
        let each = of.patches() * of.inputs;
        assert!(patches.len().is_multiple_of(each), "a whole number of images");
        let sequences = self.sequences([patches.len() / each, of.positions], false)?;
        self.embed(driver, encoder, patches, sequences.batch)?;
        self.run(driver, encoder, &sequences, 0..depth)
    }

    fn sequences(&self, [batch, length]: [usize; 2], causal: bool) -> Result<Sequences, CudaError> {
        for (what, found, planned) in [
            ("the number of images", batch, self.plan.sequences),
            ("the number of positions", length, self.plan.length),
        ] {
            if found > planned {
                return Err(CudaError::Capacity { what, found, planned });
            }
        }
        let (padding, capacity) = (self.memory.padding, length);
        Ok(Sequences { batch, length, capacity, padding, window: None, causal, segments: None })
    }

    /// Fills the residual stream with embedded patches.
    fn embed(
        &self,
        driver: &mut dyn Driver,
        encoder: &Encoder,
        patches: &[f32],
        images: usize,
    ) -> Result<(), CudaError> {
        let EncoderMemory { x, query_key_value: wide, inner, .. } = self.memory;
        let EncoderConfig { storage, hidden: width, epsilon, .. } = encoder.config;
        let (Some(of), Some(weights)) = (encoder.config.patches, &encoder.patches) else {
            panic!("an encoder that embeds patches")
        };
        driver.upload(wide, bytemuck::cast_slice(patches))?;
        narrow(driver, storage, [wide, inner], patches.len())?;
        let (each, rows) = (of.patches(), images * of.positions);
        let all = Matrix::new(inner, storage, [images * each, of.inputs]);
        let stream = Matrix::new(x, Storage::F32, [rows, width]);
        let b = Matrix::new(weights.matrix, storage, [width, of.inputs]).transposed();
        for image in 0..images {
            let first = image * of.positions;
            driver.copy(weights.base, stream.rows(first, of.positions).buffer)?;
            let out = stream.rows(first + of.positions - each, each);
            let a = all.rows(image * each, each);
            driver.product(&Product { a, b, out, scale: 1.0, accumulate: true })?;
        }
        match weights.norm {
            Some([weight, bias]) => {
                let buffers = [x, Buffer::NULL, weight, bias, x];
                layer_norm(driver, Storage::F32, buffers, Rows { rows, width }, epsilon)
            }
            None => Ok(()),
        }
    }

    /// Runs some of the layers on the residual stream, and downloads it.
    fn run(
        &self,
        driver: &mut dyn Driver,
        encoder: &Encoder,
        sequences: &Sequences,
        layers: Range<usize>,
    ) -> Result<Vec<f32>, CudaError> {
        for layer in &encoder.layers[layers] {
            self.layer(driver, &encoder.config, layer, sequences)?;
        }
        let rows = sequences.batch * sequences.length;
        let mut states = vec![0.0_f32; rows * encoder.config.hidden];
        driver.download(self.memory.x, bytemuck::cast_slice_mut(&mut states))?;
        Ok(states)
    }

    fn layer(
        &self,
        driver: &mut dyn Driver,
        config: &EncoderConfig,
        layer: &EncoderLayer,
        sequences: &Sequences,
    ) -> Result<(), CudaError> {
        let EncoderMemory { x, normed, query_key_value, queries, caches, mixed, inner, .. } =
            self.memory;
        let (storage, width, heads) = (config.storage, config.hidden, config.head_sizes());
        let rows = sequences.batch * sequences.length;
        let size = Rows { rows, width };
        let matrix = |buffer: Buffer, width: usize| Matrix::new(buffer, storage, [rows, width]);
        let residual = Matrix::new(x, Storage::F32, [rows, width]);
        let product = |driver: &mut dyn Driver, a: Matrix, weight: Buffer, out: Matrix| {
            let b = Matrix::new(weight, storage, [out.columns, a.columns]).transposed();
            let accumulate = out.buffer == x;
            driver.product(&Product { a, b, out, scale: 1.0, accumulate })
        };
        let norm = |driver: &mut dyn Driver, [weight, bias]: Norm| {
            let buffers = [x, Buffer::NULL, weight, bias, normed];
            layer_norm(driver, storage, buffers, size, config.epsilon)
        };

        norm(driver, layer.norms[0])?;
        let [weight, bias] = layer.query_key_value;
        product(driver, matrix(normed, width), weight, matrix(query_key_value, 3 * width))?;
        let (query_norm, key_norm) = (Buffer::NULL, Buffer::NULL);
        let transforms = HeadTransforms { bias, query_norm, key_norm, epsilon: config.epsilon };
        let EncoderMemory { angles: table, positions, .. } = self.memory;
        let rotary = Rotary { rows, table, positions, axis: Buffer::NULL, axes: 1 };
        let [keys, values] = caches;
        let (filled, length) = (Buffer::NULL, sequences.length);
        let to = Appended { keys, values, filled, capacity: length, length };
        let split = [query_key_value, queries];
        rotary_append(driver, storage, split, heads, &transforms, &rotary, &to)?;
        let buffers = [queries, keys, values, mixed, Buffer::NULL];
        attention(driver, storage, buffers, heads, sequences)?;
        let [weight, bias] = layer.output;
        product(driver, matrix(mixed, width), weight, residual)?;
        add_bias(driver, [x, bias], size)?;

        norm(driver, layer.norms[1])?;
        let [weight, bias] = layer.fc1;
        let inner_width = config.intermediate;
        product(driver, matrix(normed, width), weight, matrix(inner, inner_width))?;
        let inner_size = Rows { rows, width: inner_width };
        gelu(driver, storage, [inner, bias], inner_size, config.activation)?;
        let [weight, bias] = layer.fc2;
        product(driver, matrix(inner, inner_width), weight, residual)?;
        add_bias(driver, [x, bias], size)
    }
}
