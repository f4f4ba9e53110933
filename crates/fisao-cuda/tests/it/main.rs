//! Tests of the crate from outside. Kernels run on the CPU, as C++; where there is no compiler they are skipped by name.

#![allow(
    clippy::needless_range_loop,
    clippy::too_many_lines,
    reason = "references are written as their formulas, which index several arrays"
)]

mod decoder;
mod device;
mod encoder;
mod kernels;
mod nvrtc;
mod orchestration;
mod pooling;
mod projector;
mod qformer;
