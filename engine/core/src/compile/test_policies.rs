//! Policies for the tests of this module.

use crate::policy::{
    AddressSet, Dedup, Errno, Hooks, Policy, PortRange, Rule, Service, Services, Subject,
    model::{Action, Mode, Protocol},
};

/// A set from networks separated by spaces, or `any`.
pub(super) fn addresses(text: &str) -> AddressSet {
    match text {
        "any" => AddressSet::everything(),
        _ => AddressSet::of(text.split(' ').map(|network| network.parse().unwrap())),
    }
}

/// A rule for all services and all processes.
pub(super) fn rule(name: &str, action: Action, to: &str) -> Rule {
    Rule {
        unix: None,
        name: name.to_owned(),
        action,
        to: addresses(to),
        services: Services::Any,
        subject: Subject::default(),
        reason: None,
    }
}

/// A port range of one protocol.
pub(super) fn ports(protocol: Protocol, first: u16, last: u16) -> Services {
    let ports = PortRange::new(first, last).unwrap();
    Services::Only(vec![Service { protocol, ports }])
}

/// A policy in enforce mode that blocks by default.
pub(super) fn policy(rules: Vec<Rule>) -> Policy {
    Policy {
        name: "sample".to_owned(),
        mode: Mode::Enforce,
        default: Action::Block,
        errno: Errno::Eperm,
        rules,
        nat64: Vec::new(),
        strict: false,
        dedup: Dedup::default(),
        hooks: Hooks::default(),
    }
}
