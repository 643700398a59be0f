//! The programs: from a hook's context to a question.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use core::ptr::{addr_of, read_volatile};
use engine_common::{
    Hook, Protocol, SocketFamily,
    destination::{canonical_v4, canonical_v6},
    scope::SlotRef,
    verifier::forget,
};

use crate::{
    enforce::{PackedVerdict, PolicyOwner, judge, respond},
    local_address::{self, Connect, NO_SOURCE},
    report::ReportContext,
    request::{AddressRequest, Request, SocketRequest},
    scope,
    sender::has_listened,
    socket_user::{self, evaluate_listened, remember_owner},
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_RAW: u32 = 3;

/// Reads a field of the context. Volatile: the verifier takes only whole-word accesses, which the
/// compiler would otherwise merge or split.
macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context is valid while the program runs.
        unsafe { read_volatile(addr_of!((*$context).$($field)+)) }
    };
}

#[inline(always)]
fn protocol_of(context: *mut bpf_sock_addr) -> Protocol {
    if read!(context, type_) == SOCK_RAW {
        return Protocol::RAW;
    }
    Protocol(read!(context, protocol) as u16)
}

/// Port in host order: the context holds the 16 bits of the socket address as they stand there.
#[inline(always)]
fn port_of(context: *mut bpf_sock_addr) -> u16 {
    u16::from_be(read!(context, user_port) as u16)
}

#[inline(always)]
fn cookie_of(context: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the helper takes this program's context.
    unsafe { bpf_get_socket_cookie(context.cast()) }
}

#[inline(always)]
fn question_v4(context: *mut bpf_sock_addr) -> AddressRequest {
    let address = read!(context, user_ip4);
    AddressRequest::about(
        [address, 0, 0, 0],
        4,
        canonical_v4(u32::from_be(address)),
        port_of(context),
        protocol_of(context),
        address as u64,
    )
}

#[inline(always)]
fn question_v6(context: *mut bpf_sock_addr) -> AddressRequest {
    let words = [
        read!(context, user_ip6[0]),
        read!(context, user_ip6[1]),
        read!(context, user_ip6[2]),
        read!(context, user_ip6[3]),
    ];
    let half = |a: u32, b: u32| (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64;
    AddressRequest::about(
        words,
        6,
        canonical_v6(half(words[0], words[1]), half(words[2], words[3])),
        port_of(context),
        protocol_of(context),
        words[0] as u64,
    )
}

/// Reports and acts; a global function, see [`PackedVerdict`]: it reads the context again, so that only
/// numbers and the context cross.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_v4(context: *mut bpf_sock_addr, hook: u32, slot: u32, answer: u64) -> u64 {
    let place = ReportContext {
        hook: hook as u8,
        slot,
        cookie: cookie_of(context),
    };
    let answer = PackedVerdict::from_word(answer);
    let question = question_v4(context);
    let key = local_address::key(hook, question.protocol, place.cookie, answer);
    let connect = Connect {
        question,
        source: NO_SOURCE,
        key,
    };
    let outcome = respond(&connect, &place, PolicyOwner::SocketCgroup, answer);
    socket_user::reported(&connect.question, place.cookie, slot, answer, outcome);
    outcome
}

/// Like [`enforce_v4`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_v6(context: *mut bpf_sock_addr, hook: u32, slot: u32, answer: u64) -> u64 {
    let place = ReportContext {
        hook: hook as u8,
        slot,
        cookie: cookie_of(context),
    };
    let answer = PackedVerdict::from_word(answer);
    let question = question_v6(context);
    let key = local_address::key(hook, question.protocol, place.cookie, answer);
    let connect = Connect {
        question,
        source: NO_SOURCE,
        key,
    };
    let outcome = respond(&connect, &place, PolicyOwner::SocketCgroup, answer);
    socket_user::reported(&connect.question, place.cookie, slot, answer, outcome);
    outcome
}

