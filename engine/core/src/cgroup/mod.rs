//! The cgroup2 hierarchy: its mount point, and looking up a cgroup by path, process or systemd unit.
//! Changes nothing.

mod hierarchy;
mod lookup;
mod subtree;

pub use hierarchy::{Hierarchy, HierarchyError};
pub use lookup::{CgroupHandle, CgroupLookupError};
pub use subtree::Subtree;
