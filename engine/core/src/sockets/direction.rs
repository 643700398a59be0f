//! The direction of a connection.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use engine_common::Protocol;

use super::socket::{Socket, State};

/// Which side opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The local socket connected.
    Outbound,
    /// The peer connected.
    Inbound,
}

/// Local addresses of listening TCP sockets in one network namespace.
#[derive(Clone, Debug, Default)]
pub struct Listeners(HashSet<SocketAddr>);

impl Listeners {
    /// Adds a listening socket.
    pub fn add(&mut self, socket: &Socket) {
        self.0.insert(canonical(socket.local));
    }

    /// Whether a socket listens for connections to this address.
    pub fn contain(&self, local: SocketAddr) -> bool {
        let local = canonical(local);
        // `::` accepts IPv4 too, unless IPV6_V6ONLY is set, which is not checked.
        let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        let at = |ip| self.0.contains(&SocketAddr::new(ip, local.port()));
        self.0.contains(&local) || any.into_iter().any(at)
    }
}

/// Replaces an IPv4-mapped address by the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Determines which side opened the connection of a socket. No field of a socket has this:
///
/// - The connecting side sends a SYN, which counts as one acknowledged byte in `tcpi_bytes_acked`
///   (`tcp_snd_una_update`, net/ipv4/tcp_input.c) but is not a byte of data; the counters of the accepting side start
///   after its SYN (`tcp_create_openreq_child`). The process cannot influence these counters.
/// - When the counters are inconsistent (a packet was lost before the device and counted twice), a connection to a port
///   with a listener counts as inbound.
pub fn direction(socket: &Socket, listeners: &Listeners) -> Direction {
    if socket.protocol != Protocol::TCP || socket.state == State::SYN_SENT {
        return Direction::Outbound;
    }
    let inbound = socket.state == State::SYN_RECV
        || match surplus(socket) {
            Some(1) => false,
            Some(0) => true,
            _ => listeners.contain(socket.local),
        };
    if inbound {
        Direction::Inbound
    } else {
        Direction::Outbound
    }
}

/// Acknowledged bytes that were not data, without the FIN: 1 for the connecting side, 0 for the accepting side.
fn surplus(socket: &Socket) -> Option<i128> {
    let counters = socket.counters?;
    let fin = socket.state.has_fin();
    if fin && counters.unsent != 0 {
        // The FIN may be among them.
        return None;
    }
    let in_flight = i128::from(socket.queued) - i128::from(counters.unsent);
    let data = i128::from(counters.sent) - i128::from(counters.sent_again);
    Some(i128::from(counters.acked) + in_flight - data - i128::from(fin))
}

#[cfg(test)]
mod tests {
    use engine_common::SocketFamily;

    use super::*;
    use crate::sockets::Counters;

    fn socket(local: &str, state: State, counters: Option<Counters>, queued: u32) -> Socket {
        Socket {
            protocol: Protocol::TCP,
            family: SocketFamily::Inet,
            state,
            local: local.parse().unwrap(),
            peer: Some("198.51.100.1:443".parse().unwrap()),
            uid: 0,
            inode: 1,
            queued,
            cgroup: Some(1),
            counters,
            id: [0; 48],
        }
    }

    fn counted(acked: u64, sent: u64, sent_again: u64, unsent: u32) -> Option<Counters> {
        Some(Counters {
            acked,
            sent,
            sent_again,
            unsent,
        })
    }

    #[test]
    fn an_acknowledged_syn_means_outbound() {
        let mut listeners = Listeners::default();
        for (listening, state, counters, queued, expected) in [
            (
                false,
                State::ESTABLISHED,
                counted(1, 0, 0, 0),
                0,
                Direction::Outbound,
            ),
            (
                false,
                State::ESTABLISHED,
                counted(0, 0, 0, 0),
                0,
                Direction::Inbound,
            ),
            // A listener on the same port does not make it an accepted one.
            (
                true,
                State::ESTABLISHED,
                counted(101, 100, 0, 0),
                0,
                Direction::Outbound,
            ),
            // 100 of 300 written are sent, 40 of them again, 60 acknowledged.
            (
                true,
                State::CLOSE_WAIT,
                counted(61, 140, 40, 200),
                240,
                Direction::Outbound,
            ),
            (
                false,
                State::CLOSE_WAIT,
                counted(60, 140, 40, 200),
                240,
                Direction::Inbound,
            ),
            // The FIN is in flight; then it is acknowledged.
            (
                true,
                State::FIN_WAIT1,
                counted(1, 0, 0, 0),
                1,
                Direction::Outbound,
            ),
            (
                true,
                State::FIN_WAIT2,
                counted(2, 0, 0, 0),
                0,
                Direction::Outbound,
            ),
            (
                false,
                State::FIN_WAIT2,
                counted(1, 0, 0, 0),
                0,
                Direction::Inbound,
            ),
            // Inconsistent counters: the listeners decide.
            (
                true,
                State::ESTABLISHED,
                counted(1, 9, 0, 0),
                0,
                Direction::Inbound,
            ),
            (
                false,
                State::ESTABLISHED,
                counted(1, 9, 0, 0),
                0,
                Direction::Outbound,
            ),
            (true, State::FIN_WAIT1, counted(1, 0, 0, 5), 5, Direction::Inbound),
            (true, State::ESTABLISHED, None, 0, Direction::Inbound),
            (false, State::ESTABLISHED, None, 0, Direction::Outbound),
            (true, State::SYN_SENT, counted(0, 0, 0, 0), 0, Direction::Outbound),
            (false, State::SYN_RECV, counted(1, 0, 0, 0), 0, Direction::Inbound),
        ] {
            listeners.0.clear();
            if listening {
                listeners.add(&socket("0.0.0.0:80", State::LISTEN, None, 0));
            }
            let it = socket("198.51.100.9:80", state, counters, queued);
            assert_eq!(direction(&it, &listeners), expected, "{listening} {it:?}");
        }
    }

    #[test]
    fn listeners_match_in_every_representation() {
        for (listening, local, expected) in [
            ("198.51.100.9:80", "198.51.100.9:80", true),
            ("[::ffff:198.51.100.9]:80", "198.51.100.9:80", true),
            ("198.51.100.9:80", "[::ffff:198.51.100.9]:80", true),
            ("[::]:80", "198.51.100.9:80", true),
            ("0.0.0.0:80", "198.51.100.9:80", true),
            ("198.51.100.8:80", "198.51.100.9:80", false),
            ("0.0.0.0:81", "198.51.100.9:80", false),
        ] {
            let mut listeners = Listeners::default();
            listeners.add(&socket(listening, State::LISTEN, None, 0));
            assert_eq!(
                listeners.contain(local.parse().unwrap()),
                expected,
                "{listening} {local}"
            );
        }
    }
}
