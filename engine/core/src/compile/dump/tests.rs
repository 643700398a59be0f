use std::{net::IpAddr, path::PathBuf};

use engine_common::{Mode, destination::Nat64Prefix, image::Revision};

use super::*;
use crate::{
    compile::{
        Identities, compile,
        test_policies::{addresses, policy, ports, rule},
    },
    policy::{AddressSet, Binary, Policy},
};

fn dumped(policy: &Policy, limit: usize) -> String {
    let revision = Revision {
        generation: 1,
        mode: policy.mode,
    };
    let image = compile(policy, &Identities::synthetic(policy), revision).unwrap();
    let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    dump(&image, &names, limit)
}

#[test]
fn no_rules() {
    insta::assert_snapshot!(dumped(&policy(Vec::new()), 64));
}

#[test]
fn ports_and_both_families() {
    let mut web = rule("web", Action::Allow, "198.51.100.0/24 2001:db8::/32");
    web.services = ports(Protocol::TCP, 443, 443);
    let mut dns = rule("dns", Action::Audit, "192.0.2.53/32");
    dns.services = ports(Protocol::UDP, 53, 53);
    let mut ping = rule("ping", Action::Allow, "0.0.0.0/0");
    ping.services = ports(Protocol::ICMP, 0, u16::MAX);
    let metadata = rule("metadata", Action::Kill, "169.254.169.254/32");
    insta::assert_snapshot!(dumped(&policy(vec![metadata, web, dns, ping]), 64));
}

#[test]
fn subjects_and_nat64() {
    let mut builders = rule("builders", Action::Audit, "any");
    builders.subject.uids = Some(vec![1000, 1001, 65534]);
    builders.subject.binaries = Some(
        ["/usr/bin/curl", "/usr/bin/git"]
            .map(|path| Binary {
                path: PathBuf::from(path),
            })
            .to_vec(),
    );
    let mut one = policy(vec![builders, rule("ten", Action::Allow, "10.0.0.0/8")]);
    one.rules[1].to = one.rules[1].to.without(&addresses("10.20.0.0/16"));
    one.mode = Mode::Audit;
    one.nat64 = vec![Nat64Prefix {
        high: 0x2001_0db8_0000_0064,
        low: 0,
        length: 96,
    }];
    insta::assert_snapshot!(dumped(&one, 64));
}

#[test]
fn an_index_and_a_directory() {
    let mut one = policy(vec![
        rule("feed", Action::Kill, "any"),
        rule("all", Action::Allow, "any"),
    ]);
    let sparse = (0..2_000u32).map(|i| IpAddr::from((i.wrapping_mul(0x9e37_79b1) | 1).to_be_bytes()));
    let dense = (0..400u128).map(|i| IpAddr::from((0x2001_0db8 << 96 | i << 1).to_be_bytes()));
    one.rules[0].to = AddressSet::of(sparse.chain(dense).map(Into::into));
    insta::assert_snapshot!(dumped(&one, 3));
}

#[test]
fn many_rules() {
    let one = |i: usize| rule(&format!("r{i}"), Action::ALL[i % 4], "10.0.0.0/8");
    insta::assert_snapshot!(dumped(&policy((0..70).map(one).collect()), 64));
}

/// Every kind of table gives back the ranges that were compiled.
#[test]
fn every_interval_is_read_back() {
    for (count, step) in [(30u32, 1 << 20), (2_000, 0x1003), (90_000, 2), (30_000, 40_001)] {
        let v4: Vec<IpAddr> = (0..count)
            .map(|i| IpAddr::from((i * step + 5).to_be_bytes()))
            .collect();
        let v6 = (0..u128::from(count))
            .map(|i| IpAddr::from(((i * u128::from(step)) << 93 | 1 << 40).to_be_bytes()));
        let mut one = policy(vec![rule("feed", Action::Kill, "any")]);
        one.rules[0].to = AddressSet::of(v4.into_iter().chain(v6).map(Into::into));
        let revision = Revision {
            generation: 1,
            mode: one.mode,
        };
        let image = compile(&one, &Identities::default(), revision).unwrap();
        let v4 = walk::walk_u32(&image, Dimension::V4);
        let v6 = walk::walk_u128(&image, Dimension::V6);
        assert!(!v4.broken && !v6.broken);
        let is_feed = |bitmap: Location| image.words()[bitmap.0 as usize] != 0;
        let of_v4: Vec<_> = v4
            .ranges
            .iter()
            .filter(|s| is_feed(s.bitmap))
            .map(|s| (s.start, s.end))
            .collect();
        let of_v6: Vec<_> = v6
            .ranges
            .iter()
            .filter(|s| is_feed(s.bitmap))
            .map(|s| (s.start, s.end))
            .collect();
        assert_eq!(of_v4, one.rules[0].to.v4());
        assert_eq!(of_v6, one.rules[0].to.v6());
    }
}

#[test]
fn a_corrupt_image_is_reported() {
    let mut one = policy(vec![rule("feed", Action::Kill, "any")]);
    let sparse = (0..2_000u32).map(|i| IpAddr::from((i.wrapping_mul(0x9e37_79b1) | 1).to_be_bytes()));
    one.rules[0].to = AddressSet::of(sparse.map(Into::into));
    let revision = Revision {
        generation: 1,
        mode: one.mode,
    };
    let image = compile(&one, &Identities::default(), revision).unwrap();
    let short = Image::new(image.pages()[..image.pages().len() / 2].to_vec());
    assert!(dump(&short, &["feed"], 3).contains("truncated: the table is corrupt"));
}
