//! The local address of a connection.

use std::net::SocketAddr;

/// A local address, which the kernel reports after the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub ktime_ns: u64,
    /// The events it belongs to have this [`local_address_key`](super::Event::local_address_key).
    pub key: u64,
    /// Address and port.
    pub address: SocketAddr,
}
