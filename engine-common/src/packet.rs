//! Reads where a packet goes: destination, protocol and port behind IPv4 options and IPv6 extension
//! headers, and where a source route (IPv4 LSRR and SSRR, RFC 791; IPv6 routing header, RFC 8200 4.4)
//! sends it on to.
//!
//! What cannot be read, or is more than is looked at, is a fault, never a guess. A route with more than
//! one hop left is one: who is passed on the way would not be judged.

use crate::verifier::forget;

/// The bytes of a packet, from its network header on. What is not there reads as [`UNREADABLE`] (no
/// `Option`: see [`crate::VerdictWord`]).
pub trait Bytes {
    /// A byte.
    fn byte(&self, offset: u64) -> u64;

    /// Four bytes, in network order.
    fn word(&self, offset: u64) -> u64;
}

/// Bytes beyond the end.
pub const UNREADABLE: u64 = u64::MAX;

/// IPv6 extension headers that are looked behind.
const MAX_HEADERS: u32 = 8;

const HOP_BY_HOP: u64 = 0;
const ROUTING: u64 = 43;
const FRAGMENT: u64 = 44;
const AUTHENTICATION: u64 = 51;
const DESTINATION_OPTIONS: u64 = 60;

/// What was read, in one word, since that is what a global function of the kernel returns: bits 0 to 15
/// the port, 16 to 23 the protocol, 32 a fault, 33 IPv6, 40 to 55 where the last destination of a
/// source route stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Reading(pub u64);

impl Reading {
    const FAULT: u64 = 1 << 32;
    const V6: u64 = 1 << 33;
    const ROUTE: u32 = 40;

    /// Whether the headers could not be read.
    #[inline(always)]
    pub const fn is_fault(self) -> bool {
        self.0 & Self::FAULT != 0
    }

    /// Whether it is an IPv6 packet.
    #[inline(always)]
    pub const fn is_v6(self) -> bool {
        self.0 & Self::V6 != 0
    }

    /// IP protocol number of what the packet carries.
    #[inline(always)]
    pub const fn protocol(self) -> u16 {
        (self.0 >> 16) as u8 as u16
    }

    /// Destination port, host order. 0 for protocols without, and for what is not the first fragment:
    /// without that one it is worth nothing.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        self.0 as u16
    }

    /// Whether a source route sends the packet on from its destination.
    #[inline(always)]
    pub const fn is_routed(self) -> bool {
        self.0 >> Self::ROUTE != 0
    }

    /// Where the destination stands that the packet's own header names.
    #[inline(always)]
    pub const fn destination(self) -> u64 {
        if self.is_v6() { 24 } else { 16 }
    }

    /// Where the one stands that the packet goes on to; only of a packet that is routed.
    #[inline(always)]
    pub const fn last_destination(self) -> u64 {
        self.0 >> Self::ROUTE & 0xffff
    }
}

/// Reads a packet; `unknown` is a word that the verifier knows nothing of ([`forget`]).
#[inline(always)]
pub fn read<B: Bytes>(bytes: &B, unknown: u64) -> Reading {
    let first = bytes.word(0);
    match first >> 28 {
        4 => read_v4(bytes, first, unknown),
        6 => read_v6(bytes, unknown),
        _ => Reading(Reading::FAULT),
    }
}

#[inline(always)]
fn read_v4<B: Bytes>(bytes: &B, first: u64, unknown: u64) -> Reading {
    let header = (first >> 24 & 15) * 4;
    let (fragment, protocol) = (bytes.word(4), bytes.word(8));
    if header < 20 || fragment == UNREADABLE || protocol == UNREADABLE {
        return Reading(Reading::FAULT);
    }
    let route = if header > 20 {
        route_v4(bytes, header, unknown)
    } else {
        0
    };
    let is_first = fragment & 0x1fff == 0;
    carried(bytes, protocol >> 16 & 0xff, header, is_first, route)
}

