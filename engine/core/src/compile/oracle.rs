//! A second evaluator of policies: a loop over the rules, slow and written to be obviously right.
//! Property tests compare the compiled tables with it, and `explain` takes its reasons from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use engine_common::{
    Action, ExecutableId, Protocol, Reason, UnixSocketId, Verdict,
    attempt::{Address, Attempt, SocketFamily},
    destination::embedded_v4,
};
use serde::Serialize;

use super::Identities;
use crate::policy::{Policy, Rule, Services, UnixSockets};

/// The first selector, in this order, that does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// The destination is not in `to`, or it is in `except`.
    Destination,
    /// The rule selects other protocols.
    Protocol,
    /// The rule selects other ports.
    Port,
    /// The rule selects other users.
    Uid,
    /// The rule selects other executables.
    Binary,
}

/// The addresses that are looked up for a destination: the canonical address, and the IPv4 address
/// embedded in it (NAT64, 6to4, Teredo, ...), if any.
pub fn address_forms(policy: &Policy, address: Address) -> (IpAddr, Option<IpAddr>) {
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
            let embedded_ipv4 = embedded_v4(high, low, prefix).map(|v4| IpAddr::V4(Ipv4Addr::from(v4)));
            (IpAddr::V6(own), embedded_ipv4)
        }
    }
}

/// Evaluates the policy for an attempt.
pub fn evaluate(policy: &Policy, executables: &Identities, attempt: &Attempt) -> Verdict {
    let (own, embedded_ipv4) = address_forms(policy, attempt.address);
    let first = |address: IpAddr| {
        let matches = |rule: &Rule| mismatch(rule, executables, address, attempt).is_none();
        policy.rules.iter().position(matches)
    };
    let (own, embedded_ipv4) = (first(own), embedded_ipv4.and_then(first));
    let rule = match (own, embedded_ipv4) {
        (Some(own), Some(embedded_ipv4)) if policy.rules[embedded_ipv4].action > policy.rules[own].action => {
            embedded_ipv4
        }
        (Some(own), _) => own,
        (None, Some(embedded_ipv4)) => embedded_ipv4,
        (None, None) => return by_default(policy),
    };
    by_rule(policy, rule)
}

/// Why a rule does not match an attempt at one form of its address; `None` if it matches.
pub fn mismatch(
    rule: &Rule,
    executables: &Identities,
    address: IpAddr,
    attempt: &Attempt,
) -> Option<Mismatch> {
    if !rule.to.contains(address) {
        return Some(Mismatch::Destination);
    }
    if !covers_some_port(rule, attempt.protocol) {
        return Some(Mismatch::Protocol);
    }
    if attempt.protocol.has_ports() && !covers_port(rule, attempt.protocol, attempt.port) {
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

/// Evaluates the policy for a unix socket: the first rule that selects it decides. A socket that no rule
/// selects is allowed.
pub fn decide_unix(
    policy: &Policy,
    identities: &Identities,
    socket: UnixSocketId,
    uid: u32,
    executable: ExecutableId,
) -> Verdict {
    let matches = |rule: &Rule| unix_mismatch(rule, identities, socket, uid, executable).is_none();
    match policy.rules.iter().position(matches) {
        Some(rule) => by_rule(policy, rule),
        None => Verdict {
            action: Action::Allow,
            reason: Reason::Default,
        },
    }
}

/// Why a rule does not match an attempt at a unix socket; `None` if it matches.
pub fn unix_mismatch(
    rule: &Rule,
    identities: &Identities,
    socket: UnixSocketId,
    uid: u32,
    executable: ExecutableId,
) -> Option<Mismatch> {
    let selected = match &rule.unix {
        None => false,
        Some(UnixSockets::Any) => true,
        Some(UnixSockets::Only(names)) => names
            .iter()
            .any(|name| identities.socket(name).is_some_and(|ids| ids.contains(&socket))),
    };
    if !selected {
        return Some(Mismatch::Destination);
    }
    subject_mismatch(rule, identities, uid, executable)
}

/// Evaluates the policy for the creation of a socket whose protocol has no address hook: the strictest
/// verdict that any destination could get.
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
        if is_final(rule, family, protocol) {
            // Later rules and the default apply to no destination of this socket.
            return by_rule(policy, strictest.unwrap_or(index));
        }
    }
    match strictest {
        Some(rule) if policy.rules[rule].action >= policy.default => by_rule(policy, rule),
        _ => by_default(policy),
    }
}

/// Why no destination of a socket can match a rule; `None` if some destination can.
pub fn socket_mismatch(
    rule: &Rule,
    executables: &Identities,
    family: SocketFamily,
    protocol: Protocol,
    uid: u32,
    executable: ExecutableId,
) -> Option<Mismatch> {
    if !covers_some_address(rule, family) {
        return Some(Mismatch::Destination);
    }
    if !covers_some_port(rule, protocol) {
        return Some(Mismatch::Protocol);
    }
    subject_mismatch(rule, executables, uid, executable)
}

/// Whether a rule covers every destination of a socket, if it matches the subject.
fn is_final(rule: &Rule, family: SocketFamily, protocol: Protocol) -> bool {
    covers_every_address(rule, family) && covers_every_port(rule, protocol)
}

/// An IPv6 socket can also connect to IPv4 destinations, as IPv4-mapped addresses.
fn covers_some_address(rule: &Rule, family: SocketFamily) -> bool {
    match family {
        SocketFamily::Inet => !rule.to.v4().is_empty(),
        SocketFamily::Inet6 => !rule.to.is_empty(),
    }
}

fn covers_every_address(rule: &Rule, family: SocketFamily) -> bool {
    match family {
        SocketFamily::Inet => rule.to.has_every_v4(),
        SocketFamily::Inet6 => rule.to.has_every_v4() && rule.to.has_every_v6(),
    }
}

fn covers_some_port(rule: &Rule, protocol: Protocol) -> bool {
    match &rule.services {
        Services::Any => true,
        Services::Only(services) => services.iter().any(|s| s.protocol == protocol),
    }
}

fn covers_every_port(rule: &Rule, protocol: Protocol) -> bool {
    let Services::Only(services) = &rule.services else {
        return true;
    };
    let matching = || services.iter().filter(|s| s.protocol == protocol);
    if !protocol.has_ports() {
        return matching().count() > 0;
    }
    // The first uncovered port, if any, is 0 or directly follows a range.
    let mut after = matching().filter_map(|s| s.ports.last().checked_add(1));
    covers_port(rule, protocol, 0) && after.all(|port| covers_port(rule, protocol, port))
}

fn covers_port(rule: &Rule, protocol: Protocol, port: u16) -> bool {
    match &rule.services {
        Services::Any => true,
        Services::Only(services) => {
            let mut matching = services.iter().filter(|s| s.protocol == protocol);
            matching.any(|s| s.ports.contains(port))
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
