//! Where a model's constructors get their tensors from.
//!
//! A constructor asks for each tensor by its checkpoint name and shape. A checkpoint reader answers
//! with stored values; [`RandomWeights`] answers with the initialisation named in the request, so
//! that training from nothing and loading share one constructor.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How a tensor starts when no checkpoint provides it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// All equal to the value.
    Constant(f64),
    /// Gaussian with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform on `±1/√fan_in`, which is PyTorch's `kaiming_uniform_(a=√5)`.
    KaimingUniform {
        /// Number of inputs of one output.
        fan_in: usize,
    },
}

/// Why a tensor could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The checkpoint has no tensor of that name.
    #[error("tensor `{name}` is missing from the checkpoint")]
    Missing {
        /// Name asked for.
        name: String,
    },
    /// The checkpoint's tensor has another shape than the configuration implies.
    #[error(
        "tensor `{name}` has shape {found:?}, but the configuration implies {expected:?}: \
         config.json and the weights do not belong together"
    )]
    Shape {
        /// Name asked for.
        name: String,
        /// Shape the configuration implies.
        expected: Vec<usize>,
        /// Shape stored in the checkpoint.
        found: Vec<usize>,
    },
    /// The checkpoint's tensor has an element type that is not a float this crate reads.
    #[error("tensor `{name}` has element type {found}; supported are F32, F16 and BF16")]
    Dtype {
        /// Name asked for.
        name: String,
        /// Element type stored in the checkpoint.
        found: String,
    },
    /// Reading failed for another reason.
    #[error("{0}")]
    Other(String),
}

/// Gives out tensors by canonical checkpoint name.
pub trait WeightSource {
    /// The tensor called `name` with exactly the shape `shape`.
    ///
    /// # Errors
    /// [`WeightError`] when the tensor is missing, misshapen or unreadable.
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<TensorData, WeightError>;
}

/// Whether a device holds weights of this type as they are. In f32 every one does; what else, is for
/// the device to say, and weights of a type that it does not compute with are widened on loading.
pub fn is_held(dtype: DType, device: &Device) -> bool {
    dtype == DType::F32 || device.supports_dtype(dtype)
}

/// A tensor in the type its values are given in, or in f32 where the device does not hold that.
pub(crate) fn as_stored<const D: usize>(data: TensorData, device: &Device) -> Tensor<D> {
    let dtype = data.dtype();
    if !is_held(dtype, device) {
        return widened(data, device);
    }
    Tensor::from_data(data, (device, dtype))
}

/// A tensor in f32, whatever type its values are given in.
pub(crate) fn widened<const D: usize>(data: TensorData, device: &Device) -> Tensor<D> {
    Tensor::from_data(data.convert_dtype(DType::F32), (device, DType::F32))
}

/// A source that draws every tensor from its requested initialisation.
///
/// Values depend on the seed and on the order of requests only.
#[derive(Debug)]
pub struct RandomWeights {
    rng: ChaCha8Rng,
}

impl RandomWeights {
    /// A source whose draws are determined by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }
}

impl WeightSource for RandomWeights {
    fn tensor(
        &mut self,
        _name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<TensorData, WeightError> {
        let count = shape.iter().product();
        Ok(TensorData::new(draw(&mut self.rng, count, init), shape.to_vec()))
    }
}

/// `count` values drawn as `init` says.
pub fn draw(rng: &mut impl Rng, count: usize, init: Init) -> Vec<f32> {
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Constant(value) => vec![value as f32; count],
        Init::Normal { std } => (0..count).map(|_| (gaussian(rng) * std) as f32).collect(),
        Init::KaimingUniform { fan_in } => {
            let bound = 1.0 / (fan_in as f64).sqrt();
            (0..count).map(|_| rng.random_range(-bound..bound) as f32).collect()
        }
    }
}

/// One standard normal draw by the Box–Muller transform.
fn gaussian(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}
