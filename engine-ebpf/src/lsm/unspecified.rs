//! Unspecified destinations in the LSM programs, which cannot replace the address ([`engine_common::unspecified`]).

use engine_common::{Address, Hook, Protocol, Substitute};

use super::{call::Call, socket::AF_INET6};
use crate::{
    features,
    kernel_memory::{bit, field},
};

/// What is evaluated instead of the destination of a call.
#[inline(always)]
pub(super) fn substitute(socket: u64, call: Call, canonical: Address) -> Substitute {
    let is_v4 = match canonical {
        Address::V4(0) => true,
        Address::V6 { high: 0, low: 0 } => false,
        _ => return Substitute::NONE,
    };
    if call.is_for_cgroup_hook() {
        return for_cgroup_hook(socket, call, is_v4);
    }
    // Nothing replaces the address, and another thread may bind the socket before the kernel reads its address: only one
    // that bind(2) has fixed is known. (A peer without address: the socket was disconnected meanwhile.)
    if !call.is_named() || !bit(socket, features::sock_address_lock_bit()) {
        return Substitute::ANY;
    }
    if !is_v4 {
        return Substitute::for_v6(is_bound_to_mapped(socket));
    }
    let source = u32::from_be(field(socket, features::inet_source()));
    if source == 0 || call.has_control() {
        return Substitute::ANY;
    }
    Substitute::v4(source)
}

/// The same as the cgroup hook: it runs afterwards and replaces the address.
#[inline(always)]
fn for_cgroup_hook(socket: u64, call: Call, is_v4: bool) -> Substitute {
    if !is_v4 {
        return Substitute::for_v6(is_bound_to_mapped(socket));
    }
    let has_device = field::<u32>(socket, features::sock_bound_device()) != 0;
    if call.hook() == Hook::LsmConnect as u8 || call.protocol().0 == Protocol::TCP.0 {
        return Substitute::for_bound_v4(bound_v4(socket), has_device);
    }
    Substitute::for_v4(u32::from_be(field(socket, features::inet_source())), has_device)
}

/// The socket's own IPv4 address, zero for none.
#[inline(always)]
fn bound_v4(socket: u64) -> u32 {
    let family = field::<u16>(socket, features::sock_family()) as u64;
    if family == AF_INET6 && !is_bound_to_mapped(socket) {
        return 0;
    }
    u32::from_be(field(socket, features::sock_own_v4()))
}

#[inline(always)]
fn is_bound_to_mapped(socket: u64) -> bool {
    let [first, second] = field::<[u64; 2]>(socket, features::sock_own_v6());
    first == 0 && u64::from_be(second) >> 32 == 0xffff
}
