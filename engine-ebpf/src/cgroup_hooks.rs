//! The programs at cgroup hooks: from a hook's context to a request.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use engine_common::{
    Address, Hook, Protocol, SocketFamily, Substitute, destination::canonical_v6, verifier::forget,
};

use crate::{
    enforce::{PASS, PolicyOwner, enforce, enforce_scope},
    evaluate::PackedVerdict,
    local_address::{self, Connect, UNKNOWN_ADDRESS},
    report::ReportContext,
    request::{AddressRequest, Request, SocketRequest},
    scope,
    sending_socket::has_listened,
    socket_user::{self, evaluate_listened, record_user},
    unspecified::{
        connect_to_v4, connect_to_v6, send_from_v4, substitute_at_connect4, substitute_at_connect6,
        substitute_at_sendmsg4, substitute_at_sendmsg6,
    },
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_RAW: u32 = 3;

/// Reads a field of the context. Volatile: the verifier takes only whole-word accesses, which the
/// compiler would otherwise merge or split.
macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context is valid while the program runs.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!((*$context).$($field)+)) }
    };
}

pub(crate) use read;

#[inline(always)]
fn protocol_of(context: *mut bpf_sock_addr) -> Protocol {
    if read!(context, type_) == SOCK_RAW {
        return Protocol::RAW;
    }
    Protocol(read!(context, protocol) as u16)
}

/// Port in host order; the context has it in network order, as in the socket address.
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
pub(crate) fn canonical_v4_of(context: *mut bpf_sock_addr) -> Address {
    Address::V4(u32::from_be(read!(context, user_ip4)))
}

#[inline(always)]
fn words_v6_of(context: *mut bpf_sock_addr) -> [u32; 4] {
    [
        read!(context, user_ip6[0]),
        read!(context, user_ip6[1]),
        read!(context, user_ip6[2]),
        read!(context, user_ip6[3]),
    ]
}

#[inline(always)]
fn canonical_of_words(words: [u32; 4]) -> Address {
    let half = |a: u32, b: u32| (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64;
    canonical_v6(half(words[0], words[1]), half(words[2], words[3]))
}

#[inline(always)]
pub(crate) fn canonical_v6_of(context: *mut bpf_sock_addr) -> Address {
    canonical_of_words(words_v6_of(context))
}

#[inline(always)]
fn request_v4(context: *mut bpf_sock_addr, substitute: Substitute) -> AddressRequest {
    let address = read!(context, user_ip4);
    AddressRequest::new(
        [address, 0, 0, 0],
        4,
        Address::V4(u32::from_be(address)),
        substitute,
        port_of(context),
        protocol_of(context),
        address as u64,
    )
}

#[inline(always)]
fn request_v6(context: *mut bpf_sock_addr, substitute: Substitute) -> AddressRequest {
    let words = words_v6_of(context);
    AddressRequest::new(
        words,
        6,
        canonical_of_words(words),
        substitute,
        port_of(context),
        protocol_of(context),
        words[0] as u64,
    )
}

/// Defines the function that enforces a verdict about an address, for one family. It is a global function, see
/// [`PackedVerdict`]: it reads the request from the context again, because it can only be passed scalars and the
/// context.
macro_rules! enforce_address {
    ($name:ident, $request:ident) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(
            context: *mut bpf_sock_addr,
            hook: u32,
            slot: u32,
            packed: u64,
            substitute: u64,
        ) -> u64 {
            let report_context = ReportContext {
                hook: hook as u8,
                slot,
                cookie: cookie_of(context),
            };
            let packed = PackedVerdict::from_word(packed);
            let request = $request(context, Substitute::from_word(substitute));
            let key = local_address::key(hook, request.protocol, report_context.cookie, packed);
            let connect = Connect {
                request,
                local: UNKNOWN_ADDRESS,
                key,
            };
            let outcome = enforce(&connect, &report_context, PolicyOwner::SocketCgroup, packed);
            socket_user::record_reported(
                &connect.request,
                report_context.cookie,
                slot,
                packed,
                outcome,
            );
            outcome
        }
    };
}

enforce_address!(enforce_v4, request_v4);
enforce_address!(enforce_v6, request_v6);

/// In a strict scope, records the task that uses the socket. Returns whether the socket has listened before and is
/// about to connect, which is a fault: the egress filter would take its packets for replies.
#[inline(always)]
fn record_strict_user(context: *mut bpf_sock_addr, hook: Hook) -> bool {
    let scope = scope::current();
    if !scope.is_strict() {
        return false;
    }
    let connects = matches!(hook, Hook::Connect4 | Hook::Connect6);
    record_user(context, connects as u32);
    connects && forget(has_listened(context) as u64, scope.cgroup) != 0
}

