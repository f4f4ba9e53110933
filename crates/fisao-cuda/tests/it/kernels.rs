//! Each kernel against plain f64 arithmetic.

mod activation;
mod attention;
mod decode_attention;
mod log_probs;
mod matrix;
mod norm;
mod rotary;
mod rows;
mod sample;
