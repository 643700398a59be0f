//! Random policies with overlapping rules.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use engine_common::{ExecutableId, UnixSocketId, destination::Nat64Prefix};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tidegate_core::{
    compile::Identities,
    policy::{
        AddressSet, Binary, Dedup, Errno, Hooks, Policy, PortRange, Rule, Service, Services, Subject,
        UnixName, UnixSockets,
        model::{Action, Mode, Protocol},
    },
};

use crate::random::Random;

/// The kind of a random policy.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    Small = 0,
    ManyRules = 1,
    MostRules = 2,
    ManyAddresses = 3,
    ManySubjects = 4,
}

pub(crate) const PROTOCOLS: [Protocol; 13] = [
    Protocol::TCP,
    Protocol::UDP,
    Protocol::TCP,
    Protocol::UDP,
    Protocol::ICMP,
    Protocol::ICMPV6,
    Protocol::SCTP,
    Protocol::UDPLITE,
    Protocol::DCCP,
    Protocol::RAW,
    Protocol::MPTCP,
    Protocol(0),
    Protocol(255),
];

const UIDS: [u32; 8] = [0, 1, 999, 1000, 1001, 65534, u32::MAX - 1, u32::MAX];

pub(crate) fn policy(random: &mut Random, shape: Shape) -> (Policy, Identities) {
    let count = match shape {
        Shape::Small => random.below(12),
        Shape::ManyRules => random.between(100, 300),
        Shape::MostRules => 1024,
        Shape::ManyAddresses => random.between(1, 90),
        Shape::ManySubjects => random.between(20, 70),
    };
    let nat64 = (0..random.below(9).saturating_sub(4))
        .map(|_| nat64_prefix(random))
        .collect();
    let mut policy = Policy {
        name: "random".to_owned(),
        mode: *random.pick(&[Mode::Enforce, Mode::Audit]),
        default: *random.pick(&Action::ALL),
        errno: *random.pick(&Errno::ALL),
        rules: Vec::new(),
        nat64,
        dedup: Dedup::default(),
        strict: false,
        hooks: Hooks::default(),
    };
    for i in 0..count {
        let mut rule = Rule {
            unix: None,
            name: format!("r{i}"),
            action: *random.pick(&Action::ALL),
            to: destinations(random, shape, &policy.nat64),
            services: services(random, shape),
            subject: subject(random, shape),
            reason: None,
        };
        if random.percent(15) {
            rule.unix = Some(unix(random, shape));
            rule.to = AddressSet::default();
            rule.services = Services::Only(Vec::new());
        }
        policy.rules.push(rule);
    }
    let executables = identities(random, &policy);
    (policy, executables)
}

/// A valid NAT64 prefix (RFC 6052), close to the others and sometimes overlapping a well-known one.
fn nat64_prefix(random: &mut Random) -> Nat64Prefix {
    let length = *random.pick(&[32u8, 40, 48, 56, 64, 96]);
    let base: u128 = *random.pick(&[
        0x2001_0db8_0122_0344 << 64,
        0x2001_0db8_0122_0344 << 64,
        0x2002 << 112,
        0x2001 << 112,
        0x0064_ff9b_0001 << 80,
        0x0123_4567_89ab_cdef << 64 | 0x00aa_bbcc << 32,
    ]);
    let bits = base >> (128 - length) << (128 - length);
    Nat64Prefix {
        high: (bits >> 64) as u64,
        low: bits as u64,
        length,
    }
}

fn destinations(random: &mut Random, shape: Shape, nat64: &[Nat64Prefix]) -> AddressSet {
    loop {
        let mut to = match random.below(12) {
            0 | 1 => AddressSet::everything(),
            2 => AddressSet::of(["0.0.0.0/0".parse().unwrap()]),
            3 => AddressSet::of(["::/0".parse().unwrap()]),
            _ => {
                let most = match shape {
                    Shape::ManyAddresses if random.percent(15) => 4000,
                    Shape::ManyAddresses => 60,
                    _ => 5,
                };
                let networks = random.between(1, most);
                if networks > 100 {
                    scattered(random, networks)
                } else {
                    AddressSet::of((0..networks).map(|_| network(random, nat64)))
                }
            }
        };
        if random.percent(25) {
            let except = AddressSet::of((0..random.between(1, 3)).map(|_| network(random, nat64)));
            to = to.without(&except);
        }
        if !to.is_empty() {
            return to;
        }
    }
}

