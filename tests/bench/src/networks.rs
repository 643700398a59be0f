//! Generates disjoint networks, and addresses inside and outside of them.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    address::{Address, Family},
    network::PORT,
    random::Random,
};

/// Generated networks. Each lies in its own slot (a /24 or a /48) and has a prefix at least as long.
pub(crate) struct Networks {
    family: Family,
    /// Slot and prefix length, in random order, so that networks of one rule are not adjacent.
    chosen: Vec<(u64, u8)>,
    slots: HashSet<u64>,
}

impl Networks {
    /// Deterministic: the same arguments give the same networks.
    pub(crate) fn generate(family: Family, count: usize) -> Networks {
        let mut random = Random::new(count as u64);
        let mut slots = HashSet::with_capacity(count);
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let slot = random_slot(family, &mut random);
            if slots.insert(slot) {
                let prefix = match family {
                    Family::V4 => 24 + random.below(9),
                    Family::V6 => 48 + random.below(17),
                };
                chosen.push((slot, prefix as u8));
            }
        }
        Networks {
            family,
            chosen,
            slots,
        }
    }

    /// The networks in CIDR notation.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.chosen.iter().map(|&(slot, prefix)| match self.family {
            Family::V4 => format!("{}/{prefix}", v4(slot, 0)),
            Family::V6 => format!("{}/{prefix}", v6(slot, 0)),
        })
    }

    /// `count` addresses, each inside a random network.
    pub(crate) fn inside(&self, count: usize) -> Vec<Address> {
        let mut random = Random::new(1);
        let addresses = (0..count).map(|_| {
            let (slot, prefix) = self.chosen[random.below(self.chosen.len() as u64) as usize];
            match self.family {
                Family::V4 => destination(v4(slot, random.below(1 << (32 - prefix))).into()),
                Family::V6 => destination(v6(slot, random.below(1 << (64 - prefix))).into()),
            }
        });
        addresses.collect()
    }

    /// `count` addresses outside of all networks.
    pub(crate) fn outside(&self, count: usize) -> Vec<Address> {
        let mut random = Random::new(2);
        let mut addresses = Vec::with_capacity(count);
        while addresses.len() < count {
            let slot = random_slot(self.family, &mut random);
            if !self.slots.contains(&slot) {
                addresses.push(match self.family {
                    Family::V4 => destination(v4(slot, random.below(1 << 8)).into()),
                    Family::V6 => destination(v6(slot, random.below(1 << 16)).into()),
                });
            }
        }
        addresses
    }
}

fn destination(address: std::net::IpAddr) -> Address {
    Address::of(SocketAddr::new(address, PORT))
}

/// IPv4: 1.0.0.0 to 223.255.255.255 without loopback. IPv6: 2400::/6, which has no embedded IPv4 addresses.
fn random_slot(family: Family, random: &mut Random) -> u64 {
    match family {
        Family::V4 => loop {
            let slot = (1 << 16) + random.below(223 << 16);
            if slot >> 16 != 127 {
                return slot;
            }
        },
        Family::V6 => (0x2400 << 32) + random.below(1 << 42),
    }
}

fn v4(slot: u64, host: u64) -> Ipv4Addr {
    Ipv4Addr::from((slot << 8 | host) as u32)
}

/// `slot` is the first 48 bits, `below` the next 16 bits.
fn v6(slot: u64, below: u64) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(slot << 16 | below) << 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &Address) -> u128 {
        match address {
            Address::V4(v4) => u128::from(u32::from_be(v4.sin_addr.s_addr)),
            Address::V6(v6) => u128::from_be_bytes(v6.sin6_addr.s6_addr),
        }
    }

    #[test]
    fn addresses_are_inside_or_outside() {
        for (family, bits) in [(Family::V4, 32), (Family::V6, 128)] {
            let networks = Networks::generate(family, 500);
            let contains = |address: u128| {
                networks.chosen.iter().any(|&(slot, prefix)| {
                    let base = match family {
                        Family::V4 => u128::from(u32::from(v4(slot, 0))),
                        Family::V6 => u128::from(v6(slot, 0)),
                    };
                    (address ^ base) >> (bits - u32::from(prefix)) == 0
                })
            };
            assert!(networks.inside(1000).iter().all(|address| contains(ip(address))));
            assert!(!networks.outside(1000).iter().any(|address| contains(ip(address))));
        }
    }
}
