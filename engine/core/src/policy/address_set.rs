//! Sets of addresses as sorted disjoint ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A set of canonical addresses of both families: sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AddressSet {
    /// Every address of both families.
    pub fn everything() -> AddressSet {
        AddressSet {
            v4: vec![(0, u32::MAX)],
            v6: vec![(0, u128::MAX)],
        }
    }

    /// The set of all addresses in the networks, which can overlap and be in any order. IPv4-mapped networks
    /// (`::ffff:0:0/96` and longer) become IPv4.
    pub fn of(networks: impl IntoIterator<Item = IpNet>) -> AddressSet {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for network in networks {
            match network {
                IpNet::V4(n) => v4.push((u32::from(n.network()), u32::from(n.broadcast()))),
                IpNet::V6(n) => {
                    let (start, end) = (u128::from(n.network()), u128::from(n.broadcast()));
                    if n.prefix_len() >= 96 && start >> 32 == 0xffff {
                        v4.push((start as u32, end as u32));
                    } else {
                        v6.push((start, end));
                    }
                }
            }
        }
        AddressSet {
            v4: merged(v4),
            v6: merged(v6),
        }
    }

    /// The IPv4 ranges, inclusive, in host byte order.
    pub fn v4(&self) -> &[(u32, u32)] {
        &self.v4
    }

    /// The IPv6 ranges, inclusive, in host byte order.
    pub fn v6(&self) -> &[(u128, u128)] {
        &self.v6
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the set has every IPv4 address.
    pub fn has_every_v4(&self) -> bool {
        self.v4 == [(0, u32::MAX)]
    }

    /// Whether the set has every IPv6 address.
    pub fn has_every_v6(&self) -> bool {
        self.v6 == [(0, u128::MAX)]
    }

    /// Whether the set contains the address. The address is not made canonical.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => contains(&self.v4, u32::from(a)),
            IpAddr::V6(a) => contains(&self.v6, u128::from(a)),
        }
    }

    /// The union of two sets.
    pub fn union(&self, other: &AddressSet) -> AddressSet {
        AddressSet {
            v4: merged(self.v4.iter().chain(&other.v4).copied().collect()),
            v6: merged(self.v6.iter().chain(&other.v6).copied().collect()),
        }
    }

    /// The union of all sets.
    pub fn union_of<'s>(sets: impl IntoIterator<Item = &'s AddressSet>) -> AddressSet {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for set in sets {
            v4.extend_from_slice(&set.v4);
            v6.extend_from_slice(&set.v6);
        }
        AddressSet {
            v4: merged(v4),
            v6: merged(v6),
        }
    }

    /// Number of ranges of both families.
    pub fn range_count(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether the sets have a common address.
    pub fn overlaps(&self, other: &AddressSet) -> bool {
        overlapping(&self.v4, &other.v4) || overlapping(&self.v6, &other.v6)
    }

    /// The addresses of `self` that are not in `other`.
    pub fn without(&self, other: &AddressSet) -> AddressSet {
        AddressSet {
            v4: subtracted(&self.v4, &other.v4),
            v6: subtracted(&self.v6, &other.v6),
        }
    }

    /// Whether every address of `self` is in `other`.
    pub fn is_subset_of(&self, other: &AddressSet) -> bool {
        subset(&self.v4, &other.v4) && subset(&self.v6, &other.v6)
    }

    /// The lowest IPv4 address, or the lowest IPv6 address if there is no IPv4 address.
    pub fn first(&self) -> Option<IpAddr> {
        match (self.v4.first(), self.v6.first()) {
            (Some(r), _) => Some(IpAddr::V4(Ipv4Addr::from(r.0))),
            (None, Some(r)) => Some(IpAddr::V6(Ipv6Addr::from(r.0))),
            (None, None) => None,
        }
    }
}

/// An unsigned integer that ranges are made of.
pub(crate) trait Key: Copy + Ord + Into<u128> {
    /// The next integer; `None` after the largest.
    fn next(self) -> Option<Self>;
    /// The previous integer; `None` for 0.
    fn previous(self) -> Option<Self>;
}

