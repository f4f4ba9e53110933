//! Log-probabilities and entropies of given tokens, and the gradients of an adapter with respect to them.
//!
//! The forward pass keeps the input of each layer; the backward pass recomputes the rest of a layer from it. Logits are there for some
//! rows at a time.

mod backward;
mod memory;

use crate::adapter::AdapterGradient;
use crate::arena::reserve;
use crate::decoder::Decoder;
use crate::forward::{Attention, Deep, LayerCaches, Pass};
use crate::kernels::{Rotary, Rows, Segments, Sequences, gather_rows, log_probs, narrow, rms_norm};
use crate::tokens::Tokens;
use crate::{Arena, Buffer, CudaError, DecoderConfig, Driver, Matrix, Product, Storage};
use memory::TrainingMemory;

/// The largest sizes of a batch that is scored or trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingPlan {
    /// Number of sequences.
    pub sequences: usize,
    /// Longest sequence, positions, padding among them.
    pub length: usize,
    /// Most tokens that are scored.
    pub targets: usize,
    /// Rows of logits that are there at a time.
    pub logit_rows: usize,
    /// Whether gradients are wanted.
    pub backward: bool,
}

/// Sequences of equal length, shorter ones padded on the left, and the tokens of them that are scored.
#[derive(Debug, Clone, Copy)]
pub struct TrainingBatch<'a> {
    /// What stands at each position.
    pub tokens: Tokens<'a>,
    /// Position of every row in its sequence, `[sequences · length]`, or of three axes, `[sequences · length, 3]`.
    pub positions: &'a [i32],
    /// Positions of padding before each sequence, `[sequences]`.
    pub padding: &'a [usize],
    /// Where each sequence is a prompt with several responses behind it. Positions of each response follow those of the prompt; a response
    /// that is shorter than a segment is padded behind.
    pub segments: Option<Segments>,
    /// What is added to the states behind the first layers, `[sequences · length, hidden]` for each of them. Empty in most models.
    pub deep: &'a [&'a [f32]],
    /// Rows whose states predict a token, `sequence · length + position`. Responses that share a prompt share its last row.
    pub rows: &'a [usize],
    /// The token that each of them predicts.
    pub targets: &'a [u32],
    /// Divides the logits.
    pub temperature: f32,
}

/// What is known of the tokens of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scored {
    /// Log-probability of each, nats.
    pub log_probs: Vec<f32>,
    /// Entropy of the distribution it is from, nats.
    pub entropies: Vec<f32>,
    /// The state that predicts it, normed, `[targets, hidden]`.
    pub states: Vec<f32>,
}

/// Memory for a batch, and the gradients of the adapter.
#[derive(Debug)]
pub struct Training {
    plan: TrainingPlan,
    arena: Buffer,
    memory: TrainingMemory,
    /// The batch that went forward last.
    forwarded: Option<Forwarded>,
}

/// What the backward pass knows of a batch.
#[derive(Debug, Clone, Copy)]
struct Forwarded {
    sequences: usize,
    length: usize,
    targets: usize,
    temperature: f32,
    segments: Option<Segments>,
}

impl TrainingPlan {
    /// Bytes of the arena of a batch with this decoder.
    pub fn bytes(&self, decoder: &Decoder) -> usize {
        let mut arena = Arena::counting();
        TrainingMemory::take(&mut arena, decoder, self);
        arena.used()
    }
}

impl Training {
    /// Reserves the arena of a plan. The decoder's adapter is the one whose gradients are taken: where it gets another shape, or is
    /// switched on or off, this is opened again.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where it does not fit, and those of the driver.
    pub fn open(
        driver: &mut dyn Driver,
        decoder: &Decoder,
        plan: TrainingPlan,
    ) -> Result<Self, CudaError> {
        let hint = "set align.micro-batch lower, or shorten responses";
        let arena = reserve(driver, "the update", plan.bytes(decoder), hint)?;
        let memory = TrainingMemory::take(&mut Arena::within(arena), decoder, &plan);
        let config = decoder.config();
        driver.upload(memory.angles, bytemuck::cast_slice(&config.angles(plan.length)))?;
        let axes: Vec<i32> = config.position_axes.iter().map(|&axis| axis as i32).collect();
        driver.upload(memory.axes, bytemuck::cast_slice(&axes))?;
        let mut training = Self { plan, arena, memory, forwarded: None };
        training.clear_gradients(driver)?;
        Ok(training)
    }

