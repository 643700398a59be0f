//! Existing sockets: listing and destroying them over NETLINK_SOCK_DIAG (sock_diag(7)), and the processes that
//! hold them. Independent of policies.
//!
//! ```text
//! processes -> network namespaces (each once) -> Diag in that namespace -> Socket, Listeners -> Direction
//!                                                                       <- destroy
//! ```
//!
//! The messages are encoded here: no crate for this protocol has the cgroup of a socket or SOCK_DESTROY.

mod diag;
mod direction;
mod holder;
mod message;
#[cfg(test)]
mod message_tests;
mod network_namespace;
mod socket;

pub use diag::{Diag, DiagError};
pub use direction::{Direction, Listeners, direction};
pub use holder::{Holders, all_processes};
pub use message::MessageError;
pub use network_namespace::{Network, NetworkError, Networks};
pub use socket::{Counters, Socket, State};