macro_rules! key {
    ($($t:ty),*) => {$(
        impl Key for $t {
            fn next(self) -> Option<Self> { self.checked_add(1) }
            fn previous(self) -> Option<Self> { self.checked_sub(1) }
        }
    )*};
}
key!(u32, u128);

fn merged<K: Key>(mut ranges: Vec<(K, K)>) -> Vec<(K, K)> {
    ranges.sort_unstable();
    let mut out: Vec<(K, K)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            Some(last) if last.1.next().is_none_or(|next| start <= next) => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

fn contains<K: Key>(ranges: &[(K, K)], key: K) -> bool {
    let i = ranges.partition_point(|r| r.1 < key);
    ranges.get(i).is_some_and(|r| r.0 <= key)
}

fn subset<K: Key>(inner: &[(K, K)], outer: &[(K, K)]) -> bool {
    inner.iter().all(|&(start, end)| {
        let i = outer.partition_point(|r| r.1 < start);
        outer.get(i).is_some_and(|r| r.0 <= start && end <= r.1)
    })
}

fn overlapping<K: Key>(a: &[(K, K)], b: &[(K, K)]) -> bool {
    let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    few.iter().any(|&(start, end)| {
        let i = many.partition_point(|r| r.1 < start);
        many.get(i).is_some_and(|r| r.0 <= end)
    })
}

fn subtracted<K: Key>(from: &[(K, K)], what: &[(K, K)]) -> Vec<(K, K)> {
    let mut out = Vec::with_capacity(from.len());
    for &(start, end) in from {
        let mut start = Some(start);
        let first = what.partition_point(|r| start.is_some_and(|s| r.1 < s));
        for &(cut_start, cut_end) in &what[first..] {
            let Some(s) = start else { break };
            if cut_start > end {
                break;
            }
            if let Some(before) = cut_start.previous().filter(|&b| b >= s) {
                out.push((s, before));
            }
            start = cut_end.next().filter(|&next| next <= end);
        }
        if let Some(s) = start {
            out.push((s, end));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> AddressSet {
        AddressSet::of(text.split_whitespace().map(|n| n.parse::<IpNet>().unwrap()))
    }

    #[test]
    fn adjacent_networks_are_merged() {
        let s = set("0.0.0.0/1 128.0.0.0/1 ::/1 8000::/1");
        assert_eq!(s, AddressSet::everything());
        assert!(set("10.0.0.0/8").without(&set("0.0.0.0/0")).is_empty());
        assert_eq!(set("::ffff:10.0.0.0/104"), set("10.0.0.0/8"));
    }

    proptest! {
        #[test]
        fn agrees_with_single_addresses(
            a in prop::collection::vec((any::<u8>(), 24u8..=32), 0..8),
            b in prop::collection::vec((any::<u8>(), 24u8..=32), 0..8),
        ) {
            let make = |nets: &[(u8, u8)]| AddressSet::of(nets.iter().map(|&(x, len)| {
                IpNet::new(IpAddr::from([10, 0, 0, x]), len).unwrap().trunc()
            }));
            let (a, b) = (make(&a), make(&b));
            let (both, left) = (a.union(&b), a.without(&b));
            let (mut subset, mut overlap) = (true, false);
            for x in 0..=255u8 {
                let address = IpAddr::from([10, 0, 0, x]);
                let (in_a, in_b) = (a.contains(address), b.contains(address));
                prop_assert_eq!(both.contains(address), in_a || in_b);
                prop_assert_eq!(left.contains(address), in_a && !in_b);
                subset &= !in_a || in_b;
                overlap |= in_a && in_b;
            }
            prop_assert_eq!(a.is_subset_of(&b), subset);
            prop_assert_eq!(a.overlaps(&b), overlap);
            prop_assert_eq!(AddressSet::union_of([&a, &b]), both);
        }
    }
}
