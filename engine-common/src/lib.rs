//! Code shared by the kernel programs and user space of Tidegate: the table format ([`image`]), the
//! search in it ([`interval_table`]), the decision ([`decide()`]) and the layout of ring records ([`record`]).
//!
//! Plain `no_std` code without allocation. It is compiled into the kernel programs, into the
//! `tidegate` binary (`check`, `explain`) and into the tests: there is no second implementation of
//! the semantics. It depends on no other crate of the workspace.
//!
//! Byte order: addresses and ports are in host order everywhere in this crate; the hooks convert
//! once, where they read the socket address.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod action;
pub mod attempt;
pub mod decide;
pub mod dedup;
pub mod destination;
pub mod executable;
mod hook;
pub mod image;
pub mod interval_table;
pub mod limits;
pub mod outcome;
pub mod packet;
pub mod protocol;
pub mod record;
pub mod scope;
pub mod socket_user;
pub mod unix_socket_id;
pub mod unspecified;
pub mod verdict;
pub mod verifier;

pub use action::{Action, Mode};
pub use attempt::{Address, Attempt, SocketFamily};
pub use decide::{Tables, decide, decide_socket, decide_unix};
pub use executable::ExecutableId;
pub use hook::Hook;
pub use outcome::{KillAbility, Outcome};
pub use protocol::Protocol;
pub use unix_socket_id::UnixSocketId;
pub use unspecified::Substitute;
pub use verdict::{Fault, Reason, Verdict, VerdictWord};

/// Version of every layout in this crate that crosses into the kernel: images, scopes, records.
/// It is raised when any of them changes, so that a binary never reads maps that another version pinned.
pub const ABI_VERSION: u32 = 6;
