//! The cgroup2 hierarchy: its mount point, and looking up a cgroup by path, process or systemd unit.
//! Changes nothing.

mod handle;
mod hierarchy;
mod subtree;

pub use handle::{CgroupHandle, CgroupLookupError};
pub use hierarchy::{Hierarchy, HierarchyError};
pub use subtree::Subtree;
