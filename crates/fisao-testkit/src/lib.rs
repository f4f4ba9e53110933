//! What the tests of the workspace share: small random models, tolerances, comparisons.

pub mod compare;
pub mod fuzz;
pub mod skipped;
pub mod tiny;
pub mod tiny_policy;
pub mod tolerance;
