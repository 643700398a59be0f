//! Receivers outside the policy; an error fails the test.

use std::net::{IpAddr, SocketAddr};

use crate::selftest::receiver;

use crate::egress_method::Transport;

/// A listening socket.
pub struct Receiver(receiver::Receiver);

impl Receiver {
    /// Listens on an address and a port that the kernel chooses; `None` if the kernel does not support the protocol.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn try_listen(transport: Transport, address: IpAddr) -> Option<Receiver> {
        Receiver::listen_at(transport, SocketAddr::new(address, 0))
    }

    /// The same for protocols that every kernel supports.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn listen(transport: Transport, address: IpAddr) -> Receiver {
        Receiver::try_listen(transport, address).expect("a protocol of this kernel")
    }

    /// Listens on an address and port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn listen_at(transport: Transport, address: SocketAddr) -> Option<Receiver> {
        let listening = receiver::Receiver::listen(transport, address);
        listening.expect("a receiver").map(Receiver)
    }

    /// The address it listens on; port 0 for protocols without ports.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Everything that arrived since the last call: the bytes of each connection, and the payload of each datagram.
    ///
    /// # Panics
    /// When its sentinel does not arrive.
    pub fn arrived(&self) -> Vec<Vec<u8>> {
        self.0.arrived().expect("the sentinel arrives")
    }

    /// # Panics
    /// When anything has arrived.
    pub fn expect_nothing(&self, why: &str) {
        let arrived = self.arrived();
        assert!(
            arrived.is_empty(),
            "{why}: {} arrived: {arrived:?}",
            arrived.len()
        );
    }
}
