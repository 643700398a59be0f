//! Tidegate decides, in the Linux kernel, which network destinations the processes of a cgroup may connect to.
//!
//! Data flows in one direction. Each arrow is one type that only the module on its left can construct:
//!
//! ```text
//! policy.yaml -> policy::RawPolicy -> policy::Policy -> compile::Image -> datapath (live tables)
//! connect()   -> Attempt -> decide() -> Verdict -> event bytes -> events::Event -> printer | report
//! ```

pub mod cgroup;
pub mod compile;
pub mod control;
pub mod datapath;
pub mod digits;
pub mod events;
pub mod exec;
pub mod hint;
pub mod host;
pub mod instance;
pub mod json_document;
pub mod launch;
pub mod policy;
pub mod probe;
mod procfs;
pub mod sockets;
