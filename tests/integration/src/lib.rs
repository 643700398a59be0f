//! What the integration tests stand on: a network of their own, receivers outside the gate, and the
//! built `tidegate` run in between. What a receiver saw is the truth; reports are held against it.
//!
//! ```text
//! Namespace -> Receiver (outside the gate)          <- what arrived
//!           -> Gate: tidegate exec ... -- test client   -> Report, ClientResult
//!           -> Stand: tidegate attach ...; test client in a cgroup -> status, events, ClientResult
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture that does not work is a failed test, and says where"
)]

pub mod attached;
pub mod captured;
pub mod cgroup;
mod egress_method_tests;
pub mod exec;
pub mod kernel;
pub mod mount_table;
pub mod namespace;
mod program_cache;
pub mod program_info;
pub mod receiver;
pub mod report;
pub mod requirement;
pub mod scripted_client;
pub mod shared_file;
pub mod storm;
pub mod test_client;
pub mod verifier_log;

pub use tidegate::selftest::{client_result, egress_method};
