//! Log-probabilities and entropies of given tokens, and the gradients of an adapter with respect to them.
//!
//! The forward pass keeps the input of each layer; the backward pass recomputes the rest of a layer from it. Logits are there for some
//! rows at a time.

use crate::adapter::{AdapterGradient, FusedGradients, LowRankScratch};
use crate::decoder::Decoder;
use crate::forward::{Attention, LayerCaches, Pass};
use crate::kernels::{
    AttentionGradients, HeadTransforms, Rotary, Rows, Segments, Sequences, add_rows,
    attention_backward, gather_rows, log_probs, log_probs_backward, narrow, rms_norm,
    rms_norm_backward, rotary_backward, swiglu_backward,
};
use crate::plan::Activations;
use crate::tokens::Tokens;
use crate::{Arena, Buffer, CudaError, DecoderConfig, Driver, Matrix, Product, Storage};

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

/// What a batch needs.
#[derive(Debug, Clone)]
struct TrainingMemory {
    angles: Buffer,
    axes: Buffer,
    tokens: Buffer,
    positions: Buffer,
    padding: Buffer,
    rows: Buffer,
    targets: Buffer,
    /// Input of each layer, `[layers, rows, hidden]` f32; without gradients of none.
    kept: Buffer,
    activations: Activations,
    /// Keys and values of one layer, `[sequences, key heads, length, size]`.
    caches: [Buffer; 2],
    /// `[sequences, heads, length]` f32
    log_sums: Buffer,
    /// States that are scored, before and behind the norm, `[targets, hidden]` f32.
    states: [Buffer; 2],
    /// `[logit rows, hidden]`
    head_inputs: Buffer,
    /// `[logit rows, vocabulary]` f32
    logits: Buffer,
    /// `[targets, 2]` f32
    scores: Buffer,
    backward: Option<BackwardMemory>,
}

/// What the backward pass needs besides.
#[derive(Debug, Clone)]
struct BackwardMemory {
    /// Gradient of the residual stream, `[rows, hidden]` f32.
    by_x: Buffer,
    /// The same in the storage type.
    by_x_narrow: Buffer,
    /// `[rows, hidden]`
    by_normed: Buffer,
    /// `[rows, intermediate]`
    by_inner: Buffer,
    /// `[rows, 2 · intermediate]`
    by_gate_up: Buffer,
    /// `[rows, heads · size]`
    by_mixed: Buffer,
    /// `[rows, heads · size]`
    by_queries: Buffer,
    /// `[sequences, key heads, length, size]`
    by_keys: [Buffer; 2],
    /// `[rows, (heads + 2 · key heads) · size]`
    by_query_key_value: Buffer,
    /// `[sequences, heads, length]` f32
    deltas: Buffer,
    /// `[rows, Σ rank]`
    by_low: Buffer,
    /// `[targets, 2]` f32
    by_scores: Buffer,
    /// `[targets, hidden]` f32: of states before the norm, and of those behind it.
    by_states: [Buffer; 2],
    /// `[logit rows, vocabulary]`
    by_logits: Buffer,
    /// `[logit rows, hidden]`
    by_head_inputs: Buffer,
    /// Of all paths.
    gradients: Buffer,
    layers: Vec<[FusedGradients; 4]>,
}

impl TrainingMemory {
    fn take(arena: &mut Arena, decoder: &Decoder, plan: &TrainingPlan) -> Self {
        let config = decoder.config();
        let (int, float, element) = (size_of::<i32>(), size_of::<f32>(), config.storage.bytes());
        let TrainingPlan { sequences, length, targets, logit_rows, backward } = *plan;
        let (heads, rows, axes) = (config.heads, sequences * length, config.axes());
        let kept = if backward { config.layers } else { 0 };
        let wide = targets * config.hidden * float;
        Self {
            angles: arena.take(length * heads.size * float),
            axes: if axes == 1 { Buffer::NULL } else { arena.take(heads.size / 2 * int) },
            tokens: arena.take(rows * int),
            positions: arena.take(rows * axes * int),
            padding: arena.take(sequences * int),
            rows: arena.take(targets * int),
            targets: arena.take(targets * int),
            kept: arena.take(kept * rows * config.hidden * float),
            activations: Activations::take(arena, config, rows, decoder.ranks()),
            caches: [(); 2].map(|()| arena.take(rows * heads.keys() * element)),
            log_sums: arena.take(rows * heads.heads * float),
            states: [(); 2].map(|()| arena.take(wide)),
            head_inputs: arena.take(logit_rows * config.hidden * element),
            logits: arena.take(logit_rows * config.vocabulary * float),
            scores: arena.take(targets * 2 * float),
            backward: backward.then(|| BackwardMemory::take(arena, decoder, plan)),
        }
    }
}

