//! Unspecified destinations in the address hooks: what is evaluated instead, and that it is what the kernel sends to
//! ([`engine_common::unspecified`]).

use core::ptr::{addr_of_mut, write_volatile};

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use engine_common::{
    Action, Address, Protocol, Substitute, limits::MAX_STACKED, scope::SlotRef, verifier::forget,
};

use crate::{
    cgroup_hooks::{canonical_v4_of, canonical_v6_of, read},
    request::evaluate_any,
    scope,
};

/// Third word of an IPv4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

/// Writes a word of the context, which the verifier takes only whole.
macro_rules! write {
    ($context:expr, $($field:tt)+) => {
        |value: u32| {
            // SAFETY: the context is valid while the program runs, and the field may be written by this hook.
            unsafe { write_volatile(addr_of_mut!((*$context).$($field)+), value) }
        }
    };
}

const AF_INET6: u32 = 10;

/// The socket of a call. The kernel has it for every call; the verifier knows that.
#[inline(always)]
fn socket_of(context: *mut bpf_sock_addr) -> *mut bpf_sock {
    read!(context, __bindgen_anon_1.sk)
}

/// Whether the socket's own address is IPv4-mapped.
#[inline(always)]
fn is_bound_to_mapped(socket: *mut bpf_sock) -> bool {
    let upper = [
        read!(socket, src_ip6[0]),
        read!(socket, src_ip6[1]),
        read!(socket, src_ip6[2]),
    ];
    upper == [0, 0, MAPPED]
}

/// The socket's own IPv4 address, zero for none. (For an IPv6 one the kernel writes 127.0.0.6 there: `LOOPBACK4_IPV6`.)
#[inline(always)]
fn bound_v4(socket: *mut bpf_sock) -> u32 {
    if read!(socket, family) == AF_INET6 && !is_bound_to_mapped(socket) {
        return 0;
    }
    u32::from_be(read!(socket, src_ip4))
}

/// What is evaluated instead of `0.0.0.0` or `::ffff:0.0.0.0` at a connect.
#[inline(always)]
fn of_v4_at_connect(context: *mut bpf_sock_addr) -> Substitute {
    let socket = socket_of(context);
    Substitute::for_bound_v4(bound_v4(socket), read!(socket, bound_dev_if) != 0)
}

/// What is evaluated instead of the destination; a global function, as all below, see
/// [`PackedVerdict`](crate::evaluate::PackedVerdict).
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn substitute_at_connect4(context: *mut bpf_sock_addr) -> u64 {
    match canonical_v4_of(context) {
        Address::V4(0) => of_v4_at_connect(context).word(),
        _ => Substitute::NONE.word(),
    }
}

/// The same on IPv6 sockets.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn substitute_at_connect6(context: *mut bpf_sock_addr) -> u64 {
    match canonical_v6_of(context) {
        Address::V4(0) => of_v4_at_connect(context).word(),
        Address::V6 { high: 0, low: 0 } => Substitute::for_v6(is_bound_to_mapped(socket_of(context))).word(),
        _ => Substitute::NONE.word(),
    }
}

/// The same for datagrams.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn substitute_at_sendmsg4(context: *mut bpf_sock_addr) -> u64 {
    if !matches!(canonical_v4_of(context), Address::V4(0)) {
        return Substitute::NONE.word();
    }
    // The source address of the message, or of the socket.
    let source = u32::from_be(read!(context, msg_src_ip4));
    let has_device = read!(socket_of(context), bound_dev_if) != 0;
    Substitute::for_v4(source, has_device).word()
}

/// The same for datagrams on IPv6 sockets. For an IPv4-mapped destination, and for `::` on a socket that is bound to one,
/// the kernel runs `sendmsg4`; any other `::` is always `::1`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn substitute_at_sendmsg6(context: *mut bpf_sock_addr) -> u64 {
    Substitute::of_unbound(canonical_v6_of(context)).word()
}

/// Makes the kernel connect to the address that was evaluated, whatever a thread does to the socket meanwhile, and
/// whatever device this hook cannot see (`IP_UNICAST_IF`). If every destination is allowed, nothing is changed.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn connect_to_v4(context: *mut bpf_sock_addr, substitute: u64, protocol: u32) -> u32 {
    if allows_every_destination(0, protocol) == 0 {
        write!(context, user_ip4)(Substitute::from_word(substitute).v4_bits().to_be());
    }
    0
}

/// The same for `::` and `::ffff:0.0.0.0`, whose first two words are zero.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn connect_to_v6(context: *mut bpf_sock_addr, substitute: u64, protocol: u32) -> u32 {
    if allows_every_destination(1, protocol) == 0 {
        let substitute = Substitute::from_word(substitute);
        let (third, fourth) = if substitute.is_v4() {
            (MAPPED, substitute.v4_bits().to_be())
        } else {
            (0, 1_u32.to_be())
        };
        write!(context, user_ip6[2])(third);
        write!(context, user_ip6[3])(fourth);
    }
    0
}

/// Makes the kernel send to the address that was evaluated, in the same way. It replaces the source: that is the
/// destination then, on the loopback device. With 127.0.0.1 as the destination a chosen device (`IP_PKTINFO`) would send to
/// its neighbours.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn send_from_v4(context: *mut bpf_sock_addr, substitute: u64, protocol: u32) -> u32 {
    if read!(context, msg_src_ip4) == 0 && allows_every_destination(0, protocol) == 0 {
        write!(context, msg_src_ip4)(Substitute::from_word(substitute).v4_bits().to_be());
    }
    0
}

/// Whether all policies of the scope allow every destination of a protocol, IPv6 ones too if `is_inet6` is not zero.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn allows_every_destination(is_inet6: u32, protocol: u32) -> u64 {
    let scope = scope::current();
    let unknown = scope.cgroup;
    let mut allows = forget(1, unknown);
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        if reference.slot().is_none() {
            break;
        }
        if reference.is_for_cgroup() {
            let uncounted = SlotRef(reference.0 | SlotRef::UNCOUNTED);
            let packed = evaluate_any(uncounted, is_inet6, Protocol(protocol as u16));
            let action = packed.verdict().action();
            allows = forget(allows & (action as u64 == Action::Allow as u64) as u64, unknown);
        }
        i += 1;
    }
    allows
}
