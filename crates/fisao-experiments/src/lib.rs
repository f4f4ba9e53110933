#![doc = include_str!("../README.md")]
#![allow(
    clippy::missing_errors_doc,
    reason = "errors are anyhow's and say what is wrong; `# Errors` stands where a caller tells them apart"
)]

pub mod bench;
pub mod compare;
pub mod pretrain;
pub mod study;
pub mod theory;
pub mod vocabulary;
