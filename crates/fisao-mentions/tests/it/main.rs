//! Integration tests of `fisao-mentions`.

mod mentions;
