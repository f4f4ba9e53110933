//! Prompts that are read, and sequences that continue them by one token a step.

use std::collections::HashMap;

use crate::arena::reserve;
use crate::decoder::Decoder;
use crate::forward::{Attention, Deep, LayerCaches, Pass};
use crate::kernels::{
    DecodingCache, Rotary, Rows, Sequences, embed, last_rows, move_row, narrow, rms_norm, sample,
};
use crate::plan::{Control, Plan, SessionMemory};
use crate::tokens::Tokens;
use crate::{Arena, Buffer, CudaError, Driver, Graph, Matrix, Product, Storage};

/// Prompts of equal length, shorter ones padded on the left.
#[derive(Debug, Clone, Copy)]
pub struct Prompts<'a> {
    /// What stands at each position.
    pub tokens: Tokens<'a>,
    /// Position of every row in its sequence, `[prompts · length]`, or of three axes, `[prompts · length, 3]`.
    pub positions: &'a [i32],
    /// Positions of padding before each prompt, `[prompts]`.
    pub padding: &'a [usize],
    /// What is added to the states behind the first layers, `[prompts · length, hidden]` for each of them. Empty in most models.
    pub deep: &'a [&'a [f32]],
}

/// Sequences that continue prompts.
#[derive(Debug, Clone, Default)]
pub struct Continuation {
    /// The prompt of each sequence.
    pub of: Vec<usize>,
    /// How far each sequence's positions are behind its places in the cache: by the padding, and by what an image has fewer positions
    /// than tokens.
    pub lag: Vec<usize>,
}

/// How the next token of a sequence is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Divides the logits; 0 takes the most likely token, the first of equals.
    pub temperature: f64,
    /// From the sequence's own random stream, from 0 to 1.
    pub uniform: f64,
}

/// How a step of so many rows is run.
#[derive(Debug, Clone, Copy)]
enum Prepared {
    /// It was run once, so that everything it needs is loaded and chosen.
    Once,
    /// It is captured.
    Captured(Graph),
}

/// What a captured step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct GraphKey {
    rows: usize,
    prompts: usize,
    adapted: bool,
}

/// A batch of prompts and their responses, in one arena.
#[derive(Debug)]
pub struct Session {
    plan: Plan,
    arena: Buffer,
    memory: SessionMemory,
    graphs: HashMap<GraphKey, Prepared>,
    prompts: usize,
    prompt_length: usize,
    padding: Vec<usize>,
    sequences: Continuation,
    /// Own positions of each sequence.
    filled: Vec<usize>,
    /// What is uploaded before a step.
    staged: Vec<i32>,
    logits: Vec<f32>,
}

impl Session {
    /// Reserves the arena of a plan.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where it does not fit, and those of the driver.
    pub fn open(driver: &mut dyn Driver, decoder: &Decoder, plan: Plan) -> Result<Self, CudaError> {
        let hint = "decode fewer sequences together, or shorter ones";
        let arena = reserve(driver, "the batch", plan.bytes(decoder), hint)?;
        let config = decoder.config();
        let memory = SessionMemory::take(&mut Arena::within(arena), config, &plan, decoder.ranks());
        let positions = plan.prompt_length + plan.new_tokens;
        driver.upload(memory.angles, bytemuck::cast_slice(&config.angles(positions)))?;
        let axes: Vec<i32> = config.position_axes.iter().map(|&axis| axis as i32).collect();
        driver.upload(memory.axes, bytemuck::cast_slice(&axes))?;
        let staged = vec![0; memory.control.whole.bytes() / size_of::<i32>()];
        Ok(Self {
            plan,
            arena,
            memory,
            graphs: HashMap::new(),
            prompts: 0,
            prompt_length: 0,
            padding: Vec::new(),
            sequences: Continuation::default(),
            filled: Vec::new(),
            staged,
            logits: Vec::new(),
        })
    }

