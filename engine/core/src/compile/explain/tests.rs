use std::path::PathBuf;

use engine_common::Action;

use super::*;
use crate::{
    compile::test_policies::{policy, ports, rule},
    policy::{Binary, Subject},
};

fn explained(policy: &Policy, address: &str, port: u16, protocol: Protocol) -> Explanation {
    let executables = Identities::synthetic(policy);
    let address = address.parse().unwrap();
    let attempt = attempt_at(address, port, protocol, 1000, UNKNOWN_EXECUTABLE);
    explain(policy, &executables, &attempt).unwrap()
}

fn results(of: &Explanation) -> Vec<(bool, &[Mismatch])> {
    let rules = of.rules.iter();
    rules.map(|rule| (rule.matches, &rule.mismatches[..])).collect()
}

#[test]
fn each_rule_gives_its_mismatch() {
    let mut web = rule("web", Action::Block, "198.51.100.0/24");
    web.services = ports(Protocol::TCP, 80, 81);
    let mut udp = rule("udp", Action::Block, "any");
    udp.services = ports(Protocol::UDP, 0, 9);
    let mut root = rule("root", Action::Kill, "any");
    root.subject.uids = Some(vec![0]);
    let mut curl = rule("curl", Action::Kill, "any");
    curl.subject = Subject {
        uids: Some(vec![1000]),
        binaries: Some(vec![Binary {
            path: PathBuf::from("/usr/bin/curl"),
        }]),
    };
    let policy = policy(vec![
        rule("ten", Action::Kill, "10.0.0.0/8"),
        web,
        udp,
        root,
        curl,
        rule("all", Action::Allow, "any"),
        rule("late", Action::Kill, "any"),
    ]);
    let explanation = explained(&policy, "::ffff:198.51.100.7", 443, Protocol::TCP);
    assert_eq!(
        explanation.destination,
        Some("198.51.100.7".parse::<IpAddr>().unwrap())
    );
    assert_eq!((explanation.verdict, explanation.outcome), ("allow", "allowed"));
    assert_eq!(explanation.rule.as_deref(), Some("all"));
    assert_eq!(
        results(&explanation),
        [
            (false, &[Mismatch::Destination][..]),
            (false, &[Mismatch::Port]),
            (false, &[Mismatch::Protocol]),
            (false, &[Mismatch::Uid]),
            (false, &[Mismatch::Binary]),
            (true, &[]),
        ]
    );
}

#[test]
fn embedded_ipv4_address_is_looked_up_too() {
    let policy = policy(vec![
        rule("v6", Action::Allow, "::/0"),
        rule("other", Action::Audit, "192.0.2.0/24"),
        rule("v4", Action::Kill, "198.51.100.0/24"),
    ]);
    // The hooks see MPTCP as TCP.
    let explanation = explained(&policy, "64:ff9b::198.51.100.7", 443, Protocol::MPTCP);
    assert_eq!(explanation.embedded_ipv4, Some("198.51.100.7".parse().unwrap()));
    assert_eq!(
        (explanation.verdict, explanation.outcome, explanation.denied),
        ("kill", "killed", true)
    );
    assert_eq!(
        results(&explanation),
        [
            (true, &[Mismatch::Destination][..]),
            (false, &[Mismatch::Destination, Mismatch::Destination]),
            (true, &[Mismatch::Destination]),
        ]
    );
}

#[test]
fn mptcp_is_explained_as_tcp() {
    let mut tcp = rule("tcp", Action::Allow, "any");
    tcp.services = ports(Protocol::TCP, 443, 443);
    let policy = policy(vec![tcp]);
    assert_eq!(
        explained(&policy, "198.51.100.7", 443, Protocol::MPTCP).verdict,
        "allow"
    );
    assert_eq!(
        explained(&policy, "198.51.100.7", 444, Protocol::MPTCP).verdict,
        "block"
    );
}

#[test]
fn the_default_and_audit_mode() {
    let mut policy = policy(vec![rule("ten", Action::Allow, "10.0.0.0/8")]);
    let explanation = explained(&policy, "198.51.100.7", 443, Protocol::TCP);
    assert_eq!(
        (explanation.rule, explanation.errno, explanation.denied),
        (None, Some("EPERM"), true)
    );
    policy.mode = engine_common::Mode::Audit;
    let explanation = explained(&policy, "198.51.100.7", 443, Protocol::TCP);
    assert_eq!(
        (explanation.outcome, explanation.errno, explanation.denied),
        ("would_block", None, false)
    );
}

#[test]
fn sockets_without_address_hook() {
    let mut icmp = [
        rule("some", Action::Audit, "192.0.2.0/24"),
        rule("six", Action::Kill, "2001:db8::/32"),
        rule("all", Action::Allow, "0.0.0.0/0"),
    ];
    for rule in &mut icmp {
        rule.services = ports(Protocol::ICMP, 0, u16::MAX);
    }
    let mut rules = icmp.to_vec();
    rules.push(rule("late", Action::Kill, "any"));
    let explanation = explained(&policy(rules), "198.51.100.7", 0, Protocol::ICMP);
    assert_eq!(explanation.decided_at, DecisionPoint::Socket);
    assert_eq!(
        (explanation.verdict, explanation.rule.as_deref()),
        ("audit", Some("some"))
    );
    // The rule matches although it selects another destination, because the hook does not see the destination.
    assert_eq!(results(&explanation), [(true, &[][..])]);
}
