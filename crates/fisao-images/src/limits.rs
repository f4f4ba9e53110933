//! Limits that errors name.

/// Pixels of the largest image, the number at which PIL refuses a decompression bomb. Every format is held to it before
/// anything is decoded.
pub const MAX_PIXELS: u64 = 178_956_970;
