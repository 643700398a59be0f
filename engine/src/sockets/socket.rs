//! A socket as the kernel describes it.

use std::net::SocketAddr;

use engine_common::{Protocol, SocketFamily};

/// State of a socket, by the kernel's numbers (include/net/tcp_states.h), which it uses for all protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State(pub u8);

impl State {
    /// TCP: connected. Others: they have a peer.
    pub const ESTABLISHED: State = State(1);
    /// TCP: connect(2) is on its way.
    pub const SYN_SENT: State = State(2);
    /// TCP: somebody connects to us.
    pub const SYN_RECV: State = State(3);
    /// TCP: our end is closed, and not everything is acknowledged.
    pub const FIN_WAIT1: State = State(4);
    /// TCP: our end is closed.
    pub const FIN_WAIT2: State = State(5);
    /// TCP: nothing is left but a memory. Others have no such state.
    pub const TIME_WAIT: State = State(6);
    /// Not connected.
    pub const CLOSE: State = State(7);
    /// TCP: the peer's end is closed.
    pub const CLOSE_WAIT: State = State(8);
    /// TCP: both ends are closed, ours last.
    pub const LAST_ACK: State = State(9);
    /// TCP: waits for others to connect.
    pub const LISTEN: State = State(10);
    /// TCP: both ends are closed, at once.
    pub const CLOSING: State = State(11);

    /// Its bit in a set of states.
    pub(super) const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }

    /// Its name, as ss(8) has it.
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

    /// Whether our end was closed, so that a FIN was queued.
    pub(super) const fn has_fin(self) -> bool {
        matches!(
            self,
            State::FIN_WAIT1 | State::FIN_WAIT2 | State::CLOSING | State::LAST_ACK
        )
    }
}

/// What a TCP socket counted: of `struct tcp_info` (include/uapi/linux/tcp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that were acknowledged, a SYN or FIN of ours among them.
    pub acked: u64,
    /// Bytes of data that were sent, with those sent again.
    pub sent: u64,
    /// Bytes of data that were sent again.
    pub sent_again: u64,
    /// Bytes that were written and not sent yet.
    pub unsent: u32,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Protocol.
    pub protocol: Protocol,
    /// Family it was made for: one of AF_INET6 may have an IPv4 peer.
    pub family: SocketFamily,
    /// State.
    pub state: State,
    /// Own address and port. Of raw sockets the port is the protocol in the header.
    pub local: SocketAddr,
    /// The other end, where there is one.
    pub peer: Option<SocketAddr>,
    /// Whose it is: the user who made it, in the initial user namespace.
    pub uid: u32,
    /// Its number in /proc/PID/fd; 0 where no process holds it any more.
    pub inode: u32,
    /// Bytes that were written and not acknowledged.
    pub queued: u32,
    /// Id of the cgroup it was made in. Connections that are not yet, or no more, whole have none.
    pub cgroup: Option<u64>,
    /// Of TCP.
    pub counters: Option<Counters>,
    /// `struct inet_diag_sockid`, by which the kernel finds it again.
    pub(super) id: [u8; 48],
}

impl Socket {
    /// One that nobody can have: of port 0.
    pub(super) fn nobodys() -> Socket {
        let nowhere = SocketAddr::from(([0; 4], 0));
        Socket {
            protocol: Protocol::TCP,
            family: SocketFamily::Inet,
            state: State::ESTABLISHED,
            local: nowhere,
            peer: None,
            uid: 0,
            inode: 0,
            queued: 0,
            cgroup: None,
            counters: None,
            id: [0; 48],
        }
    }

    /// One that is connected, for tests.
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
            ..Socket::nobodys()
        }
    }

    /// A number that no other socket ever has in its network (`sock_gen_cookie`, net/core/sock_diag.c).
    pub fn cookie(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.id;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}
