//! Parses the headers of a packet: destination, protocol and port behind IPv4 options and IPv6 extension
//! headers, and the last destination of a source route (IPv4 LSRR and SSRR, RFC 791; IPv6 routing header,
//! RFC 8200 4.4).
//!
//! A header that cannot be read, or exceeds the limits of this parser, is a fault. So is a route with more than
//! one hop left, since the hops between would not be checked.

use crate::verifier::forget;

/// The bytes of a packet, from its network header on. Bytes beyond the end read as [`UNREADABLE`] (not an
/// `Option`: see [`crate::VerdictWord`]).
pub trait Bytes {
    /// A byte.
    fn byte(&self, offset: u64) -> u64;

    /// Four bytes, in network order.
    fn word(&self, offset: u64) -> u64;
}

/// Result of a read beyond the end of the packet.
pub const UNREADABLE: u64 = u64::MAX;

/// Most IPv6 extension headers that are parsed.
const MAX_HEADERS: u32 = 8;

const HOP_BY_HOP: u64 = 0;
const ROUTING: u64 = 43;
const FRAGMENT: u64 = 44;
const AUTHENTICATION: u64 = 51;
const DESTINATION_OPTIONS: u64 = 60;

/// The parsed headers in one word, since a BPF function returns one: bits 0 to 15 the port, 16 to 23 the
/// protocol, 32 a fault, 33 IPv6, 40 to 55 the offset of the last destination of a source route.
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

    /// IP protocol number of the payload.
    #[inline(always)]
    pub const fn protocol(self) -> u16 {
        (self.0 >> 16) as u8 as u16
    }

    /// Destination port, host order. 0 for protocols without ports and for fragments other than the first, which
    /// the receiver cannot use without the first.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        self.0 as u16
    }

    /// Whether a source route forwards the packet from its destination.
    #[inline(always)]
    pub const fn is_routed(self) -> bool {
        self.0 >> Self::ROUTE != 0
    }

    /// Offset of the destination address in the IP header.
    #[inline(always)]
    pub const fn destination(self) -> u64 {
        if self.is_v6() { 24 } else { 16 }
    }

    /// Offset of the last destination of the source route; only valid if [`Reading::is_routed`].
    #[inline(always)]
    pub const fn last_destination(self) -> u64 {
        self.0 >> Self::ROUTE & 0xffff
    }
}

/// Parses a packet; `unknown` is a scalar unknown to the verifier ([`forget`]).
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
    payload(bytes, protocol >> 16 & 0xff, header, is_first, route)
}

/// Offset of the last address of a source route, 0 without a route, or [`UNREADABLE`].
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
            // Also if it is unreadable.
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

/// Hops left of a source route of this length; 255 if it is malformed.
#[inline(always)]
fn hops_left(length: u64, pointer: u64) -> u64 {
    const MALFORMED: u64 = 255;
    if length < 3 || (length - 3) & 3 != 0 || pointer < 4 || pointer & 3 != 0 || pointer > 255 {
        return MALFORMED;
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
            let read = payload(bytes, next, at, true, route);
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
            let read = payload(bytes, header >> 24, at, false, route);
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

/// Offset of the next address of a routing header. [`UNREADABLE`] for unknown types (RPL compresses
/// its addresses) and for more than one hop left.
#[inline(always)]
fn route_v6(at: u64, header: u64) -> u64 {
    // Type 0 (deprecated, RFC 5095), 2 (mobility, RFC 6275) and 4 (segments, RFC 8754).
    let (units, kind, left) = (header >> 16 & 0xff, header >> 8 & 0xff, header & 0xff);
    if left != 1 || units < 2 {
        return UNREADABLE;
    }
    match kind {
        // Addresses in order: the last one is next.
        0 | 2 if units & 1 == 0 => at + 8 + (units - 2) * 8,
        // Segments in reverse order.
        4 => at + 8,
        _ => UNREADABLE,
    }
}

/// The result for a packet whose payload of `protocol` starts at `at`.
#[inline(always)]
fn payload<B: Bytes>(bytes: &B, protocol: u64, at: u64, is_first: bool, route: u64) -> Reading {
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
