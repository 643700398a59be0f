//! The addresses that a rule gains or loses.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::Serialize;

use super::{Image, Walk, count::AddressCount, merge::compare, model::GainedLost, pairing::Pairing};
use crate::compile::entry::TableKey;

/// A list of addresses of one family, shortened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Exact number of addresses.
    pub count: AddressCount,
    /// Whether `networks` lists the addresses that are *not* included, because that list is shorter.
    pub all_but: bool,
    /// The first networks of the list.
    pub networks: Vec<IpNet>,
    /// Number of further networks.
    pub omitted: usize,
}

impl Addresses {
    fn add<K: AddressKey>(&mut self, first: K, last: K, limit: usize) {
        let (start, end) = (first.into(), last.into());
        self.count.add(start, end);
        let networks = network_count(start, end);
        let free = limit.saturating_sub(self.networks.len());
        self.networks.extend(K::networks(first, last).take(free));
        self.omitted += networks.saturating_sub(free);
    }

    fn network_count(&self) -> usize {
        self.networks.len() + self.omitted
    }
}

/// Collects ascending address ranges and the gaps between them.
#[derive(Clone, Debug)]
struct AddressCollector<K> {
    found: Addresses,
    gaps: Addresses,
    /// First key after the last range.
    next: Option<K>,
}

impl<K: AddressKey> AddressCollector<K> {
    fn new() -> AddressCollector<K> {
        AddressCollector {
            found: Addresses::default(),
            gaps: Addresses::default(),
            next: Some(K::from_bits(0)),
        }
    }

    fn add(&mut self, first: K, last: K, limit: usize) {
        if let (Some(next), Some(before)) = (self.next, first.previous())
            && next <= before
        {
            self.gaps.add(next, before, limit);
        }
        self.found.add(first, last, limit);
        self.next = last.next();
    }

    /// The addresses, listed by what they include or by what they exclude, whichever takes fewer networks.
    fn finish(mut self, limit: usize) -> Addresses {
        if self.found.count.is_zero() {
            return self.found;
        }
        if let Some(next) = self.next {
            self.gaps.add(next, K::LAST, limit);
        }
        if self.gaps.count < self.found.count && self.gaps.network_count() < self.found.network_count() {
            return Addresses {
                count: self.found.count,
                all_but: true,
                ..self.gaps
            };
        }
        self.found
    }
}

/// A key that is an address.
pub(super) trait AddressKey: TableKey {
    /// The highest address.
    const LAST: Self;

    /// The networks that cover exactly the addresses from `first` to `last`.
    fn networks(first: Self, last: Self) -> impl Iterator<Item = IpNet>;
}

impl AddressKey for u32 {
    const LAST: u32 = u32::MAX;

    fn networks(first: u32, last: u32) -> impl Iterator<Item = IpNet> {
        Ipv4Subnets::new(Ipv4Addr::from(first), Ipv4Addr::from(last), 0).map(IpNet::V4)
    }
}

impl AddressKey for u128 {
    const LAST: u128 = u128::MAX;

    fn networks(first: u128, last: u128) -> impl Iterator<Item = IpNet> {
        Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0).map(IpNet::V6)
    }
}

/// The addresses that each rule gains and loses, by slot.
pub(super) fn collect_addresses<K: AddressKey>(
    pairing: &Pairing,
    images: (&Image, &Image),
    walks: &(Walk<K>, Walk<K>),
    limit: usize,
) -> Vec<GainedLost<Addresses>> {
    let none = GainedLost {
        gained: AddressCollector::<K>::new(),
        lost: AddressCollector::new(),
    };
    let mut collectors = vec![none; pairing.slots()];
    compare(pairing, images, walks, |slot, change, first, last| {
        collectors[slot].of_mut(change).add(first, last, limit);
    });
    let finish = |both: GainedLost<AddressCollector<K>>| GainedLost {
        gained: both.gained.finish(limit),
        lost: both.lost.finish(limit),
    };
    collectors.into_iter().map(finish).collect()
}

