//! A checkpoint with an adapter folded into its weights.
//!
//! The work is done on files, tensor by tensor from the memory map: layers with an adapter are widened to
//! f32, get `scale · B A` in blocks of rows, and are rounded to the output's precision; everything else
//! is copied. Memory stays at one tensor whatever the model's size. `config.json` is written last, and
//! what was written is removed if the work is truncated, so that no folder looks complete before it is.

mod fold;
mod output;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use crate::FormatError;
use crate::adapter::{Adapter, LinearSizes, VisionAdapter, check};
use crate::checkpoint::{CONFIG_FILE, Checkpoint, ties_embeddings};
use crate::weights::{
    INDEX_FILE, LoadDtype, SafetensorsSource, Slot, Stopped, StoredDtype, WEIGHTS_FILE,
    write_stream,
};
use output::{Output, index_json};

/// Largest weights file, in bytes, unless another is asked for; transformers' own.
pub const MAX_SHARD_SIZE: u64 = 5_000_000_000;

/// How a merged checkpoint is written.
#[derive(Clone, Copy, Debug)]
pub struct MergeOptions {
    /// Precision of its floats; `None` keeps each tensor's own.
    pub dtype: Option<StoredDtype>,
    /// Largest weights file, in bytes; a single tensor may exceed it.
    pub max_shard_size: u64,
    /// What becomes of updates of the vision tower.
    pub vision: VisionAdapter,
}

impl Default for MergeOptions {
    fn default() -> Self {
        let vision = VisionAdapter::default();
        Self { dtype: None, max_shard_size: MAX_SHARD_SIZE, vision }
    }
}

/// A checkpoint and an adapter that fit each other, about to be written as one.
#[derive(Debug)]
pub struct Merge {
    folder: PathBuf,
    weights: SafetensorsSource,
    adapter: Adapter,
    dtype: Option<StoredDtype>,
    /// Tensors by file, in the order in which they are written.
    shards: Vec<Vec<Slot>>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Number of linear layers that the adapter changed.
    pub layers: usize,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of tensors.
    pub bytes: u64,
    /// Names of the weights files.
    pub files: Vec<String>,
}

impl Merge {
    /// Opens the weights and checks that the adapter fits them. `folder` is where the adapter came from,
    /// for messages.
    ///
    /// # Errors
    /// The checkpoint is no LLaVA, damaged or quantised; the adapter does not fit it; a tensor cannot
    /// be converted to the precision asked for.
    pub fn new(
        checkpoint: &Checkpoint,
        adapter: Adapter,
        folder: &Path,
        options: &MergeOptions,
    ) -> Result<Self, FormatError> {
        let config = checkpoint.vision_language_config()?.family().decoder();
        let weights = checkpoint.weights(LoadDtype::AsStored)?;
        let tied = ties_embeddings(config, &weights);
        check(&adapter, &map_sizes(&weights, tied), folder, options.vision)?;
        let slots = slots(&weights, &adapter, options.dtype)?;
        Ok(Self {
            folder: checkpoint.folder().to_owned(),
            weights,
            adapter,
            dtype: options.dtype,
            shards: into_shards(slots, options.max_shard_size),
        })
    }

