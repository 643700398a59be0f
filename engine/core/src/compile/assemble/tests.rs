use std::{net::IpAddr, path::PathBuf};

use engine_common::{Address, Attempt, ExecutableId, Mode, Reason, Verdict};

use super::*;
use crate::{
    compile::test_policies::{policy, ports, rule},
    policy::{AddressSet, Binary, PortRange, Service},
};

const REVISION: Revision = Revision {
    generation: 3,
    mode: Mode::Enforce,
};

fn compiled(policy: &Policy) -> Image {
    compile(policy, &Identities::synthetic(policy), REVISION).unwrap()
}

fn verdict_at(image: &Image, address: Address) -> Verdict {
    image.decide(&Attempt {
        address,
        port: 443,
        protocol: Protocol::TCP,
        uid: 1000,
        executable: ExecutableId::default(),
    })
}

/// Typical rules: a few networks and ports each, of both families.
fn ordinary(rules: usize) -> Vec<Rule> {
    let one = |i: usize| {
        let to = format!("10.{i}.0.0/16 192.0.2.{i}/32 2001:db8:{i:x}::/48");
        let mut rule = rule(&format!("r{i}"), Action::ALL[i % 4], &to);
        rule.services = ports(Protocol::TCP, 443, 443 + i as u16);
        rule
    };
    (0..rules).map(one).collect()
}

#[test]
fn small_policies_stay_small() {
    assert_eq!(compiled(&policy(Vec::new())).pages().len(), 1);
    assert!(compiled(&policy(ordinary(3))).pages().len() <= 1);
    assert!(compiled(&policy(ordinary(10))).pages().len() <= 2);
}

#[test]
fn equal_policies_give_equal_images() {
    let one = policy(ordinary(200));
    assert!(compiled(&one) == compiled(&one.clone()));
}

#[test]
fn header_and_counters() {
    let mut one = policy(ordinary(250));
    one.default = Action::Kill;
    one.rules[5].subject.uids = Some(vec![7]);
    let image = compiled(&one);
    let header = image.header();
    assert_eq!(header.revision(), REVISION);
    assert_eq!(header.default_action(), Action::Kill);
    assert_eq!(header.errno(), one.errno.number());
    assert_eq!((header.rule_count(), header.bitmap_words()), (250, 4));
    assert_eq!((header.needs_subject(), header.needs_executable()), (true, false));
    assert_eq!(header.page_count() as usize, image.pages().len());
    // The counters start on a cache line, and no other object overlaps them.
    let first = header.counters().0 as usize;
    assert_eq!(first % 8, 0);
    assert!(image.words()[first..first + 252].iter().all(|&word| word == 0));

    one.rules[5].subject.uids = None;
    one.rules[6].subject.binaries = Some(vec![Binary {
        path: PathBuf::from("/bin/true"),
    }]);
    let image = compiled(&one);
    assert_eq!(
        (image.header().needs_subject(), image.header().needs_executable()),
        (true, true)
    );
}

#[test]
fn the_maximum_number_of_rules() {
    let rules: Vec<Rule> = (0..MAX_RULES)
        .map(|i| {
            let to = format!("198.{}.{}.0/24", 18 + i / 256, i % 256);
            rule(&format!("r{i}"), Action::ALL[i % 4], &to)
        })
        .collect();
    let mut one = policy(rules);
    let image = compiled(&one);
    for i in 0..MAX_RULES as u32 {
        for host in [0, 255] {
            let verdict = verdict_at(&image, Address::V4(198 << 24 | (18 * 256 + i) << 8 | host));
            assert_eq!(verdict.reason, Reason::Rule(i as u16));
            assert_eq!(verdict.action, Action::ALL[i as usize % 4]);
        }
    }
    one.rules.push(rule("more", Action::Allow, "any"));
    let error = compile(&one, &Identities::default(), REVISION).unwrap_err();
    assert_eq!(
        error,
        CompileError::TooManyRules {
            rules: 1025,
            limit: 1024
        }
    );
}

#[test]
fn three_hundred_thousand_networks() {
    // Every fourth address of a dense IPv4 region, and sparse addresses of both families.
    let dense = (0..100_000u32).map(|i| IpAddr::from((10 << 24 | i << 2).to_be_bytes()));
    let sparse = (0..100_000u32).map(|i| IpAddr::from((i.wrapping_mul(0x9e37_79b1) | 1).to_be_bytes()));
    let wide = (0..100_000u128).map(|i| {
        let bits = (0x2001_0db8 << 96) + i * 0x9e37_79b9_7f4a_7c15;
        IpAddr::from(bits.to_be_bytes())
    });
    let mut one = policy(vec![
        rule("a", Action::Allow, "10.0.0.0/32"),
        rule("b", Action::Kill, "10.0.0.0/32"),
    ]);
    one.rules[0].to = AddressSet::of(dense.map(Into::into));
    one.rules[1].to = AddressSet::of(sparse.chain(wide).map(Into::into));
    let image = compiled(&one);
    let verdict = |address: IpAddr| {
        let first = one.rules.iter().position(|rule| rule.to.contains(address));
        first.map_or(Reason::Default, |i| Reason::Rule(i as u16))
    };
    for rule in &one.rules {
        for &(start, end) in rule.to.v4() {
            for key in [start.wrapping_sub(1), start, end.wrapping_add(1)] {
                if key != 0 {
                    let expected = verdict(IpAddr::from(key.to_be_bytes()));
                    assert_eq!(verdict_at(&image, Address::V4(key)).reason, expected, "{key:x}");
                }
            }
        }
        for &(start, end) in rule.to.v6() {
            for key in [start.wrapping_sub(1), start, end.wrapping_add(1)] {
                let expected = verdict(IpAddr::from(key.to_be_bytes()));
                assert_eq!(verdict_at(&image, Address::v6(key)).reason, expected, "{key:x}");
            }
        }
    }
}

#[test]
fn invalid_policies_are_compile_errors() {
    let mut one = policy(vec![rule("curl", Action::Allow, "any")]);
    one.rules[0].subject.binaries = Some(vec![Binary {
        path: PathBuf::from("/usr/bin/curl"),
    }]);
    let error = compile(&one, &Identities::default(), REVISION).unwrap_err();
    let missing = CompileError::MissingExecutable {
        rule: "curl".to_owned(),
        path: PathBuf::from("/usr/bin/curl"),
    };
    assert_eq!(error, missing);
    assert!(error.to_string().contains("/usr/bin/curl"), "{error}");

    let mut one = policy(vec![rule("odd", Action::Allow, "any")]);
    one.rules[0].services = Services::Only(vec![Service {
        protocol: Protocol(512),
        ports: PortRange::EVERY,
    }]);
    let error = compile(&one, &Identities::default(), REVISION).unwrap_err();
    assert!(matches!(
        error,
        CompileError::UnknownProtocol { protocol: 512, .. }
    ));

    let mut one = policy(Vec::new());
    let prefix = Nat64Prefix {
        high: 1 << 32,
        low: 0,
        length: 96,
    };
    one.nat64 = vec![prefix; 5];
    let error = compile(&one, &Identities::default(), REVISION).unwrap_err();
    assert!(matches!(
        error,
        CompileError::TooManyNat64Prefixes { prefixes: 5, .. }
    ));
}
