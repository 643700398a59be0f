//! The semantics once more, as a loop over the rules: slow, and written to be obviously right.
//! Property tests hold the tables against it; `explain` takes its reasons from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use engine_common::{
    Action, ExecutableId, Protocol, Reason, UnixSocketId, Verdict,
    attempt::{Address, Attempt, SocketFamily},
    destination::{canonical_v4, embedded_v4},
};
use serde::Serialize;

use super::Identities;
use crate::policy::{Policy, Rule, Services, UnixSockets};

/// Why a rule does not match: the first of its selectors, in the order in which they are listed
/// here, that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// The destination is not in `to`, or in `except`.
    Destination,
    /// The rule is not about the protocol.
    Protocol,
    /// The rule is about other ports.
    Port,
    /// The rule binds other users.
    Uid,
    /// The rule binds other executables.
    Binary,
}

/// The addresses an attempt is judged by: as spelled, and the IPv4 address inside, if there is one.
pub fn spellings(policy: &Policy, address: Address) -> (IpAddr, Option<IpAddr>) {
    match address {
        Address::V4(v4) => (IpAddr::V4(Ipv4Addr::from(v4)), None),
        Address::V6 { high, low } => {
            let own = Ipv6Addr::from((high as u128) << 64 | low as u128);
            let nothing = engine_common::destination::Nat64Prefix {
                high: 0,
                low: 0,
                length: 0,
            };
            let prefix = |i: usize| policy.nat64.get(i).copied().unwrap_or(nothing);
            let inside = embedded_v4(high, low, prefix).and_then(|v4| match canonical_v4(v4) {
                Address::V4(v4) => Some(IpAddr::V4(Ipv4Addr::from(v4))),
                Address::V6 { .. } => None,
            });
            (IpAddr::V6(own), inside)
        }
    }
}

/// What the policy says about an attempt.
pub fn evaluate(policy: &Policy, executables: &Identities, attempt: &Attempt) -> Verdict {
    let (own, inside) = spellings(policy, attempt.address);
    let first = |address: IpAddr| {
        let matches = |rule: &Rule| mismatch(rule, executables, address, attempt).is_none();
        policy.rules.iter().position(matches)
    };
    let (own, inside) = (first(own), inside.and_then(first));
    let rule = match (own, inside) {
        (Some(own), Some(inside)) if policy.rules[inside].action > policy.rules[own].action => inside,
        (Some(own), _) => own,
        (None, Some(inside)) => inside,
        (None, None) => return by_default(policy),
    };
    by_rule(policy, rule)
}

/// Why a rule does not match an attempt by one of its spellings; `None` when it does.
pub fn mismatch(
    rule: &Rule,
    executables: &Identities,
    address: IpAddr,
    attempt: &Attempt,
) -> Option<Mismatch> {
    if !rule.to.contains(address) {
        return Some(Mismatch::Destination);
    }
    if !serves_some(rule, attempt.protocol) {
        return Some(Mismatch::Protocol);
    }
    if attempt.protocol.has_ports() && !serves(rule, attempt.protocol, attempt.port) {
        return Some(Mismatch::Port);
    }
    subject_mismatch(rule, executables, attempt.uid, attempt.executable)
}

fn subject_mismatch(
    rule: &Rule,
    executables: &Identities,
    uid: u32,
    executable: ExecutableId,
) -> Option<Mismatch> {
    if let Some(uids) = &rule.subject.uids
        && !uids.contains(&uid)
    {
        return Some(Mismatch::Uid);
    }
    if let Some(binaries) = &rule.subject.binaries
        && !binaries
            .iter()
            .any(|b| executables.executable(&b.path) == Some(executable))
    {
        return Some(Mismatch::Binary);
    }
    None
}

/// What the policy says about reaching a unix socket: the first rule that names it; what none names passes.
pub fn decide_unix(
    policy: &Policy,
    identities: &Identities,
    place: UnixSocketId,
    uid: u32,
    executable: ExecutableId,
) -> Verdict {
    let matches = |rule: &Rule| unix_mismatch(rule, identities, place, uid, executable).is_none();
    match policy.rules.iter().position(matches) {
        Some(rule) => by_rule(policy, rule),
        None => Verdict {
            action: Action::Allow,
            reason: Reason::Default,
        },
    }
}

