//! Updates of an adapter on the card: f32 weights, which are trained, beside those of the decoder, which are rounded copies.

use crate::adapter::{AdapterGradient, AdapterWeights};
use crate::decoder::Decoder;
use crate::kernels::{AdamW, adamw, global_norm, narrow, norm_scratch_bytes};
use crate::training::Training;
use crate::{Arena, Buffer, CudaError, Driver};

/// An adapter's weights in f32 and the moments of its gradients.
#[derive(Debug)]
pub struct AdapterOptimizer {
    arena: Buffer,
    weights: Vec<Trained>,
    sums: Buffer,
    /// The norm of the gradients and the factor that limits it, `[2]` f32.
    norm: Buffer,
    steps: i32,
}

/// What an optimizer knows, for a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptimizerState {
    /// Weights and moments, f32, in the order of the optimizer's memory.
    pub bytes: Vec<u8>,
    /// Steps taken.
    pub steps: i32,
}

/// One matrix.
#[derive(Debug, Clone, Copy)]
struct Trained {
    /// Number of weights.
    count: usize,
    weights: Buffer,
    /// First and second.
    moments: [Buffer; 2],
    /// The decoder's own, in its storage type.
    copy: Buffer,
    gradient: Buffer,
}

impl AdapterOptimizer {
    /// For the adapter of a decoder, whose f32 weights are `adapter`, as they were given to [`Decoder::set_adapter`].
    ///
    /// # Errors
    /// [`CudaError::Memory`], and those of the driver.
    ///
    /// # Panics
    /// When the decoder has no adapter, another one, or the plan of `training` is one without gradients.
    pub fn open(
        driver: &mut dyn Driver,
        decoder: &Decoder,
        training: &Training,
        adapter: &[AdapterWeights<'_>],
    ) -> Result<Self, CudaError> {
        let copies = decoder.adapter().expect("an adapter that is used");
        let copies = copies.matrices(decoder.config().storage.bytes());
        let gradients = training.gradient_buffers(decoder);
        let mut sorted: Vec<&AdapterWeights<'_>> = adapter.iter().collect();
        sorted.sort_by_key(|of| (of.layer, of.target));
        let values: Vec<&[f32]> = sorted.iter().flat_map(|of| [of.a, of.b]).collect();
        assert!(
            values.len() == copies.len() && values.len() == gradients.len(),
            "weights, copies and gradients of the same adapter"
        );
        let take = |arena: &mut Arena| {
            let of = |arena: &mut Arena| -> Vec<Buffer> {
                values.iter().map(|values| arena.take(size_of_val(*values))).collect()
            };
            let all = [of(arena), of(arena), of(arena)];
            (
                all,
                arena.take(norm_scratch_bytes(
                    training.gradient_memory().bytes() / size_of::<f32>(),
                )),
                arena.take(8),
            )
        };
        let mut counting = Arena::counting();
        take(&mut counting);
        let arena = driver.reserve(counting.used())?;
        driver.clear(arena)?;
        let ([weights, first, second], sums, norm) = take(&mut Arena::within(arena));
        let mut trained = Vec::with_capacity(values.len());
        for (index, values) in values.iter().enumerate() {
            driver.upload(weights[index], bytemuck::cast_slice(values))?;
            let (count, gradient) = (values.len(), gradients[index]);
            assert_eq!(gradient.bytes(), size_of_val(*values), "gradients of the same adapter");
            trained.push(Trained {
                count,
                weights: weights[index],
                moments: [first[index], second[index]],
                copy: copies[index],
                gradient,
            });
        }
        Ok(Self { arena, weights: trained, sums, norm, steps: 0 })
    }

    /// One step by the gradients that `training` has gathered, whose norm is limited to `limit` before; that norm. Gradients are left as they
    /// are. [`AdamW::step`] is counted here.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn step(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        training: &Training,
        settings: AdamW,
        limit: f32,
    ) -> Result<f32, CudaError> {
        self.steps += 1;
        let settings = AdamW { step: self.steps, ..settings };
        let all = training.gradient_memory();
        let count = all.bytes() / size_of::<f32>();
        global_norm(driver, [all, self.sums, self.norm], count, limit)?;
        let factor = self.norm.slice(4, 4);
        for of in &self.weights {
            let [first, second] = of.moments;
            let buffers = [of.weights, of.gradient, first, second, of.copy, factor];
            adamw(driver, decoder.config().storage, buffers, of.count, &settings)?;
        }
        let mut norm = [0.0_f32];
        driver.download(self.norm, bytemuck::cast_slice_mut(&mut norm))?;
        Ok(norm[0])
    }

    /// Copies the f32 weights from the card into the shapes of `like`, which are those of the gradients.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn download(
        &self,
        driver: &mut dyn Driver,
        like: &mut [AdapterGradient],
    ) -> Result<(), CudaError> {
        assert_eq!(2 * like.len(), self.weights.len(), "matrices of the same adapter");
        for (of, pair) in like.iter_mut().zip(self.weights.chunks_exact(2)) {
            for (values, trained) in [&mut of.a, &mut of.b].into_iter().zip(pair) {
                assert_eq!(values.len(), trained.count, "matrices of the same adapter");
                driver.download(trained.weights, bytemuck::cast_slice_mut(values))?;
            }
        }
        Ok(())
    }

    /// Everything that a later run needs to go on as this one: the f32 weights and the moments, as they lie in memory, and the number of
    /// steps.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn state(&self, driver: &mut dyn Driver) -> Result<OptimizerState, CudaError> {
        let mut bytes = vec![0; self.arena.bytes()];
        driver.download(self.arena, &mut bytes)?;
        Ok(OptimizerState { bytes, steps: self.steps })
    }

    /// Puts weights, moments and the number of steps in the place of those there are; the decoder's copies follow.
    ///
    /// # Errors
    /// [`CudaError::Weight`] for the state of another adapter, and those of the driver.
    pub fn restore(
        &mut self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        state: &OptimizerState,
    ) -> Result<(), CudaError> {
        if state.bytes.len() != self.arena.bytes() {
            return Err(CudaError::Weight {
                name: "state of the optimizer".to_owned(),
                problem: format!(
                    "{} bytes in the place of {}",
                    state.bytes.len(),
                    self.arena.bytes()
                ),
            });
        }
        driver.upload(self.arena, &state.bytes)?;
        self.steps = state.steps;
        for of in &self.weights {
            narrow(driver, decoder.config().storage, [of.weights, of.copy], of.count)?;
        }
        Ok(())
    }

    /// Gives the memory back.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn close(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        driver.release(self.arena)
    }
}
