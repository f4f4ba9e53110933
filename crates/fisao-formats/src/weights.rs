//! Safetensors: memory-mapped reading under canonical names, atomic writing.

mod damage;
mod layout;
mod mapped_file;
mod source;
mod stream;
mod writer;

pub use layout::Layout;
pub use mapped_file::{MappedFile, StoredTensor};
pub(crate) use source::INDEX_FILE;
pub use source::{LoadDtype, SafetensorsSource};
#[cfg(feature = "hub")]
pub(crate) use source::{PICKLES, SHARD_LIST, ShardIndex};
pub(crate) use stream::{Slot, Stopped, write_stream};
pub use writer::{StoredDtype, WEIGHTS_FILE, write_safetensors};