/// Where a strict policy stands: remembers who uses the socket. Whether it has listened before and is
/// to connect, which then is a fault: the floor would take its packets for answers.
#[inline(always)]
fn remember_strict_user(context: *mut bpf_sock_addr, hook: Hook) -> bool {
    let scope = scope::current();
    if !scope.is_strict() {
        return false;
    }
    let connects = matches!(hook, Hook::Connect4 | Hook::Connect6);
    remember_owner(context, connects as u32);
    connects && forget(has_listened(context) as u64, scope.cgroup) != 0
}

#[inline(always)]
fn ask(question: &AddressRequest, reference: SlotRef, listened: bool) -> PackedVerdict {
    if listened {
        return PackedVerdict::from_word(evaluate_listened(reference.0));
    }
    question.ask(reference)
}

#[inline(always)]
fn evaluate_v4(context: *mut bpf_sock_addr, hook: Hook) -> i32 {
    let question = question_v4(context);
    let listened = remember_strict_user(context, hook);
    judge(
        |reference| ask(&question, reference, listened),
        |slot, answer| enforce_v4(context, hook as u32, slot, answer.word()),
    )
}

#[inline(always)]
fn evaluate_v6(context: *mut bpf_sock_addr, hook: Hook) -> i32 {
    let question = question_v6(context);
    let listened = remember_strict_user(context, hook);
    judge(
        |reference| ask(&question, reference, listened),
        |slot, answer| enforce_v6(context, hook as u32, slot, answer.word()),
    )
}

/// connect(2), TCP fast open and io_uring on IPv4 sockets (net/ipv4/af_inet.c, Linux 4.17).
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    evaluate_v4(context.sock_addr, Hook::Connect4)
}

/// The same on IPv6 sockets, IPv4-mapped destinations included.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    evaluate_v6(context.sock_addr, Hook::Connect6)
}

/// Datagrams with an address of their own (net/ipv4/udp.c, Linux 4.18).
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    evaluate_v4(context.sock_addr, Hook::Sendmsg4)
}

/// The same on IPv6 sockets; IPv4-mapped destinations arrive at `sendmsg4`.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    evaluate_v6(context.sock_addr, Hook::Sendmsg6)
}

/// socket(2) of the two inet families: judges protocols whose destinations no address hook sees.
#[cgroup_sock(sock_create)]
pub fn sock_create(context: SockContext) -> i32 {
    let socket = context.sock;
    let Some(question) = question_socket(socket) else {
        return 1;
    };
    if question.protocol.has_address_hook() {
        return 1;
    }
    judge(
        |reference| question.ask(reference),
        |slot, answer| enforce_socket(socket, slot, answer.word()),
    )
}

/// `None` for families that this hook never sees: the kernel runs it for the two inet families only
/// (`inet_create`, `inet6_create`).
#[inline(always)]
fn question_socket(socket: *mut bpf_sock) -> Option<SocketRequest> {
    let family = match read!(socket, family) {
        AF_INET => SocketFamily::Inet,
        AF_INET6 => SocketFamily::Inet6,
        _ => return None,
    };
    let protocol = if read!(socket, type_) == SOCK_RAW {
        Protocol::RAW
    } else {
        Protocol(read!(socket, protocol) as u16)
    };
    Some(SocketRequest { family, protocol })
}

/// Like [`enforce_v4`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_socket(socket: *mut bpf_sock, slot: u32, answer: u64) -> u64 {
    let place = ReportContext {
        hook: Hook::SockCreate as u8,
        slot,
        cookie: 0,
    };
    match question_socket(socket) {
        Some(question) => respond(
            &question,
            &place,
            PolicyOwner::SocketCgroup,
            PackedVerdict::from_word(answer),
        ),
        None => 0,
    }
}

/// Decides nothing. Attached first: a cgroup's storage exists from its first attachment on, and it
/// must be written before a program that decides can run.
#[cgroup_sock(sock_release)]
pub fn scope_anchor(_context: SockContext) -> i32 {
    let _scope = scope::current();
    1
}
