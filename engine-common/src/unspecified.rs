//! Unspecified destinations (`0.0.0.0`, `::`, `::ffff:0.0.0.0`): what the kernel sends to instead.
//!
//! | destination | the kernel sends to |
//! |---|---|
//! | `0.0.0.0`, `::ffff:0.0.0.0` | the source address, if the socket or the message has one; otherwise an address of the device, if one is chosen; otherwise 127.0.0.1 (`ip_route_output_key_hash_rcu`) |
//! | `::` | 127.0.0.1, if the socket is bound to an IPv4-mapped address; otherwise `::1` (`tcp_v6_connect`, `__ip6_datagram_connect`, `udpv6_sendmsg`) |
//!
//! What is evaluated must be what is sent. So a hook evaluates a [`Substitute`], and where it can, it makes the
//! kernel send to that address.

use crate::{attempt::Address, destination::LOOPBACK_V4};

/// First multicast address; the broadcast address is above it too.
const MULTICAST_V4: u32 = 0xe000_0000;

/// What is evaluated instead of an unspecified destination. One word, because the kernel programs pass it to global
/// functions: bits 0 to 31 an IPv4 address, 32 and 33 the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Substitute(u64);

const KIND: u64 = 3 << 32;
/// Kind: the IPv4 address in the lower half.
const V4: u64 = 1 << 32;
/// Kind: `::1`.
const LOOPBACK_V6: u64 = 2 << 32;
/// Kind: an address that is not known.
const ANY: u64 = 3 << 32;

impl Substitute {
    /// The destination is not unspecified.
    pub const NONE: Substitute = Substitute(0);

    /// An address that is not known: the strictest verdict of any destination applies.
    pub const ANY: Substitute = Substitute(ANY);

    /// This IPv4 address.
    #[inline(always)]
    pub const fn v4(address: u32) -> Substitute {
        Substitute(V4 | address as u64)
    }

    /// For `0.0.0.0`, given the source address (zero for none) and whether a device is chosen.
    #[inline(always)]
    pub const fn for_v4(source: u32, has_device: bool) -> Substitute {
        if source != 0 {
            Substitute::v4(source)
        } else if has_device {
            Substitute::ANY
        } else {
            Substitute::v4(LOOPBACK_V4)
        }
    }

    /// The same, given the address that the socket is bound to: it is the source, unless it is multicast
    /// (`__inet_bind`).
    #[inline(always)]
    pub const fn for_bound_v4(bound: u32, has_device: bool) -> Substitute {
        let source = if bound < MULTICAST_V4 { bound } else { 0 };
        Substitute::for_v4(source, has_device)
    }

    /// For `::`, given whether the socket is bound to an IPv4-mapped address.
    #[inline(always)]
    pub const fn for_v6(is_bound_to_mapped: bool) -> Substitute {
        if is_bound_to_mapped {
            Substitute::v4(LOOPBACK_V4)
        } else {
            Substitute(LOOPBACK_V6)
        }
    }

    /// For a canonical destination of a socket without source address and device.
    pub const fn of_unbound(destination: Address) -> Substitute {
        match destination {
            Address::V4(0) => Substitute::for_v4(0, false),
            Address::V6 { high: 0, low: 0 } => Substitute::for_v6(false),
            _ => Substitute::NONE,
        }
    }

    /// The address that is evaluated: `given`, which is canonical, if nothing else is known.
    #[inline(always)]
    pub const fn address(self, given: Address) -> Address {
        match self.0 & KIND {
            V4 => Address::V4(self.0 as u32),
            LOOPBACK_V6 => Address::V6 { high: 0, low: 1 },
            _ => given,
        }
    }

    /// Whether the destination is unspecified.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 & KIND != 0
    }

    /// Whether the address is not known.
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.0 & KIND == ANY
    }

    /// Whether it is an address.
    #[inline(always)]
    pub const fn is_address(self) -> bool {
        self.is_some() && !self.is_any()
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0 & KIND == V4
    }

    /// The IPv4 address, if it is one.
    #[inline(always)]
    pub const fn v4_bits(self) -> u32 {
        self.0 as u32
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// From a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Substitute {
        Substitute(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Address = Address::V4(0x7f00_0001);
    const LOOPBACK6: Address = Address::V6 { high: 0, low: 1 };
    const NOTHING: Address = Address::V4(0);
    const NOTHING6: Address = Address::V6 { high: 0, low: 0 };
    const SOURCE: u32 = 0xc633_6407;

    #[test]
    fn source_comes_before_device_and_device_before_loopback() {
        for device in [false, true] {
            let substitute = Substitute::for_v4(SOURCE, device);
            assert_eq!(substitute.address(NOTHING), Address::V4(SOURCE));
            assert!(substitute.is_address());
        }
        let unknown = Substitute::for_v4(0, true);
        assert_eq!(unknown, Substitute::ANY);
        assert_eq!(unknown.address(NOTHING), NOTHING);
        assert!(unknown.is_some() && !unknown.is_address());
        assert_eq!(Substitute::for_v4(0, false).address(NOTHING), LOOPBACK);
    }

    #[test]
    fn a_socket_bound_to_multicast_has_no_source() {
        for bound in [0xe000_0001, 0xffff_ffff] {
            assert_eq!(Substitute::for_bound_v4(bound, false).address(NOTHING), LOOPBACK);
            assert!(Substitute::for_bound_v4(bound, true).is_any());
        }
        let bound = Substitute::for_bound_v4(SOURCE, true);
        assert_eq!(bound.address(NOTHING), Address::V4(SOURCE));
    }

    #[test]
    fn a_socket_bound_to_a_mapped_address_sends_to_ipv4_loopback() {
        assert_eq!(Substitute::for_v6(true).address(NOTHING6), LOOPBACK);
        assert_eq!(Substitute::for_v6(false).address(NOTHING6), LOOPBACK6);
    }

    #[test]
    fn other_destinations_are_evaluated_as_they_are() {
        for address in [LOOPBACK, LOOPBACK6, Address::V4(SOURCE)] {
            assert_eq!(Substitute::of_unbound(address), Substitute::NONE);
            assert_eq!(Substitute::NONE.address(address), address);
        }
        assert_eq!(Substitute::of_unbound(NOTHING).address(NOTHING), LOOPBACK);
        assert_eq!(Substitute::of_unbound(NOTHING6).address(NOTHING6), LOOPBACK6);
    }
}
