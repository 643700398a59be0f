//! Canonical destinations: one representation for all addresses that reach the same host.

use crate::{attempt::Address, limits::MAX_NAT64_PREFIXES};

/// 127.0.0.1.
pub(crate) const LOOPBACK_V4: u32 = 0x7f00_0001;

/// Canonical form of an IPv6 destination: an IPv4-mapped address (`::ffff:0:0/96`) is its IPv4 address, which is what the
/// kernel sends to. Every other address is sent as IPv6, whatever is embedded in it ([`embedded_v4`]).
#[inline(always)]
pub const fn canonical_v6(high: u64, low: u64) -> Address {
    if high == 0 && low >> 32 == 0xffff {
        return Address::V4(low as u32);
    }
    Address::V6 { high, low }
}

/// Canonical form of any address.
#[inline(always)]
pub const fn canonical(address: Address) -> Address {
    match address {
        Address::V4(_) => address,
        Address::V6 { high, low } => canonical_v6(high, low),
    }
}

/// A NAT64 prefix: a network of translated addresses, each with an embedded IPv4 address (RFC 6052).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nat64Prefix {
    /// Bits 0 to 63 of the prefix.
    pub high: u64,
    /// Bits 64 to 127 of the prefix; zero unless the length is 96.
    pub low: u64,
    /// 32, 40, 48, 56, 64 or 96.
    pub length: u8,
}

impl Nat64Prefix {
    /// Whether RFC 6052 (2.2) defines prefixes of this length.
    pub const fn length_is_valid(length: u8) -> bool {
        matches!(length, 32 | 40 | 48 | 56 | 64 | 96)
    }

    /// The embedded IPv4 address, if the address matches this prefix. It takes the 32 bits that follow
    /// the prefix, without bits 64 to 71 (RFC 6052, 2.2).
    #[inline(always)]
    pub const fn extract(&self, high: u64, low: u64) -> Option<u32> {
        let length = (self.length & 127) as u32;
        if length == 96 {
            if high == self.high && low & !0xffff_ffff == self.low {
                return Some(low as u32);
            }
            return None;
        }
        if length < 32 || length > 64 {
            return None;
        }
        let host = 64 - length;
        // A shift by 64 (length 0) cannot happen: length is at least 32 here.
        let mask = if host == 0 {
            !0
        } else {
            !((1u64 << (host & 63)) - 1)
        };
        if high & mask != self.high {
            return None;
        }
        // `host` bits (0 to 32) from the upper half, the rest from bit 72 on.
        let upper = if host == 0 { 0 } else { high & !mask };
        let rest = 32 - host;
        let below = (low << 8) >> 32; // bits 72 to 103
        let lower = if rest == 0 { 0 } else { below >> (32 - rest) };
        Some(((upper << rest) | lower) as u32)
    }
}

/// The IPv4 address embedded in a canonical IPv6 destination. On the wire all of these are IPv6 packets, so the IPv6
/// address is evaluated; but a gateway, or a tunnel of this host, sends them to the IPv4 address, so that is evaluated
/// too.
///
/// - `64:ff9b::/96`, the well-known NAT64 prefix (RFC 6052), and `64:ff9b:1::/48`, for local use
///   (RFC 8215; taken as a set of /96 prefixes, the common deployment)
/// - `2002::/16`, 6to4 (RFC 3056): bits 16 to 47
/// - `2001::/32`, Teredo (RFC 4380): the client's address is the last 32 bits, inverted
/// - `::/96`, IPv4-compatible (RFC 4291), without `::` and `::1`: the device `sit0` tunnels them
/// - the policy's own NAT64 prefixes, `prefix(0)` to `prefix(MAX_NAT64_PREFIXES - 1)`; one of
///   length 0 matches nothing
///
/// IPv4-translated (`::ffff:0:a.b.c.d`, SIIT) and ISATAP (interface id `0:5efe:a.b.c.d`) addresses are not among them: the
/// second can be below any prefix, so a rule that allows the IPv4 address would allow hosts anywhere.
///
/// `0.0.0.0` is the host that decapsulates or translates, like 127.0.0.1, which is returned for it.
#[inline(always)]
pub fn embedded_v4(high: u64, low: u64, prefix: impl Fn(usize) -> Nat64Prefix) -> Option<u32> {
    match embedded_bits(high, low, prefix) {
        Some(0) => Some(LOOPBACK_V4),
        v4 => v4,
    }
}

