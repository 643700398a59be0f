//! The cgroup2 hierarchy: where it is mounted, and finding a cgroup in it by path, process or unit.
//! Changes nothing.

mod hierarchy;
mod locate;
mod subtree;

pub use hierarchy::{Hierarchy, HierarchyError};
pub use locate::{LocateError, Located};
pub use subtree::Subtree;
