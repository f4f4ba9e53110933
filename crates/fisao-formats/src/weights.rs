//! Safetensors: memory-mapped reading under canonical names, atomic writing.

mod layout;
mod mapped_file;
mod source;
mod writer;

pub use layout::Layout;
pub use mapped_file::{MappedFile, StoredTensor};
pub use source::{LoadDtype, SafetensorsSource};
pub use writer::{StoredDtype, WEIGHTS_FILE, write_safetensors};
