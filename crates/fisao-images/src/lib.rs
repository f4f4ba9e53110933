#![doc = include_str!("../README.md")]
// What a file says is converted with care.
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

pub mod decode;
mod error;
pub mod format;
mod limits;
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "weights and positions, as Pillow converts them"
)]
pub mod resample;

pub use error::ImageError;
pub use image::RgbImage;