/// A network from a few regions, so that rules overlap.
fn network(random: &mut Random, nat64: &[Nat64Prefix]) -> IpNet {
    if random.percent(55) {
        let bits = v4_near(random);
        let length = *random.pick(&[1u8, 8, 9, 16, 23, 24, 29, 30, 31, 32, 32, 32]);
        IpNet::V4(Ipv4Net::new(bits.into(), length).unwrap().trunc())
    } else {
        let bits = v6_near(random, nat64);
        let length = *random.pick(&[1u8, 16, 32, 48, 63, 64, 65, 96, 112, 126, 127, 128, 128]);
        IpNet::V6(Ipv6Net::new(bits.into(), length).unwrap().trunc())
    }
}

/// An IPv4 address close to those of other rules.
pub(crate) fn v4_near(random: &mut Random) -> u32 {
    let base: Ipv4Addr = random
        .pick(&[
            "10.0.0.0",
            "10.20.9.0",
            "127.0.0.1",
            "0.0.0.0",
            "198.51.100.7",
            "198.51.100.8",
            "169.254.169.254",
            "255.255.255.255",
            "203.0.113.128",
        ])
        .parse()
        .unwrap();
    let noise = match random.below(5) {
        0 => random.next() as u32,
        1 => random.next() as u32 & 0xff,
        2 => random.next() as u32 & 3,
        _ => 0,
    };
    u32::from(base) ^ noise
}

/// An IPv6 address close to those of other rules, often with an embedded IPv4 address.
pub(crate) fn v6_near(random: &mut Random, nat64: &[Nat64Prefix]) -> u128 {
    let v4 = v4_near(random);
    match random.below(12) {
        0 => 0x0064_ff9b << 96 | u128::from(v4),
        1 => 0x0064_ff9b_0001 << 80 | random.wide() >> 48 << 32 & (0xffff << 64) | u128::from(v4),
        2 => 0x2002 << 112 | u128::from(v4) << 80 | random.wide() & 3,
        3 => 0x2001 << 112 | u128::from(random.next() as u32 & 1) << 64 | u128::from(!v4),
        4 => 0xffff << 32 | u128::from(v4),
        5 => u128::from(v4),
        6 if !nat64.is_empty() => {
            let prefix = *random.pick(nat64);
            translated(prefix, v4)
        }
        7 => random.wide(),
        8 => 0xfe80 << 112 | random.wide() & 7,
        9 => *random.pick(&[0u128, 1, 2, u128::MAX]),
        _ => 0x2001_0db8 << 96 | random.wide() & *random.pick(&[0u128, 3, 0xff << 64 | 3, u128::MAX >> 32]),
    }
}

/// The IPv6 address for an IPv4 address under a NAT64 prefix (RFC 6052, 2.2): 32 bits after the prefix,
/// skipping bits 64 to 71.
pub(crate) fn translated(prefix: Nat64Prefix, v4: u32) -> u128 {
    let mut bits = u128::from(prefix.high) << 64 | u128::from(prefix.low);
    let mut at = u32::from(prefix.length);
    for i in (0..32).rev() {
        if at == 64 && prefix.length != 96 {
            at = 72;
        }
        bits |= u128::from(v4 >> i & 1) << (127 - at);
        at += 1;
    }
    bits
}

/// Many networks, spread over the address space or dense in a part of it.
fn scattered(random: &mut Random, count: usize) -> AddressSet {
    let v4_mask = *random.pick(&[u32::MAX, u32::MAX, 0x00ff_ffff, 0x0003_ffff, 0xffff_0000]);
    let v6_mask = *random.pick(&[u128::MAX, u128::MAX >> 3, 0xffff << 48, 0xffff_ffff, 0x3fff << 64]);
    let families = random.below(3);
    AddressSet::of((0..count).map(|_| {
        if families == 0 || families == 2 && random.percent(50) {
            let length = *random.pick(&[24u8, 28, 32, 32, 32]);
            let bits = 0x0a00_0000 | random.next() as u32 & v4_mask;
            IpNet::V4(Ipv4Net::new(bits.into(), length).unwrap().trunc())
        } else {
            let length = *random.pick(&[48u8, 64, 120, 128, 128]);
            let bits = Ipv6Addr::from(0x2001_0db8 << 96 | random.wide() & v6_mask);
            IpNet::V6(Ipv6Net::new(bits, length).unwrap().trunc())
        }
    }))
}

