//! How many addresses.

use std::fmt;

use serde::{Serialize, Serializer};

/// An exact number of addresses, 0 to 2^128. Displayed, it is rounded down where its digits would
/// tell nobody anything; in JSON it is a string of all its digits, since numbers there hold 53 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count {
    /// 2^128: one more than `rest` holds.
    is_every_ipv6: bool,
    rest: u128,
}

/// Numbers from here on are displayed as a power of two: more than IPv4 has addresses.
const ROUNDED_FROM: u128 = 1 << 33;

impl Count {
    /// The number; `None` for 2^128, which is every IPv6 address.
    pub fn exact(self) -> Option<u128> {
        (!self.is_every_ipv6).then_some(self.rest)
    }

    /// Whether it is none.
    pub fn is_zero(self) -> bool {
        self == Count::default()
    }

    /// Adds the addresses from `first` to `last`, both included; none of them was counted before.
    pub(super) fn add(&mut self, first: u128, last: u128) {
        // Only all keys together are more than fit, and those end at zero.
        let sum = self.rest.wrapping_add(last - first).wrapping_add(1);
        self.is_every_ipv6 |= sum == 0;
        self.rest = sum;
    }
}

impl fmt::Display for Count {
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

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_every_ipv6 {
            return serializer.serialize_str("340282366920938463463374607431768211456");
        }
        serializer.collect_str(&self.rest)
    }
}

/// `1,048,576`.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ranges: &[(u128, u128)]) -> Count {
        let mut count = Count::default();
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
