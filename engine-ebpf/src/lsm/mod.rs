//! The LSM programs: they run for every task of the machine, after its sockaddr was copied and before a
//! cgroup hook. What they add to those:
//!
//! - A socket that was made in another cgroup (passed, inherited, older) is judged by the policies of the
//!   *task* that uses it.
//! - Other families (packet, vsock, ...) are judged when their socket is made.
//! - Unix sockets that rules name are judged (`unix`).
//! - Where a cgroup hook cannot kill, or has no errno but EPERM, this one does.
//!
//! Everything else is left to the cgroup hook that follows, so that one attempt is one event.
//!
//! The last argument of each is what programs before it returned.

mod call;
mod evaluate;
mod socket;
mod unix;

use aya_ebpf::{macros::lsm, programs::LsmContext};
use engine_common::{Hook, Protocol};

use self::{
    call::{Call, NOTHING, SOCKET, SOCKET6},
    evaluate::{denied, evaluate_without_address, is_denied, judge},
    socket::{
        AF_INET, AF_INET6, AF_UNSPEC, Socket, TCP_CLOSE, is_local, is_peer, kind_of_name, kind_of_peer,
        protocol_of, socket_at, socket_of,
    },
};
use crate::{
    features,
    kernel::{arguments, field, read},
    task_scope,
};

const SOCK_SEQPACKET: u64 = 5;
const SOCK_DCCP: u64 = 6;
const MSG_FASTOPEN: u32 = 0x2000_0000;
/// What peers ask for (ASCONF), as the kernel names it to the hook: network order, while packets come in.
const SCTP_PARAM_ADD_IP: u32 = 0x01c0;
const SCTP_PARAM_SET_PRIMARY: u32 = 0x04c0;

#[inline(always)]
fn judge_kind(hook: Hook, socket: &Socket, name: u64, length: u64, kind: u64) -> i32 {
    if kind == NOTHING {
        return 0;
    }
    judge(socket.sock, name, Call::new(hook, length, socket.protocol, kind))
}

/// connect(2) and io_uring, of any family (security/security.c, Linux 5.7). Not fast open, which is a
/// sendmsg.
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
        // It takes the peer away.
        return 0;
    }
    if socket.protocol.0 == Protocol::TCP.0 && socket.state != TCP_CLOSE && is_peer(&socket, name) {
        // Asked before: a second call, of io_uring for example, waits for the first. Any other destination is judged: the
        // socket may be taken from its peer by another thread before the kernel looks.
        return 0;
    }
    let kind = kind_of_name(&socket, name, length);
    judge_kind(Hook::LsmConnect, &socket, name, length, kind)
}

/// Whatever sends: send(2) and its kin, write(2), io_uring (Linux 5.7).
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
    // TCP ignores names but for fast open; an IPv6 socket takes one without family for none (`udpv6_sendmsg`).
    let flags: u32 = field(message, features::msghdr_flags());
    let by_name = is_named
        && (socket.protocol.0 != Protocol::TCP.0 || flags & MSG_FASTOPEN != 0)
        && !(socket.family == AF_INET6 && read::<u16>(name) as u64 == AF_UNSPEC);
    let kind = if by_name {
        kind_of_name(&socket, name, length)
    } else {
        kind_of_peer(&socket)
    };
    judge_kind(Hook::LsmSendmsg, &socket, name, length, kind)
}

/// socket(2), of any family (Linux 5.7).
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
        // By the type: TCP and UDP, or one of these.
        protocol = match kind {
            SOCK_SEQPACKET => Protocol::SCTP,
            SOCK_DCCP => Protocol::DCCP,
            _ => protocol,
        };
    }
    if protocol.has_address_hook() || protocol.0 == 0 {
        return 0;
    }
    let question = if family == AF_INET { SOCKET } else { SOCKET6 };
    evaluate_without_address(0, Call::new(Hook::LsmCreate, 0, protocol, question))
}

/// Associations of SCTP that are made by socket options and while sending (Linux 4.17; as LSM program 5.7).
#[lsm(hook = "sctp_bind_connect")]
pub fn lsm_sctp(context: LsmContext) -> i32 {
    let [sock, option, _name, _length, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    if matches!(option as u32, SCTP_PARAM_ADD_IP | SCTP_PARAM_SET_PRIMARY) {
        // No call of the current task, which is whoever the packet met.
        return 0;
    }
    if task_scope::levels() == 0 {
        return 0;
    }
    let socket = socket_at(sock);
    let kind = if socket.family == AF_INET { SOCKET } else { SOCKET6 };
    evaluate_without_address(socket.sock, Call::new(Hook::LsmSctp, 0, socket.protocol, kind))
}
