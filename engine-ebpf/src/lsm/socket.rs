//! Properties of sockets, read from kernel structures.

use engine_common::Protocol;

use super::call::{NAME4, NAME6, NOTHING, PEER4, PEER6, SOCKET, SOCKET6};
use crate::{
    features,
    kernel_memory::{bit, field, read},
};

pub(super) const AF_UNSPEC: u64 = 0;
const AF_UNIX: u64 = 1;
pub(super) const AF_INET: u64 = 2;
pub(super) const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const AF_ALG: u64 = 38;
const SOCK_RAW: u64 = 3;
pub(super) const TCP_CLOSE: u8 = 7;

/// Families that do not leave the machine. AF_UNSPEC (0) is not one of them: a call is not allowed because the family
/// could not be read.
#[inline(always)]
pub(super) fn is_local(family: u64) -> bool {
    matches!(family, AF_UNIX | AF_NETLINK | AF_ALG)
}

/// Properties of a socket.
pub(super) struct Socket {
    pub(super) sock: u64,
    pub(super) family: u64,
    pub(super) protocol: Protocol,
    pub(super) state: u8,
}

/// A socket of a process whose data may leave the machine; `None` for sockets of the kernel (of file systems,
/// tunnels), which have no file.
#[inline(always)]
pub(super) fn socket_of(socket: u64) -> Option<Socket> {
    let sock: u64 = field(socket, features::socket_sk());
    let file: u64 = field(socket, features::socket_file());
    if sock == 0 || file == 0 || is_kernel_socket(sock) {
        return None;
    }
    let socket = socket_at(sock);
    if is_local(socket.family) {
        return None;
    }
    Some(socket)
}

/// Whether the kernel created the socket for its own use. Some of these have a file (`xs_create_sock`,
/// net/sunrpc/xprtsock.c).
#[inline(always)]
fn is_kernel_socket(sock: u64) -> bool {
    bit(sock, features::sock_kern_bit())
}

/// Whether a socket address is the current peer of a socket.
#[inline(always)]
pub(super) fn is_peer(socket: &Socket, name: u64) -> bool {
    if read::<u16>(name.wrapping_add(2)) != field::<u16>(socket.sock, features::sock_peer_port()) {
        return false;
    }
    if socket.family == AF_INET {
        read::<u32>(name.wrapping_add(4)) == field::<u32>(socket.sock, features::sock_peer_v4())
    } else {
        let [first, second] = read::<[u64; 2]>(name.wrapping_add(8));
        let [peer, rest] = field::<[u64; 2]>(socket.sock, features::sock_peer_v6());
        first == peer && second == rest
    }
}

#[inline(always)]
pub(super) fn socket_at(sock: u64) -> Socket {
    let family = field::<u16>(sock, features::sock_family()) as u64;
    let kind = field::<u16>(sock, features::sock_type()) as u64;
    Socket {
        sock,
        family,
        protocol: protocol_of(family, kind, field::<u16>(sock, features::sock_protocol())),
        state: field(sock, features::sock_state()),
    }
}

#[inline(always)]
pub(super) fn protocol_of(family: u64, kind: u64, protocol: u16) -> Protocol {
    if family != AF_INET && family != AF_INET6 {
        return Protocol::of_family(family as u16);
    }
    if kind == SOCK_RAW {
        return Protocol::RAW;
    }
    if protocol == Protocol::MPTCP.0 {
        // Rules and cgroup hooks see its subflows, which are TCP.
        return Protocol::TCP;
    }
    Protocol(protocol)
}

/// Kind of request for a socket address; `SOCKET*` if the protocol is checked without addresses.
#[inline(always)]
pub(super) fn kind_of_name(socket: &Socket, name: u64, length: u64) -> u64 {
    if !socket.protocol.has_address_hook() {
        return if socket.family == AF_INET { SOCKET } else { SOCKET6 };
    }
    let family = if length >= 2 {
        read::<u16>(name) as u64
    } else {
        AF_UNSPEC
    };
    // An IPv4 socket treats an AF_UNSPEC address as IPv4 (`udp_sendmsg`).
    if family == AF_INET6 && length >= 24 {
        NAME6
    } else if length >= 16 {
        NAME4
    } else {
        // Too short for an address: the kernel rejects it.
        NOTHING
    }
}

/// Kind of request for the peer of a connected socket.
#[inline(always)]
pub(super) fn kind_of_peer(socket: &Socket) -> u64 {
    if !socket.protocol.has_address_hook() {
        return if socket.family == AF_INET { SOCKET } else { SOCKET6 };
    }
    // A socket that has listened, or was accepted from one, sends replies; it does not connect.
    if socket.protocol.0 == Protocol::TCP.0 && field::<u32>(socket.sock, features::sock_max_backlog()) != 0 {
        return NOTHING;
    }
    if socket.state == TCP_CLOSE {
        // No peer. (Also for UDP: a connected socket is in TCP_ESTABLISHED, even to port 0.)
        return NOTHING;
    }
    if socket.family == AF_INET { PEER4 } else { PEER6 }
}
