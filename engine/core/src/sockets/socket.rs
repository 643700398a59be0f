//! A socket as described by sock_diag.

use std::net::SocketAddr;

use engine_common::{Protocol, SocketFamily};

/// State of a socket (include/net/tcp_states.h). The kernel uses the TCP states for all protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State(pub u8);

impl State {
    /// TCP: connected. Other protocols: the socket has a peer.
    pub const ESTABLISHED: State = State(1);
    /// TCP: a SYN was sent.
    pub const SYN_SENT: State = State(2);
    /// TCP: a SYN was received.
    pub const SYN_RECV: State = State(3);
    /// TCP: closed locally, not everything is acknowledged.
    pub const FIN_WAIT1: State = State(4);
    /// TCP: closed locally.
    pub const FIN_WAIT2: State = State(5);
    /// TCP: closed on both sides, the port is still reserved.
    pub const TIME_WAIT: State = State(6);
    /// Not connected.
    pub const CLOSE: State = State(7);
    /// TCP: closed by the peer.
    pub const CLOSE_WAIT: State = State(8);
    /// TCP: closed by the peer, then locally.
    pub const LAST_ACK: State = State(9);
    /// TCP: accepts connections.
    pub const LISTEN: State = State(10);
    /// TCP: closed by both sides at the same time.
    pub const CLOSING: State = State(11);

    /// Its bit in a set of states.
    pub(super) const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }

    /// Its name in the output of ss(8).
    pub const fn as_str(self) -> &'static str {
        match self {
            State::ESTABLISHED => "established",
            State::SYN_SENT => "syn-sent",
            State::SYN_RECV => "syn-recv",
            State::FIN_WAIT1 => "fin-wait-1",
            State::FIN_WAIT2 => "fin-wait-2",
            State::TIME_WAIT => "time-wait",
            State::CLOSE => "unconnected",
            State::CLOSE_WAIT => "close-wait",
            State::LAST_ACK => "last-ack",
            State::LISTEN => "listen",
            State::CLOSING => "closing",
            _ => "unknown",
        }
    }

    /// Whether the socket was closed locally, so that a FIN was queued.
    pub(super) const fn has_fin(self) -> bool {
        matches!(
            self,
            State::FIN_WAIT1 | State::FIN_WAIT2 | State::CLOSING | State::LAST_ACK
        )
    }
}

/// Counters of a TCP socket, from `struct tcp_info` (include/uapi/linux/tcp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Acknowledged bytes, with the SYN and FIN that were sent.
    pub acked: u64,
    /// Bytes of data sent, with retransmissions.
    pub sent: u64,
    /// Bytes of data retransmitted.
    pub sent_again: u64,
    /// Bytes written by the process and not sent yet.
    pub unsent: u32,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Protocol.
    pub protocol: Protocol,
    /// Family of the socket: one of AF_INET6 may have an IPv4 peer.
    pub family: SocketFamily,
    /// State.
    pub state: State,
    /// Local address and port. The port of a raw socket is its IP protocol.
    pub local: SocketAddr,
    /// Peer address and port; `None` when not connected.
    pub peer: Option<SocketAddr>,
    /// Id of the user who created it, in the initial user namespace.
    pub uid: u32,
    /// Inode, as in /proc/PID/fd; 0 when no process holds the socket.
    pub inode: u32,
    /// Bytes written and not acknowledged.
    pub queued: u32,
    /// Id of the cgroup in which it was created. Request and time-wait sockets have none.
    pub cgroup: Option<u64>,
    /// For TCP, if the kernel has them.
    pub counters: Option<Counters>,
    /// `struct inet_diag_sockid`, which identifies the socket in a request.
    pub(super) id: [u8; 48],
}

impl Socket {
    /// A socket that cannot exist: it has port 0.
    pub(super) fn nonexistent() -> Socket {
        let unspecified = SocketAddr::from(([0; 4], 0));
        Socket {
            protocol: Protocol::TCP,
            family: SocketFamily::Inet,
            state: State::ESTABLISHED,
            local: unspecified,
            peer: None,
            uid: 0,
            inode: 0,
            queued: 0,
            cgroup: None,
            counters: None,
            id: [0; 48],
        }
    }

    /// A connected socket, for tests.
    #[cfg(test)]
    pub(crate) fn sample(protocol: Protocol, peer: SocketAddr, uid: u32) -> Socket {
        let family = match peer {
            SocketAddr::V4(_) => SocketFamily::Inet,
            SocketAddr::V6(_) => SocketFamily::Inet6,
        };
        Socket {
            protocol,
            family,
            peer: Some(peer),
            uid,
            ..Socket::nonexistent()
        }
    }

    /// Id that is unique in the network namespace and never reused (`sock_gen_cookie`, net/core/sock_diag.c).
    pub fn cookie(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.id;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}