    /// Gives the arena back.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn close(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        for prepared in self.graphs.into_values() {
            if let Prepared::Captured(graph) = prepared {
                driver.drop_graph(graph)?;
            }
        }
        driver.release(self.arena)
    }

    /// Reads prompts, in the place of those that were read before; no sequence continues them yet. The state at each prompt's last
    /// token, normed, `[prompts, hidden]`.
    ///
    /// # Errors
    /// [`CudaError::Capacity`] beyond the plan, and those of the driver.
    ///
    /// # Panics
    /// When lengths do not fit each other.
    pub fn prefill(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        prompts: &Prompts<'_>,
    ) -> Result<Vec<f32>, CudaError> {
        let config = decoder.config();
        let axes = config.axes();
        let count = prompts.padding.len();
        let rows = prompts.positions.len() / axes;
        let length = rows.checked_div(count).unwrap_or(0);
        assert_eq!(prompts.positions.len(), count * length * axes, "positions of every row");
        let within = |what, found, planned| {
            let refused = CudaError::Capacity { what, found, planned };
            if found > planned { Err(refused) } else { Ok(()) }
        };
        within("the number of prompts", count, self.plan.prompts)?;
        within("the length of the prompts", length, self.plan.prompt_length)?;
        (self.prompts, self.prompt_length) = (count, length);
        self.padding = prompts.padding.to_vec();
        self.sequences = Continuation::default();
        self.filled.clear();
        let padding: Vec<i32> = prompts.padding.iter().map(|&padding| padding as i32).collect();
        driver.upload(self.memory.prompt_padding, bytemuck::cast_slice(&padding))?;
        let chunk = self.plan.chunk(length);
        for first in (0..count).step_by(chunk) {
            self.read(driver, decoder, prompts, first..count.min(first + chunk))?;
        }
        let hidden = config.hidden;
        let mut last = vec![0.0_f32; count * hidden];
        driver.download(self.memory.last, bytemuck::cast_slice_mut(&mut last))?;
        Ok(last)
    }

    /// Reads some of the prompts.
    fn read(
        &self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        prompts: &Prompts<'_>,
        range: std::ops::Range<usize>,
    ) -> Result<(), CudaError> {
        let (config, memory) = (decoder.config(), &self.memory);
        let (hidden, axes, length) = (config.hidden, config.axes(), self.prompt_length);
        let places = range.start * length..range.end * length;
        let (batch, rows) = (range.len(), places.len());
        let x = memory.activations.x;
        prompts.tokens.upload(driver, decoder, [memory.prompt_tokens, x], places.clone())?;
        let positions = &prompts.positions[places.start * axes..places.end * axes];
        driver.upload(memory.prompt_positions, bytemuck::cast_slice(positions))?;
        let int = size_of::<i32>();
        let sequences = Sequences {
            batch,
            length,
            capacity: self.plan.prompt_length,
            padding: memory.prompt_padding.slice(range.start * int, batch * int),
            window: config.sliding_window,
            causal: true,
            segments: None,
        };
        let prompt = config.heads.keys() * self.plan.prompt_length * config.storage.bytes();
        let caches = memory
            .prompt_cache
            .map(|cache| LayerCaches::new(cache, config.layers, range.start * prompt));
        let pass = Pass {
            decoder,
            activations: &memory.activations,
            rotary: self.rotary(rows, memory.prompt_positions, axes),
            rows,
            attention: Attention::Sequences { sequences, caches, log_sums: Buffer::NULL },
        };
        let deep = Deep { states: prompts.deep, rows: places, memory: memory.deep };
        pass.run(driver, &deep)?;
        let row = hidden * size_of::<f32>();
        let last = memory.last.slice(range.start * row, batch * row);
        last_rows(driver, [x, last], [batch, length, hidden])?;
        let buffers = [last, Buffer::NULL, decoder.weights.norm, last];
        rms_norm(driver, Storage::F32, buffers, Rows { rows: batch, width: hidden }, config.epsilon)
    }

    fn rotary(&self, rows: usize, positions: Buffer, axes: usize) -> Rotary {
        Rotary { rows, table: self.memory.angles, positions, axis: self.memory.axes, axes }
    }

    /// Unnormalised log-probabilities of the token that follows each prompt, `[prompts, vocabulary]`.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn prompt_logits(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
    ) -> Result<&[f32], CudaError> {
        let config = decoder.config();
        let rows = self.prompts;
        let buffers = [self.memory.last, self.memory.head_inputs];
        narrow(driver, config.storage, buffers, rows * config.hidden)?;
        self.head(driver, decoder, rows)?;
        self.download_logits(driver, rows * config.vocabulary)
    }

    /// Multiplies the rows of `head_inputs` by the output matrix.
    fn head(
        &self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        rows: usize,
    ) -> Result<(), CudaError> {
        let config = decoder.config();
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let weight = decoder.weights.head;
        driver.product(&Product {
            a: Matrix::new(self.memory.head_inputs, config.storage, [rows, hidden]),
            b: Matrix::new(weight, config.storage, [vocabulary, hidden]).transposed(),
            out: Matrix::new(self.memory.logits, Storage::F32, [rows, vocabulary]),
            scale: 1.0,
            accumulate: false,
        })
    }

    fn download_logits(
        &mut self,
        driver: &mut dyn Driver,
        count: usize,
    ) -> Result<&[f32], CudaError> {
        self.logits.resize(count, 0.0);
        driver.download(self.memory.logits, bytemuck::cast_slice_mut(&mut self.logits))?;
        Ok(&self.logits)
    }

    /// Begins a sequence for each entry, behind its prompt. Those there were end.
    ///
    /// # Errors
    /// [`CudaError::Capacity`] beyond the plan.
    ///
    /// # Panics
    /// When a prompt was not read.
    pub fn begin(&mut self, sequences: Continuation) -> Result<(), CudaError> {
        let (found, planned) = (sequences.of.len(), self.plan.rows);
        if found > planned {
            return Err(CudaError::Capacity { what: "the number of sequences", found, planned });
        }
        assert_eq!(sequences.lag.len(), found, "a lag for every sequence");
        assert!(sequences.of.iter().all(|&prompt| prompt < self.prompts), "prompts that were read");
        self.filled = vec![0; found];
        self.sequences = sequences;
        Ok(())
    }

    /// Number of sequences.
    pub fn rows(&self) -> usize {
        self.filled.len()
    }

    /// Appends one token to each sequence; unnormalised log-probabilities of the tokens that follow, `[sequences, vocabulary]`.
    ///
    /// # Errors
    /// [`CudaError::Capacity`] where a sequence is as long as it was planned, and those of the driver.
    ///
    /// # Panics
    /// When there are more or fewer tokens than sequences.
    pub fn step(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        tokens: &[u32],
    ) -> Result<&[f32], CudaError> {
        self.advance(driver, decoder, tokens)?;
        self.download_logits(driver, tokens.len() * decoder.config().vocabulary)
    }

    /// The same, but a token of each sequence and its log-probability: logits stay on the card. With the same draws, the tokens are
    /// those that the sampler on the CPU takes.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub fn step_sampled(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        tokens: &[u32],
        draws: &[Draw],
    ) -> Result<Vec<(u32, f32)>, CudaError> {
        assert_eq!(draws.len(), tokens.len(), "a draw for every sequence");
        self.advance(driver, decoder, tokens)?;
        let scale = |temperature: f64| if temperature > 0.0 { 1.0 / temperature } else { 0.0 };
        let draws: Vec<f64> =
            draws.iter().flat_map(|draw| [scale(draw.temperature), draw.uniform]).collect();
        driver.upload(self.memory.draws, bytemuck::cast_slice(&draws))?;
        let (rows, bytes) = (tokens.len(), size_of_val(tokens));
        let [ids, log_probs] = [0, 1].map(|half| self.memory.sampled.slice(half * bytes, bytes));
        let size = Rows { rows, width: decoder.config().vocabulary };
        sample(driver, [self.memory.logits, self.memory.draws, ids, log_probs], size)?;
        let mut found = vec![0_u32; 2 * rows];
        driver.download(self.memory.sampled, bytemuck::cast_slice_mut(&mut found))?;
        let (ids, log_probs) = found.split_at(rows);
        Ok(ids.iter().zip(log_probs).map(|(&id, &bits)| (id, f32::from_bits(bits))).collect())
    }

    fn advance(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        tokens: &[u32],
    ) -> Result<(), CudaError> {
        assert_eq!(tokens.len(), self.rows(), "one token per sequence");
        let longest = self.filled.iter().copied().max().unwrap_or(0);
        if longest >= self.plan.new_tokens {
            let (what, planned) = ("the length of a sequence", self.plan.new_tokens);
            return Err(CudaError::Capacity { what, found: longest + 1, planned });
        }
        if tokens.is_empty() {
            return Ok(());
        }
        let rows = self.bucket(tokens.len());
        self.stage(tokens, decoder.config().axes());
        driver.upload(self.memory.control.whole, bytemuck::cast_slice(&self.staged))?;
        let adapted = decoder.adapter().is_some();
        let key = GraphKey { rows, prompts: self.prompts, adapted };
        match self.graphs.get(&key).copied() {
            None => {
                self.run_step(driver, decoder, rows)?;
                self.graphs.insert(key, Prepared::Once);
            }
            Some(Prepared::Once) => {
                driver.begin_capture()?;
                self.run_step(driver, decoder, rows)?;
                let graph = driver.end_capture()?;
                self.graphs.insert(key, Prepared::Captured(graph));
                driver.launch_graph(graph)?;
            }
            Some(Prepared::Captured(graph)) => driver.launch_graph(graph)?,
        }
        self.filled.iter_mut().for_each(|filled| *filled += 1);
        Ok(())
    }

    /// Rows that a step of so many sequences is run with.
    fn bucket(&self, rows: usize) -> usize {
        let bucket = if rows <= 4 { rows.next_power_of_two() } else { rows.next_multiple_of(8) };
        bucket.min(self.plan.rows)
    }

    /// Writes down what a step reads of its sequences. Rows without a sequence have negative positions.
    fn stage(&mut self, tokens: &[u32], axes: usize) {
        let Self { staged, sequences, filled, memory, .. } = self;
        let Control { whole, positions, .. } = memory.control;
        let first = |part: Buffer| (part.address() - whole.address()) as usize / size_of::<i32>();
        let control = memory.control;
        let [at_tokens, at_filled, at_padding, at_members, at_groups, at_length] = [
            control.tokens,
            control.filled,
            control.padding,
            control.members,
            control.groups,
            control.prompt_length,
        ]
        .map(first);
        let at_positions = first(positions);
        staged.fill(0);
        staged[at_filled..at_padding].fill(-1);
        for (row, &token) in tokens.iter().enumerate() {
            let place = self.prompt_length + filled[row];
            let position = (place - sequences.lag[row]) as i32;
            staged[at_tokens + row] = token as i32;
            staged[at_positions + row * axes..][..axes].fill(position);
            staged[at_filled + row] = filled[row] as i32;
            staged[at_padding + row] = self.padding[sequences.of[row]] as i32;
        }
        let mut members = 0;
        for prompt in 0..self.prompts {
            for (row, &of) in sequences.of.iter().enumerate() {
                if of == prompt {
                    staged[at_members + members] = row as i32;
                    members += 1;
                }
            }
            staged[at_groups + prompt + 1] = members as i32;
        }
        staged[at_length] = self.prompt_length as i32;
    }

    /// Everything of a step that is computed on the card.
    fn run_step(
        &self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        rows: usize,
    ) -> Result<(), CudaError> {
        let (config, memory) = (decoder.config(), &self.memory);
        let control = memory.control;
        let size = Rows { rows, width: config.hidden };
        let x = memory.activations.x;
        embed(driver, config.storage, [control.tokens, decoder.weights.table, x], size)?;
        let [prompt_keys, prompt_values] = memory.prompt_cache;
        let [own_keys, own_values] = memory.own_cache;
        let cache = DecodingCache {
            prompt_keys,
            prompt_values,
            own_keys,
            own_values,
            groups: control.groups,
            members: control.members,
            filled: control.filled,
            padding: control.padding,
            prompt_length: control.prompt_length,
            prompts: self.prompts,
            prompt_capacity: self.plan.prompt_length,
            capacity: self.plan.new_tokens,
            window: config.sliding_window,
        };
        let caches = [prompt_keys, prompt_values, own_keys, own_values]
            .map(|cache| LayerCaches::new(cache, config.layers, 0));
        let pass = Pass {
            decoder,
            activations: &memory.activations,
            rotary: self.rotary(rows, control.positions, config.axes()),
            rows,
            attention: Attention::Decoding { cache, caches, partial: memory.partial },
        };
        pass.run(driver, &Deep::NONE)?;
        let buffers = [x, Buffer::NULL, decoder.weights.norm, memory.head_inputs];
        rms_norm(driver, config.storage, buffers, size, config.epsilon)?;
        self.head(driver, decoder, rows)
    }

    /// Takes the last `positions` of its own from the sequence at `row`; the others stay as long as they are.
    ///
    /// # Panics
    /// When it has fewer.
    pub fn rewind(&mut self, row: usize, positions: usize) {
        self.filled[row] -= positions;
    }

    /// Ends the sequence at `row`; the last one takes its place.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn swap_remove(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        row: usize,
    ) -> Result<(), CudaError> {
        self.sequences.of.swap_remove(row);
        self.sequences.lag.swap_remove(row);
        self.filled.swap_remove(row);
        let last = self.filled.len();
        if row == last || self.filled[row] == 0 {
            return Ok(());
        }
        let config = decoder.config();
        let elements = config.heads.keys() * self.plan.new_tokens;
        for cache in self.memory.own_cache {
            let size = [config.layers, self.plan.rows, elements];
            move_row(driver, config.storage, cache, size, [last, row])?;
        }
        Ok(())
    }
}
