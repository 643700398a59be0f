//! The policies that valid files produce.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use engine_common::{Action, Mode, Protocol};
use tidegate_core::policy::{
    AddressSet, Code, LoadContext, LoadResult, Policy, PortRange, Service, Services, load, load_text,
};

fn corpus(name: &str) -> LoadResult {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus/valid")
        .join(name);
    let mut context = LoadContext::default();
    for (name, value) in [
        ("NAME", "from-variable"),
        ("PODCIDR", "10.244.0.0/24 10.244.1.0/24"),
        ("SERVICECIDR", "10.96.0.0/12"),
        ("PORTS", "80,443/tcp\n6000-6010/udp"),
        ("INJECTION", "x\"\n  default: allow\n# "),
    ] {
        context.variables.set(name, value);
    }
    load(&path, &context)
}

fn spec(spec: &str) -> LoadResult {
    let text = format!(
        "apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {{name: p}}\nspec:\n  default: block\n{spec}"
    );
    load_text("p.yaml", &text, Path::new(""), &LoadContext::default())
}

fn policy(loaded: LoadResult) -> Policy {
    assert!(loaded.policy.is_some(), "{}", loaded.render(false));
    loaded.policy.unwrap()
}

fn set(networks: &str) -> AddressSet {
    AddressSet::of(networks.split(' ').map(|n| n.parse::<ipnet::IpNet>().unwrap()))
}

fn service(protocol: Protocol, first: u16, last: u16) -> Service {
    Service {
        protocol,
        ports: PortRange::new(first, last).unwrap(),
    }
}

#[test]
fn every_field_is_read() {
    let policy = policy(corpus("everything.yaml"));
    assert_eq!(
        (
            policy.name.as_str(),
            policy.mode,
            policy.default,
            policy.errno.as_str()
        ),
        ("payments", Mode::Enforce, Action::Block, "EPERM")
    );
    assert_eq!((policy.nat64.len(), policy.nat64[0].length), (1, 96));
    let names: Vec<&str> = policy.rules.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["feed", "database", "metadata", "ping", "builders"]);

    let [feed, database, _, ping, builders] = &policy.rules[..] else {
        panic!("five rules");
    };
    assert_eq!(feed.to, set("203.0.113.7/32 203.0.113.64/26 2001:db8:bad::/48"));
    let to = set("10.20.0.0/16 192.0.2.0/24 2001:db8::/32 127.0.0.0/8 ::1/128");
    assert_eq!(database.to, to.without(&set("10.20.9.0/24")));
    let Services::Only(services) = &database.services else {
        panic!("ports were given");
    };
    assert!(services.contains(&service(Protocol::TCP, 5432, 5432)));
    assert!(services.contains(&service(Protocol::SCTP, 6000, 6010)));
    assert!(!services.contains(&service(Protocol::UDP, 5432, 5432)));
    assert_eq!(database.reason.as_deref(), Some("orders are stored there"));
    assert_eq!(
        ping.services,
        Services::Only(vec![
            service(Protocol::ICMP, 0, u16::MAX),
            service(Protocol::ICMPV6, 0, u16::MAX)
        ])
    );
    assert_eq!(builders.to, AddressSet::everything());
    assert_eq!(builders.subject.uids, Some(vec![1000, 1001]));
    let binaries = builders.subject.binaries.as_ref().unwrap();
    assert_eq!(binaries[0].path, Path::new("/usr/bin/curl"));
}

#[test]
fn a_variable_can_have_several_list_items() {
    let policy = policy(corpus("variables.yaml"));
    assert_eq!(
        (policy.name.as_str(), policy.mode),
        ("from-variable", Mode::Audit)
    );
    assert_eq!(
        policy.rules[0].to,
        set("10.244.0.0/23 10.96.0.0/12 192.0.2.1/32 192.0.2.2/32")
    );
    let Services::Only(services) = &policy.rules[1].services else {
        panic!("ports were given");
    };
    assert!(services.contains(&service(Protocol::UDP, 6000, 6010)));
    assert!(services.contains(&service(Protocol::TCP, 443, 443)));
    assert!(!services.contains(&service(Protocol::TCP, 6000, 6010)));
    assert_eq!(
        policy.rules[1].reason.as_deref(),
        Some("costs $5, $ and ${NAME} stay")
    );
}

#[test]
fn a_value_cannot_change_the_structure() {
    let policy = policy(corpus("injection.yaml"));
    assert_eq!(policy.default, Action::Block);
    assert_eq!(
        policy.rules[0].reason.as_deref(),
        Some("x\"\n  default: allow\n#")
    );
}

#[test]
fn protocols_restrict_ports() {
    let policy = policy(corpus("protocols-and-ports.yaml"));
    assert_eq!(
        policy.rules[0].services,
        Services::Only(vec![
            service(Protocol::TCP, 53, 53),
            service(Protocol::TCP, 853, 853),
            service(Protocol::UDP, 53, 53)
        ])
    );
}

#[test]
fn uses_of_a_large_set_are_limited() {
    // Each set contains the previous one: counting every use, there are more ranges than allowed.
    let many: Vec<String> = (0..60_000u32)
        .map(|i| format!("10.{}.{}.{}", i >> 15, i >> 7 & 255, i << 1 & 255))
        .collect();
    let sets: String = (1..100)
        .map(|i| format!("    s{i}: [\"@s{}\", 192.0.2.{i}]\n", i - 1))
        .collect();
    let loaded = spec(&format!(
        "  sets:\n    s0: [{}]\n{sets}  rules: [{{name: a, action: allow, to: [\"@s99\"]}}]\n",
        many.join(",")
    ));
    assert!(loaded.policy.is_none());
    let codes: Vec<Code> = loaded.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::TooLarge]);
}
