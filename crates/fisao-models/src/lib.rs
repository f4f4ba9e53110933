//! The models of FiSAO: CLIP and SigLIP (the verifiers), vision-language models with a Llama or Qwen2 decoder,
//! low-rank adapters, the value head, and generation with a key–value cache.
//!
//! The crate works on tensors only. It never sees a path: weights arrive through
//! [`weights::WeightSource`], token ids through [`text::Tokenizer`], and images as pixels.
//! Frozen weights are plain tensors; trainable ones carry burn's autodiff association, and the two
//! mix freely because burn treats the former as constants.

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod blip2;
mod card_copy;
pub mod card_part;
pub mod clip;
pub mod contrastive;
pub mod encoder;
pub mod generation;
pub mod image;
pub mod image_reading;
pub mod linear;
pub mod llama;
pub mod lora;
pub mod muon;
pub mod norm;
pub mod parallel;
pub mod parameters;
mod projector_card;
pub mod qformer;
pub mod random;
pub mod scoring;
pub mod sequences;
pub mod siglip;
pub mod text;
mod text_encoder;
pub mod value_head;
pub mod vision;
pub mod vision_language;
pub mod weights;

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod layer_weight_tests;
