//! The models against transformers, PyTorch and Pillow, and against themselves computed another way.

mod adamw;
mod adapter;
mod card;
mod card_decoders;
mod card_failures;
mod decoder;
#[cfg(feature = "vulkan")]
mod devices;
mod differentiation;
mod fixture;
mod generation;
mod grouped_heads;
mod half_weights;
mod image_processing;
mod image_reading;
mod instructblip;
mod llava_next;
mod onevision;
mod qwen_vl;
mod sampling;
mod smolvlm;
mod text_tower;
mod transformers;
mod vision_output;
mod weight_sources;
