//! Who holds the lock of a folder.

use serde::{Deserialize, Serialize};

/// A process that writes, or wrote, into a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockOwner {
    /// Its process id.
    pub pid: u32,
    /// Name of the host that it runs on.
    pub host: String,
}
