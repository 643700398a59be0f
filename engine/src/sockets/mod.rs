//! Sockets that exist: what the kernel tells of them over NETLINK_SOCK_DIAG (sock_diag(7)), which processes
//! hold them, and cutting them. Judges nothing.
//!
//! ```text
//! processes -> networks (each once) -> Diag in that network -> Socket, Listeners -> Direction
//!                                                           <- destroy
//! ```
//!
//! The messages are our own few lines: of the crates for this protocol none tells the cgroup of a socket or
//! can send SOCK_DESTROY.

mod diag;
mod direction;
mod holder;
mod message;
#[cfg(test)]
mod message_tests;
mod network;
mod socket;

pub use diag::{Diag, DiagError};
pub use direction::{Direction, Listeners, direction};
pub use holder::{Holders, everybody};
pub use message::MessageError;
pub use network::{Network, NetworkError, Networks};
pub use socket::{Counters, Socket, State};
