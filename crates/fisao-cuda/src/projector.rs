//! Linear layers with a GELU between them: projectors of image states into a decoder's space.

use crate::arena::{FEWER_IMAGES, with_reserved};
use crate::kernels::{Gelu, Rows, add_bias, gelu, narrow};
use crate::weights::{OnCard, Upload, WeightSource, filled};
use crate::{Arena, Buffer, CudaError, Driver, Matrix, Product, Storage};

/// Rows that are on the card at a time: enough for products at full speed.
const AT_ONCE: usize = 4096;

/// Sizes of a projector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectorConfig {
    /// Element type of matrices and activations; input and output are f32.
    pub storage: Storage,
    /// Width of the input.
    pub input: usize,
    /// Width of each layer's output, at least one.
    pub outputs: Vec<usize>,
    /// Whether layers have a bias.
    pub bias: bool,
    /// Non-linearity between layers.
    pub activation: Gelu,
}

/// One layer: `[out, in]`, and `[out]` f32 or null.
type Linear = [Buffer; 2];

/// A projector whose weights are on a card.
#[derive(Debug)]
pub struct Projector {
    config: ProjectorConfig,
    memory: Buffer,
    layers: Vec<Linear>,
}

impl ProjectorConfig {
    /// Inputs and outputs of each layer.
    fn sizes(&self) -> impl Iterator<Item = [usize; 2]> {
        let inputs = std::iter::once(&self.input).chain(&self.outputs);
        inputs.zip(&self.outputs).map(|(&inputs, &outputs)| [inputs, outputs])
    }

    fn take_layers(&self, arena: &mut Arena) -> Vec<Linear> {
        let mut take = |[inputs, outputs]: [usize; 2]| {
            let matrix = arena.take(inputs * outputs * self.storage.bytes());
            let bias = self.bias.then(|| arena.take(outputs * size_of::<f32>()));
            [matrix, bias.unwrap_or(Buffer::NULL)]
        };
        self.sizes().map(&mut take).collect()
    }

    /// Bytes of the weights on a card.
    pub fn weight_bytes(&self) -> usize {
        let mut arena = Arena::counting();
        self.take_layers(&mut arena);
        arena.used()
    }

    /// Bytes of the arena that `rows` rows need beside the weights.
    pub fn bytes(&self, rows: usize) -> usize {
        let mut arena = Arena::counting();
        Activations::take(&mut arena, self, rows.min(AT_ONCE));
        arena.used()
    }
}

/// Memory for some rows.
struct Activations {
    /// Input, later output, `[rows, input or output]` f32.
    wide: Buffer,
    /// What each layer multiplies.
    inputs: Vec<Buffer>,
}

impl Activations {
    fn take(arena: &mut Arena, config: &ProjectorConfig, rows: usize) -> Self {
        let last = config.outputs.last().copied().unwrap_or_default();
        let wide = arena.take(rows * config.input.max(last) * size_of::<f32>());
        let element = config.storage.bytes();
        let inputs = config.sizes().map(|[inputs, _]| arena.take(rows * inputs * element));
        Self { wide, inputs: inputs.collect() }
    }
}

impl OnCard for Projector {
    type Config = ProjectorConfig;

    /// Uploads `{prefix}.N.weight` and, where there are biases, `{prefix}.N.bias`.
    fn load(
        driver: &mut dyn Driver,
        config: ProjectorConfig,
        source: &mut dyn WeightSource,
        prefix: &str,
    ) -> Result<Self, CudaError> {
        let needed = ("the projector's weights", config.weight_bytes());
        let place = |memory| {
            let layers = config.take_layers(&mut Arena::within(memory));
            Self { config, memory, layers }
        };
        filled(driver, needed, place, |projector, driver| {
            projector.upload(&mut Upload { driver, source }, prefix)
        })
    }

    fn memory(&self) -> Buffer {
        self.memory
    }
}

impl Projector {
    /// Sizes.
    pub fn config(&self) -> &ProjectorConfig {
        &self.config
    }

    fn upload(&self, upload: &mut Upload<'_>, prefix: &str) -> Result<(), CudaError> {
        let layers = self.layers.iter().zip(self.config.sizes());
        for (index, (&[matrix, bias], [inputs, outputs])) in layers.enumerate() {
            let weight = format!("{prefix}.{index}.weight");
            let shape = [outputs, inputs];
            upload.tensors(matrix, self.config.storage, &[(weight, &shape[..])])?;
            if self.config.bias {
                let name = format!("{prefix}.{index}.bias");
                upload.tensors(bias, Storage::F32, &[(name, &[outputs][..])])?;
            }
        }
        Ok(())
    }

    /// `[rows, input]` → `[rows, last output]`, a few thousand rows at a time.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, and those of the driver.
    ///
    /// # Panics
    /// When the input has no whole number of rows.
    pub fn forward(&self, driver: &mut dyn Driver, x: &[f32]) -> Result<Vec<f32>, CudaError> {
        let input = self.config.input;
        assert!(x.len().is_multiple_of(input), "rows of {input} numbers");
        let rows = x.len() / input;
        let bytes = self.config.bytes(rows);
        with_reserved(driver, "projected images", bytes, FEWER_IMAGES, |driver, arena| {
            let memory = Activations::take(arena, &self.config, rows.min(AT_ONCE));
            let parts = x.chunks(AT_ONCE * input).map(|x| self.run(driver, &memory, x));
            Ok(parts.collect::<Result<Vec<_>, _>>()?.concat())
        })
    }

    fn run(
        &self,
        driver: &mut dyn Driver,
        memory: &Activations,
        x: &[f32],
    ) -> Result<Vec<f32>, CudaError> {
        let ProjectorConfig { storage, input, activation, .. } = self.config;
        let rows = x.len() / input;
        driver.upload(memory.wide, bytemuck::cast_slice(x))?;
        narrow(driver, storage, [memory.wide, memory.inputs[0]], x.len())?;
        for (index, (&[matrix, bias], [inputs, outputs])) in
            self.layers.iter().zip(self.config.sizes()).enumerate()
        {
            let a = Matrix::new(memory.inputs[index], storage, [rows, inputs]);
            let b = Matrix::new(matrix, storage, [outputs, inputs]).transposed();
            let size = Rows { rows, width: outputs };
            let next = memory.inputs.get(index + 1);
            let (to, to_storage) = next.map_or((memory.wide, Storage::F32), |&to| (to, storage));
            let out = Matrix::new(to, to_storage, [rows, outputs]);
            driver.product(&Product { a, b, out, scale: 1.0, accumulate: false })?;
            if next.is_some() {
                gelu(driver, storage, [to, bias], size, activation)?;
            } else if self.config.bias {
                add_bias(driver, [to, bias], size)?;
            }
        }
        let outputs = self.config.outputs.last().copied().unwrap_or_default();
        let mut projected = vec![0.0_f32; rows * outputs];
        driver.download(memory.wide, bytemuck::cast_slice_mut(&mut projected))?;
        Ok(projected)
    }
}