/// Number of networks that cover the addresses from `first` to `last`. Generating them to count them
/// would take up to 254 steps for each range.
///
/// `middle` is the value between the ends that is divisible by the largest power of two. Below it the
/// networks grow, one for each set bit of the distance; above it they shrink.
fn network_count(first: u128, last: u128) -> usize {
    let Some(behind) = last.checked_add(1) else {
        // The end is 2^128, which wraps to zero.
        return first.wrapping_neg().count_ones().max(1) as usize;
    };
    let middle = match first.checked_sub(1) {
        None => 0,
        Some(before) => {
            let bit = (before ^ behind).ilog2();
            behind >> bit << bit
        }
    };
    ((middle - first).count_ones() + (behind - middle).count_ones()) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made<K: AddressKey>(first: K, last: K) -> Addresses {
        let mut made = Addresses::default();
        made.add(first, last, usize::MAX);
        made
    }

    #[test]
    fn the_ends_of_the_space() {
        for (first, last) in [
            (0, 0),
            (0, u128::MAX),
            (1, u128::MAX),
            (0, u128::MAX - 1),
            (u128::MAX, u128::MAX),
            (u128::MAX - 1, u128::MAX - 1),
            (1 << 127, u128::MAX),
        ] {
            assert_eq!(
                network_count(first, last),
                made(first, last).networks.len(),
                "{first:x}-{last:x}"
            );
        }
        for (first, last) in [
            (0, u32::MAX),
            (1, u32::MAX),
            (0, u32::MAX - 1),
            (u32::MAX, u32::MAX),
        ] {
            let count = network_count(first.into(), last.into());
            assert_eq!(count, made(first, last).networks.len(), "{first:x}-{last:x}");
        }
    }

    #[test]
    fn the_list_is_limited() {
        let mut addresses = Addresses::default();
        addresses.add(1u32, 6, 3); // 1, 2-3, 4-5, 6
        addresses.add(10u32, 10, 3);
        assert_eq!(addresses.networks.len(), 3);
        assert_eq!((addresses.omitted, addresses.count.exact()), (2, Some(7)));
    }

    #[test]
    fn excluded_networks_are_listed_if_they_are_fewer() {
        let collected = |ranges: &[(u32, u32)]| {
            let mut collector = AddressCollector::new();
            for &(first, last) in ranges {
                collector.add(first, last, 8);
            }
            let found = collector.finish(8);
            let networks: Vec<String> = found.networks.iter().map(IpNet::to_string).collect();
            (found.count.exact(), found.all_but, networks.join(" "))
        };
        assert_eq!(collected(&[]), (Some(0), false, String::new()));
        assert_eq!(collected(&[(0, u32::MAX)]), (Some(1 << 32), true, String::new()));
        let ten = (10 << 24, (11 << 24) - 1);
        assert_eq!(collected(&[ten]), (Some(1 << 24), false, "10.0.0.0/8".to_owned()));
        let others = [(0, ten.0 - 1), (ten.1 + 1, u32::MAX)];
        let count = (1 << 32) - (1 << 24);
        assert_eq!(collected(&others), (Some(count), true, "10.0.0.0/8".to_owned()));
        let half = (0, u32::MAX / 2);
        assert_eq!(collected(&[half]), (Some(1 << 31), false, "0.0.0.0/1".to_owned()));
        let ends = [(1, u32::MAX - 1)];
        let count = (1 << 32) - 2;
        let left_out = "0.0.0.0/32 255.255.255.255/32".to_owned();
        assert_eq!(collected(&ends), (Some(count), true, left_out));
    }

    proptest! {
        #[test]
        fn networks_are_counted_without_making_them(
            a in any::<u128>(), b in any::<u128>(), shift in 0..128u32, low in any::<u8>(),
        ) {
            let (a, b) = (a >> shift, (b >> shift).wrapping_add(u128::from(low)));
            let (first, last) = (a.min(b), a.max(b));
            prop_assert_eq!(network_count(first, last), made(first, last).networks.len());
            let (a, b) = (a as u32, b as u32);
            let (first, last) = (a.min(b), a.max(b));
            let made = made(first, last);
            prop_assert_eq!(network_count(first.into(), last.into()), made.networks.len());
            prop_assert_eq!(made.omitted, 0);
        }
    }
}
