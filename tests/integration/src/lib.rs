//! What the integration tests stand on: a network of their own, receivers outside the gate, and the
//! built `tidegate` run in between. What a receiver saw is the truth; reports are held against it.
//!
//! ```text
//! Namespace -> Receiver (outside the gate)          <- what arrived
//!           -> Gate: tidegate exec ... -- voyager   -> Report, Voyage
//!           -> Stand: tidegate attach ...; voyager in a cgroup -> status, events, Voyage
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture that does not work is a failed test, and says where"
)]

pub mod captured;
pub mod cgroup;
pub mod gate;
mod handed_on;
pub mod kernel;
pub mod mount_table;
pub mod namespace;
pub mod obedient;
pub mod program_info;
pub mod receiver;
pub mod report;
pub mod requirement;
pub mod shared_file;
pub mod standing;
pub mod storm;
pub mod verifier_log;
pub mod voyager;
mod way_tests;

pub use tidegate::selftest::{voyage, way};
