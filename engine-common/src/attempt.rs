//! One attempt to reach a destination: the input of the decision.

use crate::{executable::ExecutableId, protocol::Protocol};

/// An address, host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// IPv4.
    V4(u32),
    /// IPv6, the upper and the lower 64 bits.
    V6 {
        /// Bits 0 to 63, the network half.
        high: u64,
        /// Bits 64 to 127.
        low: u64,
    },
}

impl Address {
    /// An IPv6 address from its 128 bits.
    pub const fn v6(bits: u128) -> Address {
        Address::V6 {
            high: (bits >> 64) as u64,
            low: bits as u64,
        }
    }
}

/// Family of a socket that is being created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketFamily {
    /// AF_INET: reaches IPv4 addresses only.
    Inet,
    /// AF_INET6: reaches both families (IPv4 as mapped addresses).
    Inet6,
}

/// One attempt, as the decision takes it. The address must be canonical
/// ([`crate::destination::canonical`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Canonical destination.
    pub address: Address,
    /// Destination port; ignored for protocols without ports.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Real user id of the calling task (initial user namespace).
    pub uid: u32,
    /// Executable of the calling task; only read when [`crate::image::Header::needs_executable`]
    /// is set.
    pub executable: ExecutableId,
}
