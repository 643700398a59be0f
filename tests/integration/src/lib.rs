//! Fixtures of the integration tests: network namespaces, receivers, test clients, and the built `tidegate`. What
//! arrives at a receiver is the reference; events and reports are compared with it.
//!
//! ```text
//! Namespace -> Receiver (outside the policy)                                <- what arrived
//!           -> Exec: tidegate exec ... -- test client                       -> Report, ClientResult
//!           -> AttachFixture: tidegate attach ...; test client in a cgroup  -> status, events, ClientResult
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture that does not work fails the test"
)]

pub mod attached;
pub mod cgroup;
mod egress_method_tests;
pub mod exec;
pub mod kernel;
pub mod kernel_switch;
pub mod load;
pub mod mount_table;
pub mod namespace;
mod program_cache;
pub mod program_info;
pub mod receiver;
pub mod report;
pub mod requirement;
pub mod running_command;
pub mod scripted_client;
pub mod shared_dir;
pub mod systemd;
pub mod test_client;
pub mod verifier_log;

pub use tidegate_selftest as selftest;

pub use self::selftest::{client_result, egress_method};
