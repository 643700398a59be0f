//! The tcp_connect tracer: it runs for every task of the machine when a SYN is about to be sent. It decides
//! nothing.
//!
//! - It reports the local address of connects that a cgroup hook has reported.
//! - It reports the connects of tasks under a policy that uses only the tracer.

use aya_ebpf::{
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use engine_common::{
    Action, Hook, Protocol, Substitute,
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
    verifier::forget,
};

use crate::{
    enforce::{PolicyOwner, enforce},
    evaluate::PackedVerdict,
    features,
    kernel_memory::{field, read},
    local_address::{self, Connect, UNKNOWN_ADDRESS},
    report::ReportContext,
    request::AddressRequest,
    task_scope,
};

const AF_INET6: u16 = 10;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;

/// A SYN is about to be sent (net/ipv4/tcp_output.c): addresses and ports are final. It is also called for fast open
/// and for subflows of MPTCP.
#[kprobe]
pub fn tcp_connect(context: ProbeContext) -> u32 {
    let Some(socket) = context.arg::<u64>(0) else {
        return 0;
    };
    local_address::report(
        socket,
        field(socket, features::sock_cookie()),
        field(socket, features::sock_own_port()),
    );
    report(socket, Hook::TcpConnect);
    0
}

/// Used if kprobes cannot be pinned (before Linux 5.15) or are not available: the state of a socket changes
/// (`inet_sk_set_state`, net/ipv4/af_inet.c). The port is not yet known at the change to SYN_SENT; the next change,
/// when the peer has replied or the attempt has failed, reports it. `skc_num` may be cleared by then, `inet_sport`
/// is not.
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
        local_address::report(socket, field(socket, features::sock_cookie()), port);
        local_address::report(socket, socket, port);
    }
    0
}

/// The destination of a socket. Each global function reads it again, since it cannot be passed.
#[inline(always)]
fn request_for(socket: u64) -> AddressRequest {
    let unknown = socket;
    let mut is_v6 = 0;
    let mut address = features::sock_peer_v4() as u64;
    if field::<u16>(socket, features::sock_family()) == AF_INET6 {
        is_v6 = 1;
        address = features::sock_peer_v6() as u64;
    }
    let address = socket.wrapping_add(forget(address, unknown));
    let port = u16::from_be(field(socket, features::sock_peer_port()));
    // The kernel has replaced an unspecified destination before.
    let substitute = |_| Substitute::NONE;
    AddressRequest::read(address, is_v6, port, Protocol::TCP, substitute, unknown)
}

/// The local address of a socket, in the family of the destination: for an IPv4-mapped one the kernel stores both
/// representations (`sk_rcv_saddr_set`, net/ipv4/tcp_ipv4.c).
#[inline(always)]
fn local_address_of(socket: u64, family: u64) -> (u64, u64, u64) {
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

/// Evaluates one policy; a global function, see [`PackedVerdict`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_for_connection(socket: u64, reference: u32) -> u64 {
    request_for(socket).evaluate_known(SlotRef(reference)).word()
}

/// Reports; a global function. `origin`: bits 0 to 7 the hook, 8 whether the socket belongs to the same scope, 32 to
/// 63 the slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_for_connection(socket: u64, origin: u64, packed: u64, scope: u64) -> u64 {
    let hook = origin as u8;
    let mut connect = Connect {
        request: request_for(socket),
        local: UNKNOWN_ADDRESS,
        key: 0,
    };
    if hook == Hook::TcpConnect as u8 {
        connect.local = local_address_of(socket, connect.request.family);
    } else {
        // The socket may have no cookie; its address identifies it until its state changes again.
        connect.key = socket;
    }
    let owner = PolicyOwner::TaskCgroup {
        scope,
        foreign: origin >> 8 & 1 == 0,
    };
    let report_context = ReportContext {
        hook,
        slot: (origin >> 32) as u32,
        cookie: field(socket, features::sock_cookie()),
    };
    enforce(&connect, &report_context, owner, PackedVerdict::from_word(packed))
}

/// Evaluates and reports the policies that use only the tracer, of the task's scope at one depth. A global function:
/// the verifier checks it once, not once per depth.
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
            let packed = PackedVerdict::from_word(evaluate_for_connection(socket, reference.0));
            if !matches!(packed.verdict().action(), Action::Allow) {
                let origin = hook as u64 & 0xff | (own as u64) << 8 | (slot as u64) << 32;
                enforce_for_connection(socket, origin, packed.word(), scope.cgroup);
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
