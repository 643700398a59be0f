//! Tidegate decides, in the Linux kernel, where the processes of a cgroup may connect to.
//!
//! The flow, in one direction; each arrow is one type that only the room on its left can make:
//!
//! ```text
//! policy.yaml -> policy::RawPolicy -> policy::Policy -> compile::Image -> datapath (live tables)
//! connect()   -> Attempt -> decide() -> Verdict -> event bytes -> events::Event -> printer | report
//! ```

pub mod cgroup;
pub mod cli;
pub mod compile;
pub mod control;
pub mod datapath;
pub mod events;
pub mod instance;
pub mod launch;
pub mod policy;
pub mod probe;
pub mod selftest;
pub mod sockets;
