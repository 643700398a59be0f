//! The commands.

pub mod check;
pub mod completions;
pub mod exec;
pub mod explain;
pub mod explain_args;
pub mod policy;
pub mod policy_args;
pub mod policy_files;
pub mod rule_flags;
