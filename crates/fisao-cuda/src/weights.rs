//! Weights on a card: how they get there, and where those of a decoder lie.

use std::borrow::Cow;

use crate::arena::reserve;
use crate::{Arena, Buffer, CudaError, DecoderConfig, Driver, Storage};

/// A tensor as it is stored.
#[derive(Debug, Clone)]
pub struct WeightTensor<'a> {
    /// Of its elements.
    pub storage: Storage,
    /// Its elements, row-major; borrowed where they lie in memory already.
    pub bytes: Cow<'a, [u8]>,
}

/// Something whose weights lie on a card.
pub trait OnCard: Sized {
    /// Its sizes.
    type Config;

    /// Uploads the tensors of a source whose names begin with `prefix`.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the weights do not fit, [`CudaError::Weight`] from the source, [`CudaError::Unsupported`] for what no
    /// kernel is made for, and those of the driver.
    fn load(
        driver: &mut dyn Driver,
        config: Self::Config,
        source: &mut dyn WeightSource,
        prefix: &str,
    ) -> Result<Self, CudaError>;

    /// The memory that its weights lie in.
    fn memory(&self) -> Buffer;

    /// Bytes that its weights take.
    fn weight_bytes(&self) -> usize {
        self.memory().bytes()
    }

    /// Gives the memory back.
    ///
    /// # Errors
    /// Those of the driver.
    fn unload(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        driver.release(self.memory())
    }
}

/// Reserves memory for weights, and fills what is made of it; where that fails, nothing stays reserved.
pub(crate) fn filled<W>(
    driver: &mut dyn Driver,
    (what, bytes): (&'static str, usize),
    place: impl FnOnce(Buffer) -> W,
    fill: impl FnOnce(&W, &mut dyn Driver) -> Result<(), CudaError>,
) -> Result<W, CudaError> {
    let hint = "load the weights in bf16, or choose a smaller model or a larger card";
    let memory = reserve(driver, what, bytes, hint)?;
    let weights = place(memory);
    if let Err(error) = fill(&weights, driver) {
        // Of two errors the first says more.
        let _ = driver.release(memory);
        return Err(error);
    }
    Ok(weights)
}

/// Gives out tensors by their names in the checkpoint.
pub trait WeightSource {
    /// The tensor of this name and shape.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<WeightTensor<'_>, String>;
}

/// One layer's. Norms and biases are f32, and null where there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerWeights {
    pub(crate) input_norm: Buffer,
    /// `[(heads + 2 · key heads) · size, hidden]`
    pub(crate) query_key_value: Buffer,
    pub(crate) query_key_value_bias: Buffer,
    pub(crate) query_norm: Buffer,
    pub(crate) key_norm: Buffer,
    /// `[hidden, heads · size]`
    pub(crate) output: Buffer,
    pub(crate) post_attention_norm: Buffer,
    /// `[2 · intermediate, hidden]`
    pub(crate) gate_up: Buffer,
    /// `[hidden, intermediate]`
    pub(crate) down: Buffer,
}

/// Where all of a decoder's weights lie.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// `[vocabulary, hidden]`
    pub(crate) table: Buffer,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Buffer,
    /// `[vocabulary, hidden]`: the table, where they are tied.
    pub(crate) head: Buffer,
}

impl Weights {
    /// Places for the weights of a decoder.
    pub(crate) fn take(arena: &mut Arena, config: &DecoderConfig) -> Self {
        let (hidden, heads) = (config.hidden, config.heads);
        let element = config.storage.bytes();
        let matrix =
            |arena: &mut Arena, rows: usize, columns: usize| arena.take(rows * columns * element);
        let vector = |arena: &mut Arena, count: usize, there: bool| {
            if there { arena.take(count * size_of::<f32>()) } else { Buffer::NULL }
        };
        let table = matrix(arena, config.vocabulary, hidden);
        let layers = (0..config.layers)
            .map(|_| LayerWeights {
                input_norm: vector(arena, hidden, true),
                query_key_value: matrix(arena, heads.fused(), hidden),
                query_key_value_bias: vector(arena, heads.fused(), config.query_key_value_bias),
                query_norm: vector(arena, heads.size, config.head_norms),
                key_norm: vector(arena, heads.size, config.head_norms),
                output: matrix(arena, hidden, heads.queries()),
                post_attention_norm: vector(arena, hidden, true),
                gate_up: matrix(arena, 2 * config.intermediate, hidden),
                down: matrix(arena, hidden, config.intermediate),
            })
            .collect();
        let norm = vector(arena, hidden, true);
        let head = if config.tied { table } else { matrix(arena, config.vocabulary, hidden) };
        Self { table, layers, norm, head }
    }

