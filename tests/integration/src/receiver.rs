//! The far end, outside the gate, for tests: what does not work fails them.

use std::net::{IpAddr, SocketAddr};

use tidegate::selftest::receiver;

use crate::egress_method::Transport;

/// A socket that listens.
pub struct Receiver(receiver::Receiver);

impl Receiver {
    /// Listens on an address, on a port that the kernel chooses; `None` where this kernel does not
    /// have the protocol.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn try_listen(transport: Transport, address: IpAddr) -> Option<Receiver> {
        Receiver::listen_at(transport, SocketAddr::new(address, 0))
    }

    /// The same for protocols that every kernel has.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn listen(transport: Transport, address: IpAddr) -> Receiver {
        Receiver::try_listen(transport, address).expect("a protocol of this kernel")
    }

    /// Listens on this port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn listen_at(transport: Transport, address: SocketAddr) -> Option<Receiver> {
        let listening = receiver::Receiver::listen(transport, address);
        listening.expect("a receiver").map(Receiver)
    }

    /// Where it listens; port 0 for protocols without.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// All that arrived since the last call: for each connection what was sent over it, for each
    /// datagram what was in it.
    ///
    /// # Panics
    /// When the sentinel that ends it does not arrive.
    pub fn arrived(&self) -> Vec<Vec<u8>> {
        self.0.arrived().expect("the sentinel arrives")
    }

    /// # Panics
    /// When anything did arrive.
    pub fn expect_nothing(&self, why: &str) {
        let arrived = self.arrived();
        assert!(
            arrived.is_empty(),
            "{why}: {} arrived: {arrived:?}",
            arrived.len()
        );
    }
}