/// Defines the check of one hook. A macro, so that the hook is a constant everywhere: each hook may access other fields of
/// the context, and the verifier checks all functions that could be called.
macro_rules! check {
    ($name:ident, $hook:expr, $request:ident, $evaluate:ident, $enforce:ident, $substitute:ident, $send_to:expr) => {
        #[inline(always)]
        fn $name(context: *mut bpf_sock_addr) -> i32 {
            if matches!($hook, Hook::Sendmsg4 | Hook::Sendmsg6) && port_of(context) == 0 {
                // A connected socket with control messages: the context has no address, and the peer was checked at the
                // connect. An address with port 0 is refused before the hook (`udp_sendmsg`, `udpv6_sendmsg`).
                return PASS;
            }
            let substitute = Substitute::from_word($substitute(context));
            let request = $request(context, substitute);
            let listened = record_strict_user(context, $hook);
            let answer = enforce_scope(
                |reference| {
                    if listened {
                        return PackedVerdict::from_word(evaluate_listened(reference.0));
                    }
                    request.$evaluate(reference)
                },
                |slot, packed| {
                    $enforce(
                        context,
                        $hook as u32,
                        slot,
                        packed.word(),
                        substitute.word(),
                    )
                },
            );
            if answer == PASS && substitute.is_address() {
                $send_to(context, substitute.word(), request.protocol.0 as u32);
            }
            answer
        }
    };
}

check!(
    check_connect4,
    Hook::Connect4,
    request_v4,
    evaluate,
    enforce_v4,
    substitute_at_connect4,
    connect_to_v4
);
check!(
    check_connect6,
    Hook::Connect6,
    request_v6,
    evaluate,
    enforce_v6,
    substitute_at_connect6,
    connect_to_v6
);
check!(
    check_sendmsg4,
    Hook::Sendmsg4,
    request_v4,
    evaluate,
    enforce_v4,
    substitute_at_sendmsg4,
    send_from_v4
);
// The address is known, and the kernel sends to it.
check!(
    check_sendmsg6,
    Hook::Sendmsg6,
    request_v6,
    evaluate_known,
    enforce_v6,
    substitute_at_sendmsg6,
    |_, _, _| ()
);

/// connect(2), TCP fast open and io_uring on IPv4 sockets (net/ipv4/af_inet.c, Linux 4.17).
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    check_connect4(context.sock_addr)
}

/// The same on IPv6 sockets, IPv4-mapped destinations included.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    check_connect6(context.sock_addr)
}

/// sendmsg(2) with a destination address (net/ipv4/udp.c, Linux 4.18).
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    check_sendmsg4(context.sock_addr)
}

/// The same on IPv6 sockets; for IPv4-mapped destinations the kernel runs `sendmsg4`.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    check_sendmsg6(context.sock_addr)
}

/// socket(2) of AF_INET and AF_INET6: checks protocols whose destinations no address hook sees.
#[cgroup_sock(sock_create)]
pub fn sock_create(context: SockContext) -> i32 {
    let socket = context.sock;
    let Some(request) = socket_request(socket) else {
        return 1;
    };
    if request.protocol.has_address_hook() {
        return 1;
    }
    enforce_scope(
        |reference| request.evaluate(reference),
        |slot, packed| enforce_socket(socket, slot, packed.word()),
    )
}

/// `None` for other families, for which the kernel does not run this hook (`inet_create`, `inet6_create`).
#[inline(always)]
fn socket_request(socket: *mut bpf_sock) -> Option<SocketRequest> {
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

/// Enforces a verdict about the creation of a socket; a global function like [`enforce_v4`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_socket(socket: *mut bpf_sock, slot: u32, packed: u64) -> u64 {
    let report_context = ReportContext {
        hook: Hook::SockCreate as u8,
        slot,
        cookie: 0,
    };
    match socket_request(socket) {
        Some(request) => enforce(
            &request,
            &report_context,
            PolicyOwner::SocketCgroup,
            PackedVerdict::from_word(packed),
        ),
        None => 0,
    }
}

/// Decides nothing. It is attached first: the first attachment creates the cgroup's storage, which
/// must be written before a program that decides can run.
#[cgroup_sock(sock_release)]
pub fn scope_anchor(_context: SockContext) -> i32 {
    let _scope = scope::current();
    1
}
