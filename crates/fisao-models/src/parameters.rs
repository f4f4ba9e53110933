//! A walk over a model's tensors under their checkpoint names.
//!
//! Everything that treats a model as a bag of tensors (saving, optimising, hashing, summing
//! gradients) is written once against [`Parameters`].

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};

/// One tensor of a model, by rank.
#[derive(Debug)]
pub enum ParameterMut<'a> {
    /// A single number, stored as a vector of length 1 and saved with shape `[]`.
    Scalar(&'a mut Tensor<1>),
    /// `[n]`.
    Vector(&'a mut Tensor<1>),
    /// `[out, in]`.
    Matrix(&'a mut Tensor<2>),
    /// `[1, positions, width]`: vectors that are stored as a batch of one.
    Batch(&'a mut Tensor<3>),
    /// `[out, in, height, width]`.
    Kernel(&'a mut Tensor<4>),
    /// `[out, in, frames, height, width]`.
    Volume(&'a mut Tensor<5>),
}

macro_rules! each {
    ($self:expr, $tensor:ident => $body:expr) => {
        match $self {
            ParameterMut::Scalar($tensor) => $body,
            ParameterMut::Vector($tensor) => $body,
            ParameterMut::Matrix($tensor) => $body,
            ParameterMut::Batch($tensor) => $body,
            ParameterMut::Kernel($tensor) => $body,
            ParameterMut::Volume($tensor) => $body,
        }
    };
}

/// A model's tensor that another one may hold, too; nothing of it is copied.
#[derive(Debug, Clone)]
pub enum SharedParameter {
    /// A number or a vector.
    Vector(Tensor<1>),
    /// A matrix, in the layout and type that it has.
    Matrix(Tensor<2>),
    /// Vectors stored as a batch of one.
    Batch(Tensor<3>),
    /// A kernel.
    Kernel(Tensor<4>),
    /// A kernel over frames.
    Volume(Tensor<5>),
}

impl ParameterMut<'_> {
    /// The tensor, for another model to hold.
    pub fn share(&self) -> SharedParameter {
        match self {
            Self::Scalar(tensor) | Self::Vector(tensor) => {
                SharedParameter::Vector((**tensor).clone())
            }
            Self::Matrix(tensor) => SharedParameter::Matrix((**tensor).clone()),
            Self::Batch(tensor) => SharedParameter::Batch((**tensor).clone()),
            Self::Kernel(tensor) => SharedParameter::Kernel((**tensor).clone()),
            Self::Volume(tensor) => SharedParameter::Volume((**tensor).clone()),
        }
    }

    /// Holds another model's tensor from now on.
    ///
    /// # Panics
    /// It is of another shape.
    pub fn hold(&mut self, shared: SharedParameter) {
        let before = self.shape();
        match (&mut *self, shared) {
            (Self::Scalar(own) | Self::Vector(own), SharedParameter::Vector(other)) => {
                **own = other;
            }
            (Self::Matrix(own), SharedParameter::Matrix(other)) => **own = other,
            (Self::Batch(own), SharedParameter::Batch(other)) => **own = other,
            (Self::Kernel(own), SharedParameter::Kernel(other)) => **own = other,
            (Self::Volume(own), SharedParameter::Volume(other)) => **own = other,
            (own, other) => panic!("{other:?} in the place of {own:?}"),
        }
        assert!(before == self.shape(), "{:?} in the place of {before:?}", self.shape());
    }

    /// Shape as saved in a checkpoint.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Scalar(_) => Vec::new(),
            Self::Vector(tensor) => tensor.dims().to_vec(),
            Self::Matrix(tensor) => tensor.dims().to_vec(),
            Self::Batch(tensor) => tensor.dims().to_vec(),
            Self::Kernel(tensor) => tensor.dims().to_vec(),
            Self::Volume(tensor) => tensor.dims().to_vec(),
        }
    }

    /// The values in row-major order, as f32.
    pub fn values(&self) -> Vec<f32> {
        each!(self, tensor => floats(&**tensor))
    }

    /// Replaces the values; `values.len()` must match. The tensor comes back frozen.
    pub fn set_values(&mut self, values: Vec<f32>) {
        each!(self, tensor => {
            let device = tensor.device().inner();
            **tensor = from_floats(values, tensor.dims(), &device);
        });
    }

    /// Makes the tensor a leaf whose gradient is kept. One of 16 bits becomes f32: small updates would be
    /// rounded away.
    pub fn train(&mut self) {
        each!(self, tensor => {
            let inner = tensor.clone().inner();
            let wide = if inner.dtype() == DType::F32 { inner } else { inner.cast(DType::F32) };
            **tensor = wide.autodiff().require_grad();
        });
    }

    /// Makes the tensor a constant.
    pub fn freeze(&mut self) {
        each!(self, tensor => **tensor = tensor.clone().inner());
    }

    /// Whether the tensor's gradient is kept by a backward pass.
    pub fn is_trainable(&self) -> bool {
        each!(self, tensor => tensor.is_autodiff() && tensor.is_require_grad())
    }

    /// The tensor's gradient in row-major order, if a backward pass reached it.
    pub fn gradient(&self, gradients: &Gradients) -> Option<Vec<f32>> {
        each!(self, tensor => tensor.grad(gradients).map(|gradient| floats(&gradient)))
    }
}

/// Reads a tensor's values as f32.
pub fn floats<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.clone().inner().try_into_vec_as::<f32>().expect("a float tensor converts to f32")
}

/// A tensor of the given shape from f32 values.
pub fn from_floats<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A vector of indices; indices are never differentiated, so they live beside the inner tensors.
pub(crate) fn indices(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &device.clone().inner())
}

