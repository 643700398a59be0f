//! The commands, one file each.

pub mod apply;
pub mod attach;
pub mod attached;
pub mod cgroup_args;
pub mod check;
pub mod completions;
pub mod detach;
mod event_names;
pub mod events;
pub mod exec;
mod existing_text;
pub mod explain;
pub mod explain_args;
pub mod policy;
pub mod policy_args;
pub mod policy_files;
pub mod policy_show;
pub mod probe;
mod probe_text;
mod rule_counters;
pub mod rule_flags;
#[cfg(feature = "selftest")]
pub mod selftest;
#[cfg(feature = "selftest")]
pub mod selftest_client;
pub mod set_mode;
pub mod status;
mod text_table;
mod units;