fn services(random: &mut Random, shape: Shape) -> Services {
    if random.percent(35) {
        return Services::Any;
    }
    let count = match shape {
        Shape::ManySubjects => random.between(1, 200),
        _ => random.between(1, 4),
    };
    let mut services = Vec::new();
    for _ in 0..count {
        let protocol = *random.pick(&PROTOCOLS);
        if !protocol.has_ports() || random.percent(25) {
            let ports = PortRange::EVERY;
            services.push(Service { protocol, ports });
            continue;
        }
        let mut port = || match random.below(6) {
            0 => *random.pick(&[0u16, 1, 65534, 65535]),
            1 => random.next() as u16,
            _ => *random.pick(&[22u16, 53, 80, 81, 443, 5432, 6000, 6010]),
        };
        let (a, b) = (port(), port());
        let range = match random.below(4) {
            0 => (a.min(b), a.max(b)),
            // Two ranges that cover all ports together.
            1 if a < u16::MAX => {
                services.push(Service {
                    protocol,
                    ports: PortRange::new(0, a).unwrap(),
                });
                (a + 1, u16::MAX)
            }
            _ => (a, a),
        };
        services.push(Service {
            protocol,
            ports: PortRange::new(range.0, range.1).unwrap(),
        });
    }
    Services::Only(services)
}

/// Unix sockets from a few names, or from many for [`Shape::ManySubjects`].
fn unix(random: &mut Random, shape: Shape) -> UnixSockets {
    if random.percent(10) {
        return UnixSockets::Any;
    }
    let (most, names) = match shape {
        Shape::ManySubjects => (150, 2000),
        _ => (3, 6),
    };
    let name = |random: &mut Random| {
        let number = random.below(names);
        if random.percent(20) {
            UnixName::Abstract(format!("n{number}").into_bytes())
        } else {
            UnixName::Path(PathBuf::from(format!("/run/s{number}")))
        }
    };
    UnixSockets::Only((0..random.between(1, most)).map(|_| name(random)).collect())
}

fn subject(random: &mut Random, shape: Shape) -> Subject {
    let many = shape == Shape::ManySubjects;
    let uids = random.percent(25).then(|| {
        let count = random.between(1, if many { 400 } else { 3 });
        let uid = |random: &mut Random| match random.below(3) {
            0 => *random.pick(&UIDS),
            1 => random.next() as u32,
            _ if many => random.next() as u32 & 0xfff,
            _ => *random.pick(&UIDS),
        };
        (0..count).map(|_| uid(random)).collect()
    });
    let binaries = random.percent(25).then(|| {
        let count = random.between(1, if many { 120 } else { 2 });
        let names = if many { 900 } else { 6 };
        let binary = |random: &mut Random| Binary {
            path: PathBuf::from(format!("/usr/bin/p{}", random.below(names))),
        };
        (0..count).map(|_| binary(random)).collect()
    });
    Subject { uids, binaries }
}

/// Identities for the paths: adjacent inodes on a few devices, sometimes one file for two paths.
fn identities(random: &mut Random, policy: &Policy) -> Identities {
    let mut executables = Identities::default();
    for (path, i) in tidegate_core::compile::paths_of(policy).into_iter().zip(1..) {
        let id = ExecutableId {
            device: *random.pick(&[0, 0x0080_0001, u64::MAX]),
            inode: match random.below(10) {
                0 => 1,
                1 => u64::MAX - i,
                _ => i,
            },
        };
        executables.insert(path.to_path_buf(), id);
    }
    for path in tidegate_core::compile::socket_paths_of(policy) {
        let id = |random: &mut Random| UnixSocketId {
            device: *random.pick(&[1, 27, u64::MAX]),
            name_hash: if random.percent(50) {
                random.next()
            } else {
                *random.pick(&[0, 1, u64::MAX])
            },
        };
        let ids = (0..random.between(1, 2)).map(|_| id(random)).collect();
        executables.insert_socket(path.to_path_buf(), ids);
    }
    executables
}
