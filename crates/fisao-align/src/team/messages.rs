//! What processes tell each other: CBOR, with arrays of numbers as the bytes they are in memory.

use burn::tensor::{Device, Tensor};
use fisao_models::image::PixelValues;
use fisao_models::linear::{ActivationDtype, LowRank};
use fisao_models::parameters::{ParameterMut, Parameters as _, floats, from_floats};
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use fisao_verifier::regions::ImageEmbedding;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Parts;
use crate::tasks::{Answer, Task};

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// What is to be done; the answers are sent back.
    Work {
        /// Whether adapter and critic have moved: their state comes first, from the [parent](super::tree::parent).
        moved: bool,
        /// Whether answers are added up along the tree.
        gathered: bool,
        /// See [`Team::of`](super::Team::of).
        exact: bool,
        /// What of it this process does.
        parts: Parts,
    },
    /// Something for whoever opens the models.
    Order(String),
}

/// A message that is none.
#[derive(Debug, thiserror::Error)]
#[error("a message between processes cannot be {0}")]
pub struct MessageError(String);

impl MessageError {
    pub(super) fn unexpected() -> Self {
        Self("understood: it answers something else than was asked".to_owned())
    }
}

pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes)
        .map_err(|error| MessageError(format!("written: {error}")))?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    ciborium::from_reader(bytes).map_err(|error| MessageError(format!("read: {error}")))
}

/// A matrix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Matrix {
    size: [usize; 2],
    /// Row by row.
    #[serde(with = "as_bytes")]
    values: Vec<f32>,
}

impl Matrix {
    fn of(tensor: &Tensor<2>) -> Self {
        Self { size: tensor.dims(), values: floats(tensor) }
    }

    fn on(&self, device: &Device) -> Tensor<2> {
        from_floats(self.values.clone(), self.size, device)
    }
}

/// What training moves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LearnerState {
    /// By the names of the linear layers.
    adapters: Vec<(String, Adapter)>,
    /// What linear layers multiply.
    activations: ActivationDtype,
    /// The critic's tensors in their order, where there is one.
    critic: Option<Vec<Matrix>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Adapter {
    a: Matrix,
    b: Matrix,
    scale: f64,
}

impl LearnerState {
    pub(super) fn of(policy: &VisionLanguageModel, critic: Option<&ValueHead>) -> Self {
        let (mut adapters, mut activations) = (Vec::new(), ActivationDtype::F32);
        policy.clone().visit_linears_mut(&mut |name, linear| {
            if linear.activations == ActivationDtype::Bf16 {
                activations = ActivationDtype::Bf16;
            }
            if let Some(LowRank { a, b, scale }) = &linear.adapter {
                let adapter = Adapter { a: Matrix::of(a), b: Matrix::of(b), scale: *scale };
                adapters.push((name.to_owned(), adapter));
            }
        });
        let critic = critic.map(|critic| {
            let mut tensors = Vec::new();
            critic.clone().visit_mut("", &mut |_, parameter| {
                let values = parameter.values();
                tensors.push(Matrix { size: [1, values.len()], values });
            });
            tensors
        });
        Self { adapters, activations, critic }
    }

    /// Lets a model be so, and returns its critic.
    pub(super) fn apply(self, policy: &mut VisionLanguageModel) -> Option<ValueHead> {
        policy.set_activation_dtype(self.activations);
        let device = policy.device().inner();
        let mut adapters = self.adapters.into_iter().peekable();
        policy.visit_linears_mut(&mut |name, linear| {
            linear.adapter =
                adapters.next_if(|(adapted, _)| adapted == name).map(|(_, adapter)| {
                    let Adapter { a, b, scale } = adapter;
                    LowRank { a: a.on(&device), b: b.on(&device), scale }
                });
        });
        assert!(adapters.next().is_none(), "all processes have opened the same model");
        self.critic.map(|tensors| {
            let hidden = policy.language_model().config().hidden_size;
            let mut critic = ValueHead::new(hidden, &policy.device());
            let mut tensors = tensors.into_iter();
            critic.visit_mut("", &mut |_, mut parameter: ParameterMut<'_>| {
                parameter.set_values(tensors.next().expect("as many tensors").values);
            });
            critic
        })
    }
}

/// Image features of one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedFeatures {
    tokens: Matrix,
    counts: Vec<usize>,
    grids: Vec<[usize; 2]>,
    deep: Vec<Matrix>,
}

