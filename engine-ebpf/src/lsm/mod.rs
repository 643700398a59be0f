//! The LSM programs: they run for every task of the machine, after the kernel copied the socket address and before the
//! cgroup hook. They enforce what cgroup hooks cannot:
//!
//! - A socket created in another cgroup (passed, inherited, older) is checked against the policies of the
//!   *task* that uses it.
//! - Sockets of other families (packet, vsock, ...) are checked when they are created.
//! - Unix sockets are checked if a policy has rules about them (`unix`).
//! - If a cgroup hook cannot kill, or can return only EPERM, the LSM program enforces the verdict.
//!
//! Each verdict is enforced by exactly one hook, either the cgroup hook or the LSM program, so that it produces one
//! event.
//!
//! The last argument of each program is the return value of the program before it.

mod call;
mod evaluate;
mod socket;
mod unix;
mod unspecified;

use aya_ebpf::{macros::lsm, programs::LsmContext};
use engine_common::{Hook, Protocol};

use self::{
    call::{Call, NOTHING, SOCKET, SOCKET6},
    evaluate::{check, check_without_address, denied, is_denied},
    socket::{
        AF_INET, AF_INET6, AF_UNSPEC, Socket, TCP_CLOSE, is_local, is_peer, kind_of_name, kind_of_peer,
        protocol_of, socket_at, socket_of,
    },
};
use crate::{
    features,
    kernel_memory::{arguments, field, read},
    task_scope,
};

const SOCK_SEQPACKET: u64 = 5;
const SOCK_DCCP: u64 = 6;
const MSG_FASTOPEN: u32 = 0x2000_0000;
/// Requests of a peer (ASCONF) for which the kernel calls the hook while it receives a packet; network order.
const SCTP_PARAM_ADD_IP: u32 = 0x01c0;
const SCTP_PARAM_SET_PRIMARY: u32 = 0x04c0;

#[inline(always)]
fn check_kind(hook: Hook, socket: &Socket, name: u64, length: u64, kind: u64, control: u64) -> i32 {
    if kind == NOTHING {
        return 0;
    }
    let call = Call::new(hook, length, socket.protocol, kind).with_control(control, socket.sock);
    check(socket.sock, name, call)
}

/// connect(2) and io_uring, all families (security/security.c, Linux 5.7). Fast open calls socket_sendmsg
/// instead.
#[lsm(hook = "socket_connect")]
pub fn lsm_connect(context: LsmContext) -> i32 {
    let [socket, name, length, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    if task_scope::levels() == 0 {
        return 0;
    }
    let Some(socket) = socket_of(socket) else {
        return 0;
    };
    let length = length & 0xff;
    if length < 2 || read::<u16>(name) as u64 == AF_UNSPEC {
        // It disconnects the socket.
        return 0;
    }
    if socket.protocol.0 == Protocol::TCP.0 && socket.state != TCP_CLOSE && is_peer(&socket, name) {
        // Checked before: a second call, for example of io_uring, waits for the first. Any other destination is checked:
        // another thread may disconnect the socket before the kernel reads its state.
        return 0;
    }
    let kind = kind_of_name(&socket, name, length);
    check_kind(Hook::LsmConnect, &socket, name, length, kind, 0)
}

/// All calls that send: send(2), sendto(2), sendmsg(2), write(2), io_uring (Linux 5.7).
#[lsm(hook = "socket_sendmsg")]
pub fn lsm_sendmsg(context: LsmContext) -> i32 {
    let [socket, message, _size, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    if task_scope::levels() == 0 {
        return 0;
    }
    let Some(socket) = socket_of(socket) else {
        return 0;
    };
    let name: u64 = field(message, features::msghdr_name());
    let length = field::<u32>(message, features::msghdr_namelen()) as u64 & 0xff;
    let is_named = name != 0 && length >= 2;
    // TCP ignores addresses except for fast open; an IPv6 socket ignores an AF_UNSPEC one (`udpv6_sendmsg`).
    let flags: u32 = field(message, features::msghdr_flags());
    let by_name = is_named
        && (socket.protocol.0 != Protocol::TCP.0 || flags & MSG_FASTOPEN != 0)
        && !(socket.family == AF_INET6 && read::<u16>(name) as u64 == AF_UNSPEC);
    let kind = if by_name {
        kind_of_name(&socket, name, length)
    } else {
        kind_of_peer(&socket)
    };
    let control = field(message, features::msghdr_controllen());
    check_kind(Hook::LsmSendmsg, &socket, name, length, kind, control)
}

/// socket(2), all families (Linux 5.7).
#[lsm(hook = "socket_create")]
pub fn lsm_create(context: LsmContext) -> i32 {
    let [family, kind, protocol, by_kernel, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    let (family, kind) = (family & 0xffff_ffff, kind & 0xf);
    if by_kernel as u32 != 0 || is_local(family) {
        return 0;
    }
    let mut protocol = protocol_of(family, kind, protocol as u16);
    if protocol.0 == 0 {
        // The default protocol of the type.
        protocol = match kind {
            SOCK_SEQPACKET => Protocol::SCTP,
            SOCK_DCCP => Protocol::DCCP,
            _ => protocol,
        };
    }
    if protocol.has_address_hook() || protocol.0 == 0 {
        return 0;
    }
    let kind = if family == AF_INET { SOCKET } else { SOCKET6 };
    check_without_address(0, Call::new(Hook::LsmCreate, 0, protocol, kind))
}

/// SCTP associations made by socket options and by sending (Linux 4.17; as LSM program 5.7).
#[lsm(hook = "sctp_bind_connect")]
pub fn lsm_sctp(context: LsmContext) -> i32 {
    let [sock, option, _name, _length, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    if matches!(option as u32, SCTP_PARAM_ADD_IP | SCTP_PARAM_SET_PRIMARY) {
        // The current task did not make this call: it was interrupted by the packet.
        return 0;
    }
    if task_scope::levels() == 0 {
        return 0;
    }
    let socket = socket_at(sock);
    let kind = if socket.family == AF_INET { SOCKET } else { SOCKET6 };
    check_without_address(socket.sock, Call::new(Hook::LsmSctp, 0, socket.protocol, kind))
}
