//! Llama-type decoders, vision towers, projectors and Q-Formers on NVIDIA cards.
//!
//! Kernels are CUDA C (`kernels/`). [`Card`] compiles them at run time for the card's own architecture; [`Host`] compiles the same text as
//! C++ and runs it on the CPU, which is how a whole decoder is tested where there is no card; [`Recorder`] writes down what a driver is
//! asked for; [`Failing`] fails. All four are a [`Driver`], and everything above it knows no other.
//!
//! Nothing of CUDA is needed to build the crate. It sees no burn type and opens no file but the cache of compiled kernels, in the
//! folder that the caller names.

mod adapter;
mod arena;
mod card;
mod config;
mod decoder;
mod driver;
mod encoder;
mod error;
mod failing;
mod first_failure;
mod forward;
mod host;
pub mod kernels;
mod plan;
mod pooling;
mod projector;
mod qformer;
mod recorder;
mod session;
mod source;
mod storage;
mod tokens;
mod training;
mod weights;

pub use adapter::{AdapterGradient, AdapterTarget, AdapterWeights};
pub use arena::Arena;
pub use card::{
    Architecture, Card, Cubin, CubinCache, KernelResources, compile_cubin, nvrtc_version,
};
pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use driver::{Argument, Buffer, Driver, Graph, Launch, Matrix, Memory, Product};
pub use encoder::{Encoder, EncoderConfig, EncoderPlan, EncoderSession, PatchConfig};
pub use error::CudaError;
pub use failing::Failing;
pub use first_failure::FirstFailure;
pub use host::{Host, HostKernels, HostMemory, HostOptions};
pub use plan::Plan;
pub use pooling::{Pooling, PoolingConfig};
pub use projector::{Projector, ProjectorConfig};
pub use qformer::{QFormer, QFormerBatch, QFormerConfig};
pub use recorder::{Call, Recorder};
pub use session::{Continuation, Draw, Prompts, Session};
pub use source::{HEAD_SIZES, kernel_names, kernel_source};
pub use storage::Storage;
pub use tokens::Tokens;
pub use training::{Scored, Training, TrainingBatch, TrainingPlan};
pub use weights::{OnCard, WeightSource, WeightTensor};
