//! One attempt to reach a destination: the input of the decision.

use crate::{executable::ExecutableId, protocol::Protocol};

/// The hook that observed an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum Hook {
    /// cgroup/connect4.
    Connect4 = 0,
    /// cgroup/connect6.
    Connect6 = 1,
    /// cgroup/sendmsg4.
    Sendmsg4 = 2,
    /// cgroup/sendmsg6.
    Sendmsg6 = 3,
    /// cgroup/sock_create.
    SockCreate = 4,
    /// LSM socket_connect: evaluated for the calling task.
    LsmConnect = 5,
    /// LSM socket_sendmsg.
    LsmSendmsg = 6,
    /// LSM socket_create.
    LsmCreate = 7,
    /// LSM sctp_bind_connect.
    LsmSctp = 8,
    /// cgroup_skb/egress: a packet.
    Egress = 9,
    /// kprobe tcp_connect: a SYN is about to be sent. Never decides.
    TcpConnect = 10,
    /// Tracepoint inet_sock_set_state, used where kprobes are not available. Never decides.
    SockState = 11,
    /// LSM unix_stream_connect: a connect to a unix socket.
    LsmUnixConnect = 12,
    /// LSM unix_may_send: a datagram to a unix socket.
    LsmUnixSend = 13,
}

impl Hook {
    /// All hooks, ordered by discriminant.
    pub const ALL: [Hook; 14] = [
        Hook::Connect4,
        Hook::Connect6,
        Hook::Sendmsg4,
        Hook::Sendmsg6,
        Hook::SockCreate,
        Hook::LsmConnect,
        Hook::LsmSendmsg,
        Hook::LsmCreate,
        Hook::LsmSctp,
        Hook::Egress,
        Hook::TcpConnect,
        Hook::SockState,
        Hook::LsmUnixConnect,
        Hook::LsmUnixSend,
    ];

    /// The name in JSON and text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Hook::Connect4 => "connect4",
            Hook::Connect6 => "connect6",
            Hook::Sendmsg4 => "sendmsg4",
            Hook::Sendmsg6 => "sendmsg6",
            Hook::SockCreate => "sock_create",
            Hook::LsmConnect => "lsm_connect",
            Hook::LsmSendmsg => "lsm_sendmsg",
            Hook::LsmCreate => "lsm_create",
            Hook::LsmSctp => "lsm_sctp",
            Hook::Egress => "egress",
            Hook::TcpConnect => "tcp_connect",
            Hook::SockState => "sock_state",
            Hook::LsmUnixConnect => "lsm_unix_connect",
            Hook::LsmUnixSend => "lsm_unix_send",
        }
    }

    /// The hook with this discriminant; `None` for any other value.
    pub const fn from_u8(value: u8) -> Option<Hook> {
        let mut i = 0;
        while i < Hook::ALL.len() {
            if Hook::ALL[i] as u8 == value {
                return Some(Hook::ALL[i]);
            }
            i += 1;
        }
        None
    }
}

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