impl PackedFeatures {
    pub(crate) fn of(features: &ImageFeatures) -> Self {
        Self {
            tokens: Matrix::of(features.tokens()),
            counts: features.counts().to_vec(),
            grids: features.grids(0).to_vec(),
            deep: features.deep().iter().map(Matrix::of).collect(),
        }
    }

    pub(crate) fn on(&self, device: &Device) -> ImageFeatures {
        let deep = self.deep.iter().map(|deep| deep.on(device)).collect();
        ImageFeatures::new(self.tokens.on(device), self.counts.clone())
            .with_grids(self.grids.clone())
            .with_deep(deep)
    }
}

/// A task without what the data answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedTask {
    id: String,
    image: PackedPixels,
    further_images: Vec<PackedPixels>,
    verifier_images: Vec<PackedPixels>,
    prompt: Vec<u32>,
    instruction: Vec<u32>,
}

/// See [`PixelValues`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PackedPixels {
    #[serde(with = "as_bytes")]
    values: Vec<f32>,
    tile_size: (u32, u32),
    original_size: (u32, u32),
}

impl PackedPixels {
    fn of(pixels: &PixelValues) -> Self {
        let PixelValues { values, tile_size, original_size } = pixels.clone();
        Self { values, tile_size, original_size }
    }

    fn unpacked(&self) -> PixelValues {
        let Self { values, tile_size, original_size } = self.clone();
        PixelValues { values, tile_size, original_size }
    }
}

impl PackedTask {
    pub(crate) fn of(task: &Task) -> Self {
        Self {
            id: task.id.clone(),
            image: PackedPixels::of(&task.image),
            further_images: task.further_images.iter().map(PackedPixels::of).collect(),
            verifier_images: task.verifier_images.iter().map(PackedPixels::of).collect(),
            prompt: task.prompt.clone(),
            instruction: task.instruction.clone(),
        }
    }

    pub(crate) fn unpacked(&self) -> Task {
        Task {
            id: self.id.clone(),
            image: self.image.unpacked(),
            further_images: self.further_images.iter().map(PackedPixels::unpacked).collect(),
            verifier_images: self.verifier_images.iter().map(PackedPixels::unpacked).collect(),
            prompt: self.prompt.clone(),
            instruction: self.instruction.clone(),
            answer: Answer::None,
        }
    }
}

/// See [`ImageEmbedding`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedEmbedding {
    /// The whole, and behind it the parts.
    #[serde(with = "as_bytes")]
    values: Vec<f32>,
    whole: usize,
    parts: usize,
}

impl PackedEmbedding {
    pub(crate) fn of(ImageEmbedding { whole, parts }: &ImageEmbedding) -> Self {
        let values = whole.iter().chain(parts.iter().flatten()).copied().collect();
        Self { values, whole: whole.len(), parts: parts.len() }
    }

    pub(crate) fn unpacked(&self) -> ImageEmbedding {
        let (whole, parts) = self.values.split_at(self.whole);
        let width = parts.len() / self.parts.max(1);
        ImageEmbedding {
            whole: whole.to_vec(),
            parts: parts.chunks(width.max(1)).map(<[f32]>::to_vec).collect(),
        }
    }
}

/// Numbers as the bytes they are in memory.
pub(crate) mod as_bytes {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytemuck::cast_slice(values))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<f32>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers of 32 bits as bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<f32>, E> {
                if !bytes.len().is_multiple_of(size_of::<f32>()) {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(bytemuck::pod_collect_to_vec(bytes))
            }
        }

        from.deserialize_byte_buf(Bytes)
    }

    /// Of several arrays with names.
    pub(crate) mod by_name {
        use std::collections::BTreeMap;

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Deserialize)]
        struct Values(#[serde(deserialize_with = "super::deserialize")] Vec<f32>);

        #[derive(Serialize)]
        struct Borrowed<'a>(#[serde(serialize_with = "super::serialize")] &'a [f32]);

        pub(crate) fn serialize<S: Serializer>(
            arrays: &BTreeMap<String, Vec<f32>>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_map(arrays.iter().map(|(name, values)| (name, Borrowed(values))))
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<BTreeMap<String, Vec<f32>>, D::Error> {
            let arrays = BTreeMap::<String, Values>::deserialize(from)?;
            Ok(arrays.into_iter().map(|(name, Values(values))| (name, values)).collect())
        }
    }
}