    /// Copies every tensor to its place.
    pub(crate) fn upload(
        &self,
        driver: &mut dyn Driver,
        config: &DecoderConfig,
        source: &mut dyn WeightSource,
        prefix: &str,
    ) -> Result<(), CudaError> {
        let mut upload = Upload { driver, source };
        let (hidden, heads, storage) = (config.hidden, config.heads, config.storage);
        let table = [config.vocabulary, hidden];
        let name = format!("{prefix}.model.embed_tokens.weight");
        upload.tensors(self.table, storage, &[(name, &table)])?;
        let (queries, keys, inner) = (heads.queries(), heads.keys(), config.intermediate);
        for (index, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("{prefix}.model.layers.{index}.{part}");
            let projections = [("q", queries), ("k", keys), ("v", keys)];
            let parts = projections.map(|(part, rows)| {
                (name(&format!("self_attn.{part}_proj.weight")), [rows, hidden])
            });
            upload.tensors(layer.query_key_value, storage, &shaped(&parts))?;
            if config.query_key_value_bias {
                let parts = projections
                    .map(|(part, rows)| (name(&format!("self_attn.{part}_proj.bias")), [rows]));
                upload.tensors(layer.query_key_value_bias, Storage::F32, &shaped(&parts))?;
            }
            let inner_parts = ["gate", "up"]
                .map(|part| (name(&format!("mlp.{part}_proj.weight")), [inner, hidden]));
            upload.tensors(layer.gate_up, storage, &shaped(&inner_parts))?;
            let output = (name("self_attn.o_proj.weight"), [hidden, queries]);
            upload.tensors(layer.output, storage, &shaped(&[output]))?;
            let down = (name("mlp.down_proj.weight"), [hidden, inner]);
            upload.tensors(layer.down, storage, &shaped(&[down]))?;
            for (to, part, width) in [
                (layer.input_norm, "input_layernorm", hidden),
                (layer.post_attention_norm, "post_attention_layernorm", hidden),
                (layer.query_norm, "self_attn.q_norm", heads.size),
                (layer.key_norm, "self_attn.k_norm", heads.size),
            ] {
                if to != Buffer::NULL {
                    let norm = (name(&format!("{part}.weight")), [width]);
                    upload.tensors(to, Storage::F32, &shaped(&[norm]))?;
                }
            }
        }
        let norm = (format!("{prefix}.model.norm.weight"), [hidden]);
        upload.tensors(self.norm, Storage::F32, &shaped(&[norm]))?;
        if !config.tied {
            let head = (format!("{prefix}.lm_head.weight"), table);
            upload.tensors(self.head, storage, &shaped(&[head]))?;
        }
        Ok(())
    }
}

/// Names with shapes as slices.
fn shaped<const N: usize>(parts: &[(String, [usize; N])]) -> Vec<(String, &[usize])> {
    parts.iter().map(|(name, shape)| (name.clone(), &shape[..])).collect()
}

/// Copies tensors from a source to a card.
pub(crate) struct Upload<'a> {
    pub(crate) driver: &'a mut dyn Driver,
    pub(crate) source: &'a mut dyn WeightSource,
}

impl Upload<'_> {
    /// Copies tensors one behind the other, converted to a type if they are stored in another one.
    pub(crate) fn tensors(
        &mut self,
        to: Buffer,
        storage: Storage,
        parts: &[(String, &[usize])],
    ) -> Result<(), CudaError> {
        let mut offset = 0;
        for (name, shape) in parts {
            let failed = |problem: String| CudaError::Weight { name: name.clone(), problem };
            let tensor = self.source.tensor(name, shape).map_err(failed)?;
            let count: usize = shape.iter().product();
            let expected = count * tensor.storage.bytes();
            if tensor.bytes.len() != expected {
                let found = tensor.bytes.len();
                return Err(failed(format!(
                    "{found} bytes, but shape {shape:?} in {:?} has {expected}",
                    tensor.storage
                )));
            }
            let bytes = if tensor.storage == storage {
                tensor.bytes
            } else {
                Cow::Owned(storage.narrowed(&tensor.storage.widened(&tensor.bytes)))
            };
            self.driver.upload(to.slice(offset, bytes.len()), &bytes)?;
            offset += bytes.len();
        }
        Ok(())
    }
}
