//! Element-wise non-linearities under the names Hugging Face configurations use.

pub use fisao_kernels::Activation;
