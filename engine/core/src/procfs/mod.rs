//! Parsers for the files of procfs that several modules read. Changes nothing.

mod cgroup;
mod mountinfo;

pub(crate) use cgroup::unified_path;
pub(crate) use mountinfo::{Mount, MountTable};
