//! The probe on TCP connections: it runs for every task of the machine, when a SYN is about to leave. It decides
//! nothing.
//!
//! - Of connects that a cgroup hook has reported it tells where they send from.
//! - Connects of tasks under a policy that is for the probe alone it reports itself.

use aya_ebpf::{
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use engine_common::{
    Action, Hook, Protocol,
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
    verifier::forget,
};

use crate::{
    enforce::{PackedVerdict, PolicyOwner, respond},
    features,
    kernel::{field, read},
    local_address::{self, Connect, NO_SOURCE},
    report::ReportContext,
    request::{AddressRequest, Request},
    task_scope,
};

const AF_INET6: u16 = 10;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;

/// A SYN is about to leave (net/ipv4/tcp_output.c): addresses and ports are final. Fast open and MPTCP's subflows
/// come here too.
#[kprobe]
pub fn tcp_connect(context: ProbeContext) -> u32 {
    let Some(socket) = context.arg::<u64>(0) else {
        return 0;
    };
    local_address::tell(
        socket,
        field(socket, features::sock_cookie()),
        field(socket, features::sock_own_port()),
    );
    report(socket, Hook::TcpConnect);
    0
}

/// The same where no probe can be pinned (before Linux 5.15) or there are none: the state of a socket changes
/// (`inet_sk_set_state`, net/ipv4/af_inet.c). To SYN_SENT it changes before the port is known; the next change
/// tells, when the peer has answered or the attempt has failed. By then the socket may have lost its number and
/// has only the port that it sent from.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn sock_state(context: RawTracePointContext) -> i32 {
    let (socket, old, new) = (
        context.arg::<u64>(0),
        context.arg::<u64>(1) as u32,
        context.arg::<u64>(2) as u32,
    );
    if old == TCP_CLOSE && new == TCP_SYN_SENT {
        if field::<u16>(socket, features::sock_protocol()) == Protocol::TCP.0 {
            report(socket, Hook::SockState);
        }
    } else if old == TCP_SYN_SENT {
        let port = u16::from_be(field(socket, features::inet_source_port()));
        local_address::tell(socket, field(socket, features::sock_cookie()), port);
        local_address::tell(socket, socket, port);
    }
    0
}

/// What the probe is asked about, by reading it (again) from the socket.
#[inline(always)]
fn question(socket: u64) -> AddressRequest {
    let unknown = socket;
    let mut is_v6 = 0;
    let mut address = features::sock_peer_v4() as u64;
    if field::<u16>(socket, features::sock_family()) == AF_INET6 {
        is_v6 = 1;
        address = features::sock_peer_v6() as u64;
    }
    let address = socket.wrapping_add(forget(address, unknown));
    let port = u16::from_be(field(socket, features::sock_peer_port()));
    AddressRequest::read(address, is_v6, port, Protocol::TCP, unknown)
}

/// Where the socket sends from, in the family of the destination: of an IPv4-mapped one the kernel keeps both
/// spellings (`sk_rcv_saddr_set`, net/ipv4/tcp_ipv4.c).
#[inline(always)]
fn source_of(socket: u64, family: u64) -> (u64, u64, u64) {
    let port = field::<u16>(socket, features::sock_own_port()) as u64;
    let mut address = features::sock_own_v6() as u64;
    if family == 4 {
        address = features::sock_own_v4() as u64;
    }
    let [first, second] = read::<[u64; 2]>(socket.wrapping_add(forget(address, socket)));
    if family == 4 {
        ((u32::from_be(first as u32) as u64) << 32, 0, port)
    } else {
        (u64::from_be(first), u64::from_be(second), port)
    }
}

/// Asks one policy; a global function, see [`PackedVerdict`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_for_connection(socket: u64, reference: u32) -> u64 {
    question(socket).ask(SlotRef(reference)).word()
}

/// Reports; a global function. `place`: bits 0 to 7 the hook, 8 whether the socket is of the same scope, 32 to 63
/// the slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_for_connection(socket: u64, place: u64, answer: u64, scope: u64) -> u64 {
    let hook = place as u8;
    let mut connect = Connect {
        question: question(socket),
        source: NO_SOURCE,
        key: 0,
    };
    if hook == Hook::TcpConnect as u8 {
        connect.source = source_of(socket, connect.question.family);
    } else {
        // The socket may have no cookie, and is this one until its state changes again.
        connect.key = socket;
    }
    let side = PolicyOwner::TaskCgroup {
        scope,
        foreign: place >> 8 & 1 == 0,
    };
    let place = ReportContext {
        hook,
        slot: (place >> 32) as u32,
        cookie: field(socket, features::sock_cookie()),
    };
    respond(&connect, &place, side, PackedVerdict::from_word(answer))
}

/// Asks the policies that the probe alone is for, of the task's scope at one depth. A global function: checked
/// once, and not once a depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn report_level(level: u32, socket: u64, hook: u32) -> u64 {
    let Some(scope) = task_scope::at_level(level & 0xff) else {
        return 0;
    };
    let mut reported = forget(0, scope.cgroup);
    let own = task_scope::ancestor_of_socket(socket, level & 0xff) == scope.cgroup;
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        if reference.is_for_tracer_only() {
            let answer = PackedVerdict::from_word(evaluate_for_connection(socket, reference.0));
            if !matches!(answer.verdict().action(), Action::Allow) {
                let place = hook as u64 & 0xff | (own as u64) << 8 | (slot as u64) << 32;
                enforce_for_connection(socket, place, answer.word(), scope.cgroup);
                reported = forget(1, scope.cgroup);
            }
        }
        i += 1;
    }
    reported
}

#[inline(always)]
fn report(socket: u64, hook: Hook) {
    let levels = task_scope::levels();
    let mut level = 0;
    while levels != 0 && level < Scope::LEVELS {
        if levels >> level & 1 != 0 {
            report_level(level, socket, hook as u32);
        }
        level += 1;
    }
}