/// Place of the last address of a source route, 0 where there is none, or [`UNREADABLE`].
#[inline(always)]
fn route_v4<B: Bytes>(bytes: &B, end: u64, unknown: u64) -> u64 {
    const END: u64 = 0;
    const NO_OPERATION: u64 = 1;
    const LOOSE: u64 = 131;
    const STRICT: u64 = 137;
    let mut route = forget(0, unknown);
    let mut at = forget(20, unknown);
    // A header has at most 40 bytes of options.
    let mut i = 0;
    while i < 40 {
        if at >= end {
            return route;
        }
        let kind = bytes.byte(at);
        if kind == END {
            return route;
        }
        let mut length = 1;
        if kind != NO_OPERATION {
            length = bytes.byte(at + 1);
            // Also what is unreadable.
            if length < 2 || length > end - at {
                return UNREADABLE;
            }
        }
        if kind == LOOSE || kind == STRICT {
            let left = hops_left(length, bytes.byte(at + 2));
            if left > 1 || route != 0 {
                return UNREADABLE;
            }
            if left == 1 {
                route = at + length - 4;
            }
        }
        at = forget(at + length, unknown);
        route = forget(route, unknown);
        i += 1;
    }
    if at >= end { route } else { UNREADABLE }
}

/// Hops that a source route of this length has left; many for one that is none.
#[inline(always)]
fn hops_left(length: u64, pointer: u64) -> u64 {
    const NO_ROUTE: u64 = 255;
    if length < 3 || (length - 3) & 3 != 0 || pointer < 4 || pointer & 3 != 0 || pointer > 255 {
        return NO_ROUTE;
    }
    if pointer > length {
        return 0;
    }
    (length + 1 - pointer) / 4
}

#[inline(always)]
fn read_v6<B: Bytes>(bytes: &B, unknown: u64) -> Reading {
    let next = bytes.word(4);
    if next == UNREADABLE {
        return Reading(Reading::FAULT);
    }
    let mut next = forget(next >> 8 & 0xff, unknown);
    let mut at = forget(40, unknown);
    let mut route = forget(0, unknown);
    let mut i = 0;
    while i < MAX_HEADERS {
        let is_extension = next == HOP_BY_HOP
            || next == ROUTING
            || next == FRAGMENT
            || next == AUTHENTICATION
            || next == DESTINATION_OPTIONS;
        if !is_extension {
            let read = carried(bytes, next, at, true, route);
            return Reading(read.0 | Reading::V6);
        }
        let header = bytes.word(at);
        if header == UNREADABLE {
            return Reading(Reading::FAULT);
        }
        let units = header >> 16 & 0xff;
        let length = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        if next == FRAGMENT && header & 0xfff8 != 0 {
            let read = carried(bytes, header >> 24, at, false, route);
            return Reading(read.0 | Reading::V6);
        }
        if next == ROUTING && header & 0xff != 0 {
            if route != 0 {
                return Reading(Reading::FAULT);
            }
            route = route_v6(at, header);
            if route == UNREADABLE {
                return Reading(Reading::FAULT);
            }
        }
        next = forget(header >> 24, unknown);
        at = forget(at + length, unknown);
        route = forget(route, unknown);
        i += 1;
    }
    Reading(Reading::FAULT)
}

/// Place of the address that a routing header goes on to, or [`UNREADABLE`]: types that are not known
/// (RPL compresses its addresses), and more than one hop left.
#[inline(always)]
fn route_v6(at: u64, header: u64) -> u64 {
    // Type 0 (deprecated, RFC 5095), 2 (mobility, RFC 6275) and 4 (segments, RFC 8754).
    let (units, kind, left) = (header >> 16 & 0xff, header >> 8 & 0xff, header & 0xff);
    if left != 1 || units < 2 {
        return UNREADABLE;
    }
    match kind {
        // Addresses in their order: the last one is next.
        0 | 2 if units & 1 == 0 => at + 8 + (units - 2) * 8,
        // Segments in reverse.
        4 => at + 8,
        _ => UNREADABLE,
    }
}

/// The reading of a packet that carries `protocol` from `at` on.
#[inline(always)]
fn carried<B: Bytes>(bytes: &B, protocol: u64, at: u64, is_first: bool, route: u64) -> Reading {
    if route > 0xffff {
        return Reading(Reading::FAULT);
    }
    let mut port = 0;
    if is_first && crate::Protocol(protocol as u16).has_ports() {
        let ports = bytes.word(at);
        if ports == UNREADABLE {
            return Reading(Reading::FAULT);
        }
        port = ports & 0xffff;
    }
    Reading(port | protocol << 16 | route << Reading::ROUTE)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
