//! Counts of addresses, which can exceed u128.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::digits::grouped;

/// An exact number of addresses, 0 to 2^128. `Display` rounds large counts down to a power of two; JSON
/// has a string with all digits, because many parsers read numbers as 64-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressCount {
    /// 2^128: one more than `rest` holds.
    is_every_ipv6: bool,
    rest: u128,
}

/// Counts from here on are displayed as a power of two. Larger than the IPv4 address space.
const ROUNDED_FROM: u128 = 1 << 33;

impl AddressCount {
    /// The count; `None` for 2^128, which is every IPv6 address.
    pub fn exact(self) -> Option<u128> {
        (!self.is_every_ipv6).then_some(self.rest)
    }

    /// Whether the count is 0.
    pub fn is_zero(self) -> bool {
        self == AddressCount::default()
    }

    /// Adds the addresses from `first` to `last`, both inclusive. No address may be added twice.
    pub(super) fn add(&mut self, first: u128, last: u128) {
        // Only the whole IPv6 address space overflows, and then the sum is exactly zero.
        let sum = self.rest.wrapping_add(last - first).wrapping_add(1);
        self.is_every_ipv6 |= sum == 0;
        self.rest = sum;
    }
}

impl fmt::Display for AddressCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_every_ipv6 {
            return f.write_str("2^128");
        }
        if self.rest < ROUNDED_FROM {
            return f.write_str(&grouped(self.rest));
        }
        let over = if self.rest.is_power_of_two() { "" } else { "over " };
        write!(f, "{over}2^{}", self.rest.ilog2())
    }
}

impl Serialize for AddressCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_every_ipv6 {
            return serializer.serialize_str("340282366920938463463374607431768211456");
        }
        serializer.collect_str(&self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ranges: &[(u128, u128)]) -> AddressCount {
        let mut count = AddressCount::default();
        for &(first, last) in ranges {
            count.add(first, last);
        }
        count
    }

    #[test]
    fn text_and_json() {
        for (ranges, text, json) in [
            (&[][..], "0", "0"),
            (&[(7, 7)], "1", "1"),
            (&[(0, 999), (2000, 2000)], "1,001", "1001"),
            (&[(0, 0xffff_ffff)], "4,294,967,296", "4294967296"),
            (
                &[(1 << 96, (1 << 97) - 1)],
                "2^96",
                "79228162514264337593543950336",
            ),
            (
                &[(0, u128::MAX - 1)],
                "over 2^127",
                "340282366920938463463374607431768211455",
            ),
            (
                &[(1, u128::MAX), (0, 0)],
                "2^128",
                "340282366920938463463374607431768211456",
            ),
        ] {
            let count = counted(ranges);
            assert_eq!(count.to_string(), text);
            assert_eq!(serde_json::to_value(count).unwrap(), json);
            assert_eq!(count.is_zero(), ranges.is_empty());
        }
        assert_eq!(counted(&[(0, u128::MAX)]).exact(), None);
        assert_eq!(counted(&[(5, 7)]).exact(), Some(3));
    }
}