/// Why a rule does not match an attempt at a unix socket; `None` when it does.
pub fn unix_mismatch(
    rule: &Rule,
    identities: &Identities,
    place: UnixSocketId,
    uid: u32,
    executable: ExecutableId,
) -> Option<Mismatch> {
    let names_it = match &rule.unix {
        None => false,
        Some(UnixSockets::Any) => true,
        Some(UnixSockets::Only(names)) => names.iter().any(|name| {
            identities
                .socket(name)
                .is_some_and(|places| places.contains(&place))
        }),
    };
    if !names_it {
        return Some(Mismatch::Destination);
    }
    subject_mismatch(rule, identities, uid, executable)
}

/// What the policy says about making a socket whose destinations no hook sees: the strictest answer
/// that any of its destinations could get.
pub fn decide_socket(
    policy: &Policy,
    executables: &Identities,
    family: SocketFamily,
    protocol: Protocol,
    uid: u32,
    executable: ExecutableId,
) -> Verdict {
    let mut strictest: Option<usize> = None;
    for (index, rule) in policy.rules.iter().enumerate() {
        if socket_mismatch(rule, executables, family, protocol, uid, executable).is_some() {
            continue;
        }
        if strictest.is_none_or(|s| rule.action > policy.rules[s].action) {
            strictest = Some(index);
        }
        if settles(rule, family, protocol) {
            // Nothing after this rule can answer, the default neither.
            return by_rule(policy, strictest.unwrap_or(index));
        }
    }
    match strictest {
        Some(rule) if policy.rules[rule].action >= policy.default => by_rule(policy, rule),
        _ => by_default(policy),
    }
}

/// Why no destination of a socket can match a rule; `None` when some can.
pub fn socket_mismatch(
    rule: &Rule,
    executables: &Identities,
    family: SocketFamily,
    protocol: Protocol,
    uid: u32,
    executable: ExecutableId,
) -> Option<Mismatch> {
    if !reaches_some(rule, family) {
        return Some(Mismatch::Destination);
    }
    if !serves_some(rule, protocol) {
        return Some(Mismatch::Protocol);
    }
    subject_mismatch(rule, executables, uid, executable)
}

/// Whether a rule covers every destination of a socket, if it binds its owner.
fn settles(rule: &Rule, family: SocketFamily, protocol: Protocol) -> bool {
    reaches_every(rule, family) && serves_every(rule, protocol)
}

/// An IPv6 socket reaches IPv4 destinations too, by their mapped addresses.
fn reaches_some(rule: &Rule, family: SocketFamily) -> bool {
    match family {
        SocketFamily::Inet => !rule.to.v4().is_empty(),
        SocketFamily::Inet6 => !rule.to.is_empty(),
    }
}

fn reaches_every(rule: &Rule, family: SocketFamily) -> bool {
    match family {
        SocketFamily::Inet => rule.to.has_every_v4(),
        SocketFamily::Inet6 => rule.to.has_every_v4() && rule.to.has_every_v6(),
    }
}

fn serves_some(rule: &Rule, protocol: Protocol) -> bool {
    match &rule.services {
        Services::Any => true,
        Services::Only(services) => services.iter().any(|s| s.protocol == protocol),
    }
}

fn serves_every(rule: &Rule, protocol: Protocol) -> bool {
    let Services::Only(services) = &rule.services else {
        return true;
    };
    let of_it = || services.iter().filter(|s| s.protocol == protocol);
    if !protocol.has_ports() {
        return of_it().count() > 0;
    }
    // The first port that is not covered, if there is one, is 0 or comes right after some range.
    let mut after = of_it().filter_map(|s| s.ports.last().checked_add(1));
    serves(rule, protocol, 0) && after.all(|port| serves(rule, protocol, port))
}

fn serves(rule: &Rule, protocol: Protocol, port: u16) -> bool {
    match &rule.services {
        Services::Any => true,
        Services::Only(services) => {
            let mut of_it = services.iter().filter(|s| s.protocol == protocol);
            of_it.any(|s| s.ports.contains(port))
        }
    }
}

fn by_rule(policy: &Policy, rule: usize) -> Verdict {
    Verdict {
        action: policy.rules[rule].action,
        reason: Reason::Rule(rule as u16),
    }
}

fn by_default(policy: &Policy) -> Verdict {
    Verdict {
        action: policy.default,
        reason: Reason::Default,
    }
}