    /// Gives the arena back.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn close(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        driver.release(self.arena)
    }

    /// Sets the gradients to zero.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn clear_gradients(&mut self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        self.memory.backward.as_ref().map_or(Ok(()), |backward| driver.clear(backward.gradients))
    }

    /// Scores the tokens of a batch.
    ///
    /// # Errors
    /// [`CudaError::Capacity`] beyond the plan, and those of the driver.
    ///
    /// # Panics
    /// When lengths do not fit each other.
    pub fn forward(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        batch: &TrainingBatch<'_>,
    ) -> Result<Scored, CudaError> {
        let config = decoder.config();
        let axes = config.axes();
        let (sequences, targets) = (batch.padding.len(), batch.rows.len());
        let rows = batch.positions.len() / axes;
        let length = rows.checked_div(sequences).unwrap_or(0);
        assert_eq!(batch.positions.len(), sequences * length * axes, "positions of every row");
        assert_eq!(batch.targets.len(), targets, "a token for every row");
        assert!(batch.rows.iter().all(|&row| row < rows), "rows of the batch");
        for (what, found, planned) in [
            ("the number of sequences", sequences, self.plan.sequences),
            ("the length of the sequences", length, self.plan.length),
            ("the number of scored tokens", targets, self.plan.targets),
        ] {
            if found > planned {
                return Err(CudaError::Capacity { what, found, planned });
            }
        }
        let (temperature, segments) = (batch.temperature, batch.segments);
        self.forwarded = Some(Forwarded { sequences, length, targets, temperature, segments });
        let memory = &self.memory;
        let ints = |values: &[usize]| values.iter().map(|&at| at as i32).collect::<Vec<_>>();
        driver.upload(memory.padding, bytemuck::cast_slice(&ints(batch.padding)))?;
        driver.upload(memory.positions, bytemuck::cast_slice(batch.positions))?;
        driver.upload(memory.rows, bytemuck::cast_slice(&ints(batch.rows)))?;
        driver.upload(memory.targets, bytemuck::cast_slice(batch.targets))?;
        let x = memory.activations.x;
        batch.tokens.upload(driver, decoder, [memory.tokens, x], 0..rows)?;
        let pass = self.pass(decoder, [sequences, length], segments);
        let deep = Deep { states: batch.deep, rows: 0..rows, memory: memory.deep };
        for layer in 0..config.layers {
            self.keep(driver, config, layer, rows)?;
            pass.layer(driver, layer)?;
            pass.add_deep(driver, layer, &deep)?;
        }
        let [before, behind] = memory.states;
        let wanted = Rows { rows: targets, width: config.hidden };
        gather_rows(driver, [x, memory.rows, before], wanted)?;
        let norm = [before, Buffer::NULL, decoder.weights.norm, behind];
        rms_norm(driver, Storage::F32, norm, wanted, config.epsilon)?;
        for first in (0..targets).step_by(self.plan.logit_rows) {
            let part = self.logits(driver, decoder, first, targets)?;
            let buffers = [memory.logits, part.targets, part.scores];
            let size = Rows { rows: part.rows, width: config.vocabulary };
            log_probs(driver, buffers, size, batch.temperature)?;
        }
        let mut scores = vec![0.0_f32; 2 * targets];
        let mut states = vec![0.0_f32; targets * config.hidden];
        driver.download(memory.scores, bytemuck::cast_slice_mut(&mut scores))?;
        driver.download(behind, bytemuck::cast_slice_mut(&mut states))?;
        let (log_probs, entropies) = scores
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&[log_prob, entropy]| (log_prob, entropy))
            .unzip();
        Ok(Scored { log_probs, entropies, states })
    }

    /// Copies the input of a layer, if gradients are wanted.
    fn keep(
        &self,
        driver: &mut dyn Driver,
        config: &DecoderConfig,
        layer: usize,
        rows: usize,
    ) -> Result<(), CudaError> {
        if self.memory.backward.is_none() {
            return Ok(());
        }
        let bytes = rows * config.hidden * size_of::<f32>();
        driver.copy(self.memory.activations.x.slice(0, bytes), self.kept(config, layer, rows))
    }

    fn kept(&self, config: &DecoderConfig, layer: usize, rows: usize) -> Buffer {
        let bytes = rows * config.hidden * size_of::<f32>();
        self.memory.kept.slice(layer * bytes, bytes)
    }

    fn pass<'a>(
        &'a self,
        decoder: &'a Decoder,
        [batch, length]: [usize; 2],
        segments: Option<Segments>,
    ) -> Pass<'a> {
        let (config, memory) = (decoder.config(), &self.memory);
        let rows = batch * length;
        let sequences = Sequences {
            batch,
            length,
            capacity: length,
            padding: memory.padding,
            window: config.sliding_window,
            causal: true,
            segments,
        };
        let caches = memory.caches.map(LayerCaches::reused);
        let rotary = Rotary {
            rows,
            table: memory.angles,
            positions: memory.positions,
            axis: memory.axes,
            axes: config.axes(),
        };
        let log_sums = memory.log_sums;
        let attention = Attention::Sequences { sequences, caches, log_sums };
        Pass { decoder, activations: &memory.activations, rotary, rows, attention }
    }

    /// Computes logits of some of the states, from `first` on.
    fn logits(
        &self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        first: usize,
        targets: usize,
    ) -> Result<LogitRows, CudaError> {
        let (config, memory) = (decoder.config(), &self.memory);
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let rows = self.plan.logit_rows.min(targets - first);
        let float = size_of::<f32>();
        let states = memory.states[1].slice(first * hidden * float, rows * hidden * float);
        narrow(driver, config.storage, [states, memory.head_inputs], rows * hidden)?;
        let head = decoder.weights.head;
        driver.product(&Product {
            a: Matrix::new(memory.head_inputs, config.storage, [rows, hidden]),
            b: Matrix::new(head, config.storage, [vocabulary, hidden]).transposed(),
            out: Matrix::new(memory.logits, Storage::F32, [rows, vocabulary]),
            scale: 1.0,
            accumulate: false,
        })?;
        Ok(LogitRows {
            rows,
            targets: memory.targets.slice(first * float, rows * float),
            scores: memory.scores.slice(2 * first * float, 2 * rows * float),
        })
    }

    /// The gradients of the adapter, by layer and target.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn gradients(
        &self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
    ) -> Result<Vec<AdapterGradient>, CudaError> {
        let mut found = Vec::new();
        let (Some(memory), Some(adapter)) = (&self.memory.backward, decoder.adapter()) else {
            return Ok(found);
        };
        for (index, (layer, gradients)) in adapter.layers.iter().zip(&memory.layers).enumerate() {
            for (fused, gradients) in layer.all().into_iter().zip(gradients) {
                fused.download(driver, index, gradients, &mut found)?;
            }
        }
        Ok(found)
    }
}

/// Logits that are there.
#[derive(Debug, Clone, Copy)]
struct LogitRows {
    rows: usize,
    targets: Buffer,
    scores: Buffer,
}