impl BackwardMemory {
    fn take(arena: &mut Arena, decoder: &Decoder, plan: &TrainingPlan) -> Self {
        let config = decoder.config();
        let (float, element) = (size_of::<f32>(), config.storage.bytes());
        let TrainingPlan { sequences, length, targets, logit_rows, .. } = *plan;
        let (heads, rows) = (config.heads, sequences * length);
        // A separate count first: what is taken for gradients lies in one piece.
        let gradients = |arena: &mut Arena| -> Vec<[FusedGradients; 4]> {
            let layers = decoder.adapter().map_or(&[][..], |adapter| &adapter.layers);
            layers.iter().map(|layer| layer.all().map(|fused| fused.gradients(arena))).collect()
        };
        let mut counting = Arena::counting();
        gradients(&mut counting);
        let wide = targets * config.hidden * float;
        let by_x = arena.take(rows * config.hidden * float);
        let of_gradients = arena.take(counting.used());
        let mut take = |count: usize, width: usize| arena.take(count * width * element);
        Self {
            by_x,
            by_x_narrow: take(rows, config.hidden),
            by_normed: take(rows, config.hidden),
            by_inner: take(rows, config.intermediate),
            by_gate_up: take(rows, 2 * config.intermediate),
            by_mixed: take(rows, heads.queries()),
            by_queries: take(rows, heads.queries()),
            by_keys: [(); 2].map(|()| take(rows, heads.keys())),
            by_query_key_value: take(rows, heads.fused()),
            by_low: take(rows, decoder.ranks()),
            by_logits: take(logit_rows, config.vocabulary),
            by_head_inputs: take(logit_rows, config.hidden),
            deltas: arena.take(rows * heads.heads * float),
            by_scores: arena.take(targets * 2 * float),
            by_states: [(); 2].map(|()| arena.take(wide)),
            gradients: of_gradients,
            layers: gradients(&mut Arena::within(of_gradients)),
        }
    }
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
        let (needed, free) = (plan.bytes(decoder), driver.memory()?.free);
        if needed > free {
            let hint = "set align.micro-batch lower, or shorten responses";
            return Err(CudaError::Memory { what: "the update", needed, free, hint });
        }
        let arena = driver.reserve(needed)?;
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
        for layer in 0..config.layers {
            self.keep(driver, config, layer, rows)?;
            pass.layer(driver, layer)?;
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

    /// Adds to the gradients of the adapter those of `Σ by_log_probs · log p + by_entropies · H + ⟨by_states, states⟩` over the tokens
    /// of the batch that went forward last.
    ///
    /// * `by_log_probs`, `by_entropies` — `[targets]`
    /// * `by_states` — `[targets, hidden]`, or empty
    ///
    /// # Errors
    /// Those of the driver.
    ///
    /// # Panics
    /// When no batch went forward, or the plan is one without gradients.
    pub fn backward(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        [by_log_probs, by_entropies, by_states]: [&[f32]; 3],
    ) -> Result<(), CudaError> {
        let config = decoder.config();
        let forwarded = self.forwarded.expect("a batch that went forward");
        let Forwarded { sequences, length, targets, temperature, segments } = forwarded;
        let memory = self.memory.backward.as_ref().expect("a plan with gradients");
        let rows = sequences * length;
        assert!(
            by_log_probs.len() == targets && by_entropies.len() == targets,
            "a gradient for every scored token"
        );
        let scale = loss_scale(config.storage, [by_log_probs, by_entropies, by_states]);
        let by_scores: Vec<f32> = by_log_probs
            .iter()
            .zip(by_entropies)
            .flat_map(|(&p, &h)| [scale * p, scale * h])
            .collect();
        driver.upload(memory.by_scores, bytemuck::cast_slice(&by_scores))?;
        self.head_backward(driver, decoder, memory, targets, temperature)?;
        let wanted = Rows { rows: targets, width: config.hidden };
        let [by_before, by_behind] = memory.by_states;
        if !by_states.is_empty() {
            assert_eq!(by_states.len(), targets * config.hidden, "a gradient for every state");
            let scaled: Vec<f32> = by_states.iter().map(|x| scale * x).collect();
            driver.upload(by_behind, bytemuck::cast_slice(&scaled))?;
            let norm = [self.memory.states[0], decoder.weights.norm, by_behind, by_before];
            rms_norm_backward(driver, Storage::F32, norm, wanted, config.epsilon)?;
        }
        driver.clear(memory.by_x.slice(0, rows * config.hidden * size_of::<f32>()))?;
        add_rows(driver, [by_before, self.memory.rows, memory.by_x], wanted)?;
        let pass = self.pass(decoder, [sequences, length], segments);
        for layer in (0..config.layers).rev() {
            self.layer_backward(driver, &pass, memory, layer, scale.recip())?;
        }
        Ok(())
    }

    /// From the scores to the states before the last norm.
    fn head_backward(
        &self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        memory: &BackwardMemory,
        targets: usize,
        temperature: f32,
    ) -> Result<(), CudaError> {
        let config = decoder.config();
        let (storage, hidden, vocabulary) = (config.storage, config.hidden, config.vocabulary);
        let float = size_of::<f32>();
        let by_before = memory.by_states[0];
        driver.clear(by_before.slice(0, targets * hidden * float))?;
        for first in (0..targets).step_by(self.plan.logit_rows) {
            let part = self.logits(driver, decoder, first, targets)?;
            let rows = part.rows;
            let by_scores = memory.by_scores.slice(2 * first * float, 2 * rows * float);
            let buffers = [self.memory.logits, part.targets, by_scores, memory.by_logits];
            let size = Rows { rows, width: vocabulary };
            log_probs_backward(driver, storage, buffers, size, temperature)?;
            driver.product(&Product {
                a: Matrix::new(memory.by_logits, storage, [rows, vocabulary]),
                b: Matrix::new(decoder.weights.head, storage, [vocabulary, hidden]),
                out: Matrix::new(memory.by_head_inputs, storage, [rows, hidden]),
                scale: 1.0,
                accumulate: false,
            })?;
            let part = |buffer: Buffer| buffer.slice(first * hidden * float, rows * hidden * float);
            let states = part(self.memory.states[0]);
            let to = part(by_before);
            let norm = [states, decoder.weights.norm, memory.by_head_inputs, to];
            let size = Rows { rows, width: hidden };
            rms_norm_backward(driver, storage, norm, size, config.epsilon)?;
        }
        Ok(())
    }

    /// Takes the gradient of the residual stream from the output of a layer to its input.
    fn layer_backward(
        &self,
        driver: &mut dyn Driver,
        pass: &Pass<'_>,
        memory: &BackwardMemory,
        index: usize,
        unscale: f32,
    ) -> Result<(), CudaError> {
        let decoder = pass.decoder;
        let config = decoder.config();
        let weights = &decoder.weights.layers[index];
        let Activations { x, normed, query_key_value, queries, mixed, gate_up, inner, low } =
            self.memory.activations;
        let (storage, heads, rows) = (config.storage, config.heads, pass.rows);
        let (hidden, width) = (config.hidden, config.intermediate);
        let size = Rows { rows, width: hidden };
        let scratch = LowRankScratch { low, by_low: memory.by_low };
        let gradients = memory.layers.get(index);
        // ∂x = ∂y W, and the paths of an adapter.
        let linear = |driver: &mut dyn Driver,
                      which: usize,
                      weight,
                      [input, by_out, by_input]: [Matrix; 3]| {
            let b = Matrix::new(weight, storage, [by_out.columns, by_input.columns]);
            let product = Product { a: by_out, b, out: by_input, scale: 1.0, accumulate: false };
            driver.product(&product)?;
            match (pass.adapter(index), gradients) {
                (Some(adapter), Some(gradients)) => {
                    let matrices = [input, by_out, by_input];
                    let fused = adapter.all()[which];
                    fused.backward(driver, storage, matrices, scratch, &gradients[which], unscale)
                }
                _ => Ok(()),
            }
        };
        let narrowed = |driver: &mut dyn Driver| {
            narrow(driver, storage, [memory.by_x, memory.by_x_narrow], rows * hidden)
        };
        let by_x = pass.matrix(memory.by_x_narrow, hidden);

        let kept = self.kept(config, index, rows);
        driver.copy(kept, x.slice(0, kept.bytes()))?;
        pass.attention_input(driver, index)?;
        pass.attention_output(driver, index)?;
        pass.feed_forward_input(driver, index)?;

        narrowed(driver)?;
        let by_inner = pass.matrix(memory.by_inner, width);
        linear(driver, 3, weights.down, [pass.matrix(inner, width), by_x, by_inner])?;
        let buffers = [gate_up, memory.by_inner, memory.by_gate_up];
        swiglu_backward(driver, storage, buffers, Rows { rows, width })?;
        let by_gate_up = pass.matrix(memory.by_gate_up, 2 * width);
        let (input, by_normed) =
            (pass.matrix(normed, hidden), pass.matrix(memory.by_normed, hidden));
        linear(driver, 2, weights.gate_up, [input, by_gate_up, by_normed])?;
        let norm = [x, weights.post_attention_norm, memory.by_normed, memory.by_x];
        rms_norm_backward(driver, storage, norm, size, config.epsilon)?;

        narrowed(driver)?;
        let by_mixed = pass.matrix(memory.by_mixed, heads.queries());
        let of_attention = [pass.matrix(mixed, heads.queries()), by_x, by_mixed];
        linear(driver, 1, weights.output, of_attention)?;
        let [keys, values] = self.memory.caches;
        let [by_keys, by_values] = memory.by_keys;
        let Attention::Sequences { sequences: seen, .. } = pass.attention else {
            unreachable!("training passes are of whole sequences")
        };
        let attention = AttentionGradients {
            q: queries,
            k: keys,
            v: values,
            out: mixed,
            log_sums: self.memory.log_sums,
            by_out: memory.by_mixed,
            deltas: memory.deltas,
            by_q: memory.by_queries,
            by_k: by_keys,
            by_v: by_values,
        };
        attention_backward(driver, storage, &attention, heads, &seen)?;
        let transforms = HeadTransforms {
            bias: weights.query_key_value_bias,
            query_norm: weights.query_norm,
            key_norm: weights.key_norm,
            epsilon: config.epsilon,
        };
        let fused = memory.by_query_key_value;
        let buffers = [query_key_value, memory.by_queries, by_keys, by_values, fused];
        rotary_backward(driver, storage, buffers, seen.length, heads, &transforms, &pass.rotary)?;
        driver.copy(kept, x.slice(0, kept.bytes()))?;
        pass.input_norm(driver, index)?;
        let by_fused = pass.matrix(fused, heads.fused());
        linear(driver, 0, weights.query_key_value, [input, by_fused, by_normed])?;
        let norm = [x, weights.input_norm, memory.by_normed, memory.by_x];
        rms_norm_backward(driver, storage, norm, size, config.epsilon)
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

impl Training {
    /// Gradients of A and B of every path, by layer and target; none where the plan is one without gradients.
    pub(crate) fn gradient_buffers(&self, decoder: &Decoder) -> Vec<Buffer> {
        let (Some(memory), Some(adapter)) = (&self.memory.backward, decoder.adapter()) else {
            return Vec::new();
        };
        let layers = adapter.layers.iter().zip(&memory.layers);
        let all = layers.flat_map(|(layer, gradients)| layer.all().into_iter().zip(gradients));
        all.flat_map(|(fused, gradients)| fused.gradient_matrices(gradients)).collect()
    }

    /// All gradients in one piece; zero between them.
    pub(crate) fn gradient_memory(&self) -> Buffer {
        self.memory.backward.as_ref().map_or(Buffer::NULL, |backward| backward.gradients)
    }
}

/// What the largest gradient of a score becomes in f16, where numbers below 6e-8 are lost.
const LARGEST: f32 = 16.0;

/// The power of two that gradients are multiplied by on their way through the layers, so that they are numbers that f16 has.
fn loss_scale(storage: Storage, by: [&[f32]; 3]) -> f32 {
    let most = by.into_iter().flatten().fold(0.0_f32, |most, x| most.max(x.abs()));
    if storage == Storage::F16 && most > 0.0 && most.is_finite() {
        (LARGEST / most).log2().floor().clamp(-60.0, 60.0).exp2()
    } else {
        1.0
    }
}

/// Logits that are there.
#[derive(Debug, Clone, Copy)]
struct LogitRows {
    rows: usize,
    targets: Buffer,
    scores: Buffer,
}