#[inline(always)]
fn embedded_bits(high: u64, low: u64, prefix: impl Fn(usize) -> Nat64Prefix) -> Option<u32> {
    // The policy's prefixes come first: the format of 64:ff9b:1::/48 below is only the common one.
    let mut i = 0;
    while i < MAX_NAT64_PREFIXES {
        if let Some(v4) = prefix(i).extract(high, low) {
            return Some(v4);
        }
        i += 1;
    }
    let upper = low >> 32;
    if high == 0x0064_ff9b_0000_0000 && upper == 0 {
        return Some(low as u32);
    }
    if high >> 16 == 0x0064_ff9b_0001 {
        return Some(low as u32);
    }
    if high >> 48 == 0x2002 {
        return Some((high >> 16) as u32);
    }
    if high >> 32 == 0x2001_0000 {
        return Some(!(low as u32));
    }
    if high == 0 && upper == 0 && low > 1 {
        return Some(low as u32);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> (u64, u64) {
        extern crate std;
        let bits = u128::from(text.parse::<std::net::Ipv6Addr>().unwrap());
        ((bits >> 64) as u64, bits as u64)
    }

    fn v4(text: &str) -> u32 {
        extern crate std;
        text.parse::<std::net::Ipv4Addr>().unwrap().into()
    }

    #[test]
    fn only_mapped_addresses_are_ipv4() {
        let (high, low) = v6("::ffff:198.51.100.7");
        assert_eq!(canonical_v6(high, low), Address::V4(v4("198.51.100.7")));
        let (high, low) = v6("::ffff:0.0.0.0");
        assert_eq!(canonical_v6(high, low), Address::V4(0));
        for text in [
            "::",
            "::1",
            "::198.51.100.7",
            "::fffe:198.51.100.7",
            "::ffff:0:198.51.100.7",
        ] {
            let (high, low) = v6(text);
            assert_eq!(canonical_v6(high, low), Address::V6 { high, low }, "{text}");
        }
    }

    #[test]
    fn embedded_addresses_are_extracted() {
        let none = |_| Nat64Prefix {
            high: 0,
            low: 0,
            length: 0,
        };
        for (text, embedded) in [
            ("64:ff9b::198.51.100.7", "198.51.100.7"),
            ("64:ff9b:1:2:3:4:198.51.100.7", "198.51.100.7"),
            ("2002:c633:6407::1", "198.51.100.7"),
            ("2001:0:4136:e378:8000:63bf:39cc:9bf8", "198.51.100.7"),
            ("::198.51.100.7", "198.51.100.7"),
            ("::0.0.0.2", "0.0.0.2"),
            ("64:ff9b::0.0.0.0", "127.0.0.1"),
        ] {
            let (high, low) = v6(text);
            assert_eq!(embedded_v4(high, low, none), Some(v4(embedded)), "{text}");
        }
        for text in [
            "2001:db8::1",
            "64:ff9b:0:1::1",
            "::",
            "::1",
            "::fffe:198.51.100.7",
            "::ffff:0:198.51.100.7",
            "2001:db8::5efe:198.51.100.7",
            "fe80::200:5efe:198.51.100.7",
        ] {
            let (high, low) = v6(text);
            assert_eq!(embedded_v4(high, low, none), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_of_the_policy_takes_precedence_over_the_built_in_one() {
        let (high, low) = v6("64:ff9b:1::");
        let own = |i| Nat64Prefix {
            high,
            low,
            length: if i == 0 { 48 } else { 0 },
        };
        let (high, low) = v6("64:ff9b:1:cb00:71:200:c633:6401");
        assert_eq!(embedded_v4(high, low, own), Some(v4("203.0.113.2")));
    }

    /// The examples of RFC 6052, 2.4: 192.0.2.33 below prefixes of every length.
    #[test]
    fn nat64_prefixes_of_every_length() {
        for (prefix, length, text) in [
            ("2001:db8::", 32, "2001:db8:c000:221::"),
            ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
            ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"),
        ] {
            let (high, low) = v6(prefix);
            let prefix = Nat64Prefix { high, low, length };
            let (high, low) = v6(text);
            assert_eq!(
                prefix.extract(high, low),
                Some(v4("192.0.2.33")),
                "{text}/{length}"
            );
            assert_eq!(prefix.extract(high ^ (1 << 63), low), None);
        }
    }
}