/// Something made of named tensors.
pub trait Parameters {
    /// Calls `visitor` once per tensor with `prefix` + its checkpoint name, in a fixed order.
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>));

    /// Makes every tensor trainable whose name satisfies `select`; all others become constants.
    /// Returns how many are trainable.
    fn train_where(&mut self, select: &dyn Fn(&str) -> bool) -> usize
    where
        Self: Sized,
    {
        let mut count = 0;
        self.visit_mut("", &mut |name, mut parameter| {
            if select(name) {
                parameter.train();
                count += 1;
            } else {
                parameter.freeze();
            }
        });
        count
    }
}

/// Gradients by parameter name, as plain numbers that can be summed, clipped and saved.
pub type GradientMap = BTreeMap<String, Vec<f32>>;

/// A trainable tensor that a backward pass did not reach: the graph is severed somewhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "no gradient reached {count} trainable tensor(s), first `{first}`: the computation is cut off \
     from them, so training would silently leave them as they are"
)]
pub struct SeveredGradient {
    /// How many tensors received nothing.
    pub count: usize,
    /// Name of the first of them.
    pub first: String,
}

/// Collects the gradient of every trainable tensor of `model`.
///
/// # Errors
/// [`SeveredGradient`] when a trainable tensor has none.
pub fn collect_gradients(
    model: &mut impl Parameters,
    gradients: &Gradients,
) -> Result<GradientMap, SeveredGradient> {
    collect_all_gradients(model, std::slice::from_ref(gradients))
}

/// The same of a backward pass in several parts: a tensor has its gradient in one of them, or in several as their sum.
///
/// # Errors
/// [`SeveredGradient`] when a trainable tensor has none in any.
pub fn collect_all_gradients(
    model: &mut impl Parameters,
    parts: &[Gradients],
) -> Result<GradientMap, SeveredGradient> {
    let mut linear = GradientMap::new();
    let mut severed = Vec::new();
    model.visit_mut("", &mut |name, parameter| {
        if parameter.is_trainable() {
            let found = parts.iter().filter_map(|gradients| parameter.gradient(gradients));
            let sum = found.reduce(|mut sum, more| {
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                sum
            });
            match sum {
                Some(values) => drop(linear.insert(name.to_owned(), values)),
                None => severed.push(name.to_owned()),
            }
        }
    });
    match severed.first() {
        None => Ok(linear),
        Some(first) => Err(SeveredGradient { count: severed.len(), first: first.clone() }),
    }
}

/// `into += other`, name by name; both must hold the same names.
pub fn add_gradients(into: &mut GradientMap, other: &GradientMap) {
    if into.is_empty() {
        into.clone_from(other);
        return;
    }
    for (name, values) in other {
        let target = into.get_mut(name).expect("replicas of one model have the same parameters");
        for (sum, value) in target.iter_mut().zip(values) {
            *sum += value;
        }
    }
}

/// Euclidean norm over all gradients.
pub fn gradient_norm(gradients: &GradientMap) -> f64 {
    gradients.values().flatten().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt()
}

/// Scales all gradients so that their joint norm is at most `max_norm`; returns the norm before.
pub fn clip_gradients(gradients: &mut GradientMap, max_norm: f64) -> f64 {
    let norm = gradient_norm(gradients);
    if norm > max_norm {
        let factor = (max_norm / norm) as f32;
        gradients.values_mut().flatten().for_each(|g| *g *= factor);
    }
    norm
}
