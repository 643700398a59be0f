//! The key ranges that each rule of a policy covers, for every dimension.

use engine_common::{ExecutableId, Protocol, UnixSocketId};

use super::{CompileError, Identities};
use crate::policy::{Policy, Rule, Services, UnixSockets};

/// Last key of the port dimension (`protocol << 16 | port`).
pub(super) const LAST_PORT_KEY: u32 = ((Protocol::COUNT as u32) << 16) - 1;
/// Last key of the protocol dimensions.
pub(super) const LAST_PROTOCOL: u32 = Protocol::COUNT as u32 - 1;

/// Inclusive ranges with the index of the rule that covers them. The ranges of one rule are disjoint.
pub(super) type Spans<K> = Vec<(K, K, usize)>;

/// Key of an executable: device id, then inode.
pub(super) fn executable_key(id: ExecutableId) -> u128 {
    u128::from(id.device) << 64 | u128::from(id.inode)
}

/// IPv4 destinations.
pub(super) fn v4(policy: &Policy) -> impl Iterator<Item = (u32, u32, usize)> + '_ {
    let rules = policy.rules.iter().enumerate();
    rules.flat_map(|(i, rule)| rule.to.v4().iter().map(move |&(start, end)| (start, end, i)))
}

/// IPv6 destinations.
pub(super) fn v6(policy: &Policy) -> impl Iterator<Item = (u128, u128, usize)> + '_ {
    let rules = policy.rules.iter().enumerate();
    rules.flat_map(|(i, rule)| rule.to.v6().iter().map(move |&(start, end)| (start, end, i)))
}

/// Services: `protocol << 16 | port`.
pub(super) fn services(policy: &Policy) -> Spans<u32> {
    spans(policy, |rule| match &rule.services {
        Services::Any => vec![(0, LAST_PORT_KEY)],
        Services::Only(_) => service_ranges(rule),
    })
}

/// Protocols with at least one port that the rule covers.
pub(super) fn protocols_in_part(policy: &Policy) -> Spans<u32> {
    spans(policy, |rule| match &rule.services {
        Services::Any => vec![(0, LAST_PROTOCOL)],
        Services::Only(services) => {
            let protocols = services.iter().map(|service| u32::from(service.protocol.0));
            merged(protocols.map(|p| (p, p)).collect())
        }
    })
}

/// Protocols with all ports covered by the rule.
pub(super) fn protocols_in_full(policy: &Policy) -> Spans<u32> {
    spans(policy, |rule| match &rule.services {
        Services::Any => vec![(0, LAST_PROTOCOL)],
        Services::Only(services) => {
            let ranges = service_ranges(rule);
            let full = services.iter().map(|service| u32::from(service.protocol.0));
            let full = full.filter(|p| {
                let (first, last) = (p << 16, p << 16 | 0xffff);
                ranges.iter().any(|&(start, end)| start <= first && last <= end)
            });
            merged(full.map(|p| (p, p)).collect())
        }
    })
}

/// User ids.
pub(super) fn uids(policy: &Policy) -> Spans<u32> {
    spans(policy, |rule| match &rule.subject.uids {
        None => vec![(0, u32::MAX)],
        Some(uids) => merged(uids.iter().map(|&uid| (uid, uid)).collect()),
    })
}

/// Executables.
///
/// # Errors
/// [`CompileError::MissingExecutable`] if `known` has no identity for an executable of a rule.
pub(super) fn executables(policy: &Policy, known: &Identities) -> Result<Spans<u128>, CompileError> {
    let mut spans = Vec::new();
    for (i, rule) in policy.rules.iter().enumerate() {
        let Some(binaries) = &rule.subject.binaries else {
            spans.push((0, u128::MAX, i));
            continue;
        };
        let mut keys = Vec::with_capacity(binaries.len());
        for binary in binaries {
            let id = known
                .executable(&binary.path)
                .ok_or_else(|| CompileError::MissingExecutable {
                    rule: rule.name.clone(),
                    path: binary.path.clone(),
                })?;
            keys.push(executable_key(id));
        }
        // Two paths can be the same file.
        keys.sort_unstable();
        keys.dedup();
        spans.extend(keys.into_iter().map(|key| (key, key, i)));
    }
    Ok(spans)
}

/// Key of a unix socket.
pub(super) fn socket_key(id: UnixSocketId) -> u128 {
    u128::from(id.device) << 64 | u128::from(id.name_hash)
}

/// Unix sockets.
///
/// # Errors
/// [`CompileError::MissingSocket`] if `known` has no id for a socket of a rule.
pub(super) fn unix(policy: &Policy, known: &Identities) -> Result<Spans<u128>, CompileError> {
    let mut spans = Vec::new();
    for (i, rule) in policy.rules.iter().enumerate() {
        let names = match &rule.unix {
            None => continue,
            Some(UnixSockets::Any) => {
                spans.push((0, u128::MAX, i));
                continue;
            }
            Some(UnixSockets::Only(names)) => names,
        };
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let ids = known.socket(name).ok_or_else(|| CompileError::MissingSocket {
                rule: rule.name.clone(),
                name: name.to_string(),
            })?;
            keys.extend(ids.into_iter().map(socket_key));
        }
        keys.sort_unstable();
        keys.dedup();
        spans.extend(keys.into_iter().map(|key| (key, key, i)));
    }
    Ok(spans)
}

fn spans(policy: &Policy, ranges: impl Fn(&Rule) -> Vec<(u32, u32)>) -> Spans<u32> {
    let rules = policy.rules.iter().enumerate();
    rules
        .flat_map(|(i, rule)| ranges(rule).into_iter().map(move |(start, end)| (start, end, i)))
        .collect()
}

/// Keys of the services that a rule lists. For a protocol without ports these are all 65536 keys.
fn service_ranges(rule: &Rule) -> Vec<(u32, u32)> {
    let Services::Only(services) = &rule.services else {
        return Vec::new();
    };
    let ranges = services.iter().map(|service| {
        let key = u32::from(service.protocol.0) << 16;
        if service.protocol.has_ports() {
            (
                key | u32::from(service.ports.first()),
                key | u32::from(service.ports.last()),
            )
        } else {
            (key, key | 0xffff)
        }
    });
    merged(ranges.collect())
}

/// Sorts the ranges and merges those that overlap or are adjacent.
fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}