    /// Bytes of tensors that will be written.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().flatten().map(|slot| slot.length() as u64).sum()
    }

    /// Writes the folder, which must be new or empty. `advance` is told of bytes as they are written, and
    /// may end the work.
    ///
    /// # Errors
    /// The folder holds something, or a file cannot be written; an end asked for by `advance` is an
    /// operating system error of the kind `Interrupted`. What was written is removed.
    pub fn write(
        &self,
        output: &Path,
        advance: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Merged, FormatError> {
        let mut output = Output::claim(output)?;
        let mut files = Vec::new();
        let mut weight_map = BTreeMap::new();
        for (index, slots) in self.shards.iter().enumerate() {
            let name = shard_name(index, self.shards.len());
            write_stream(&output.file(&name), slots, |slot, file| {
                self.write_tensor(slot, file, advance)
            })?;
            weight_map.extend(slots.iter().map(|slot| (slot.name.as_str(), name.clone())));
            files.push(name);
        }
        if files.len() > 1 {
            output.json(INDEX_FILE, &index_json(self.bytes(), &weight_map))?;
        }
        output.copy_companions(&self.folder)?;
        output.config(&self.folder.join(CONFIG_FILE), self.dtype)?;
        output.keep();
        Ok(Merged {
            layers: self.adapter.updates.len(),
            tensors: weight_map.len(),
            bytes: self.bytes(),
            files,
        })
    }

    fn write_tensor(
        &self,
        slot: &Slot,
        file: &mut dyn std::io::Write,
        advance: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Stopped> {
        let known = "slots are made from the weights' own names";
        let (path, _) = self.weights.place(&slot.name).expect(known);
        self.weights.check_length(&slot.name)?;
        let stored = self.weights.stored(&slot.name).expect(known);
        let mut put = |bytes: &[u8]| -> Result<(), Stopped> {
            file.write_all(bytes)?;
            match advance(bytes.len() as u64) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => {
                    Err(Stopped::Io(std::io::Error::from(std::io::ErrorKind::Interrupted)))
                }
            }
        };
        let update =
            slot.name.strip_suffix(".weight").and_then(|layer| self.adapter.updates.get(layer));
        let written = match StoredDtype::of(slot.dtype) {
            Some(dtype) if update.is_some() || slot.dtype != stored.dtype() => {
                fold::write_folded(&stored, update, dtype, &slot.name, path, &mut put)
            }
            _ => stored.bytes().chunks(1 << 24).try_for_each(put),
        };
        stored.release();
        written
    }
}

/// Inputs and outputs of the checkpoint's linear layers: its matrices but for tables of embeddings.
fn map_sizes(weights: &SafetensorsSource, tied: bool) -> LinearSizes {
    let tensors = weights.inventory().into_iter().filter_map(|(name, _, shape)| {
        let layer = name.strip_suffix(".weight")?;
        let table = layer.ends_with("embed_tokens") || layer.ends_with("position_embedding");
        match *shape {
            [outputs, inputs] if !table => Some((layer.to_owned(), [inputs, outputs])),
            _ => None,
        }
    });
    tensors.filter(|(layer, _)| !(tied && layer == "language_model.lm_head")).collect()
}

/// The tensors as they will be written.
fn slots(
    weights: &SafetensorsSource,
    adapter: &Adapter,
    dtype: Option<StoredDtype>,
) -> Result<Vec<Slot>, FormatError> {
    let slots = weights.names().into_iter().map(|name| {
        let own = "the name is the weights' own";
        let stored = weights.stored(name).expect(own);
        let changed = name.strip_suffix(".weight").is_some_and(|m| adapter.updates.contains_key(m));
        let converted = dtype.filter(|_| !is_integer(stored.dtype()));
        if (changed || converted.is_some()) && StoredDtype::of(stored.dtype()).is_none() {
            let (path, key) = weights.place(name).expect(own);
            let (path, tensor) = (path.to_owned(), key.to_owned());
            return Err(FormatError::TensorDtype { path, tensor, found: stored.dtype_name() });
        }
        let dtype = converted.map_or(stored.dtype(), StoredDtype::safetensors);
        Ok(Slot::new(name.to_owned(), dtype, stored.shape().to_vec()))
    });
    slots.collect()
}

/// Counts and positions are no weights, and keep their type.
fn is_integer(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::BOOL
            | Dtype::U8
            | Dtype::I8
            | Dtype::U16
            | Dtype::I16
            | Dtype::U32
            | Dtype::I32
            | Dtype::U64
            | Dtype::I64
    )
}

/// Fills files in turn, as transformers does.
fn into_shards(slots: Vec<Slot>, limit: u64) -> Vec<Vec<Slot>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for slot in slots {
        let length = slot.length() as u64;
        if size > 0 && size + length > limit {
            shards.push(Vec::new());
            size = 0;
        }
        size += length;
        shards.last_mut().expect("there is always one").push(slot);
    }
    for shard in &mut shards {
        // Wide types first keeps every tensor aligned.
        shard.sort_by_key(|slot| std::cmp::Reverse(slot.dtype.bitsize()));
    }
    shards
}

fn shard_name(index: usize, count: usize) -> String {
    if count == 1 {
        WEIGHTS_FILE.to_owned()
    } else {
        format!("model-{:05}-of-{count:05}.safetensors", index + 1)
    }
}
