//! Checks that the lists of `diff` are what a rule gains and loses.

use std::net::IpAddr;

use engine_common::{Address, Attempt, Protocol};
use ipnet::IpNet;
use tidegate_core::{
    compile::diff::{Addresses, GainedLost, RuleChange, Selection},
    policy::{Rule, Services},
};

fn has_address(rule: &Rule, address: Address) -> bool {
    let within = |ranges: &[(u128, u128)], key: u128| ranges.iter().any(|r| r.0 <= key && key <= r.1);
    match address {
        Address::V4(v4) => rule.to.v4().iter().any(|r| r.0 <= v4 && v4 <= r.1),
        Address::V6 { high, low } => within(rule.to.v6(), u128::from(high) << 64 | u128::from(low)),
    }
}

fn has_service(rule: &Rule, protocol: Protocol, port: u16) -> bool {
    match &rule.services {
        Services::Any => true,
        Services::Only(services) => services
            .iter()
            .any(|s| s.protocol == protocol && (!protocol.has_ports() || s.ports.contains(port))),
    }
}

fn has_uid(rule: &Rule, uid: u32) -> bool {
    let uids = rule.subject.uids.as_ref();
    uids.is_none_or(|uids| uids.contains(&uid))
}

fn lists_address(addresses: &Addresses, address: Address) -> bool {
    let ip = match address {
        Address::V4(v4) => IpAddr::from(v4.to_be_bytes()),
        Address::V6 { high, low } => {
            let bits = u128::from(high) << 64 | u128::from(low);
            IpAddr::from(bits.to_be_bytes())
        }
    };
    addresses.all_but != addresses.networks.iter().any(|network| network.contains(&ip))
}

fn integer(text: &str) -> u32 {
    text.parse().unwrap()
}

fn within(range: &str, key: u32) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    integer(first) <= key && key <= integer(last)
}

fn lists_uid(uids: &Selection, uid: u32) -> bool {
    uids.all_but != uids.items.iter().any(|item| within(item, uid))
}

fn lists_service(services: &Selection, protocol: Protocol, port: u16) -> bool {
    let name = match protocol.0 {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        33 => "dccp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        262 => "mptcp".to_owned(),
        511 => "raw".to_owned(),
        number => format!("protocol {number}"),
    };
    let is_listed = |item: &String| match item.split_once('/') {
        Some((ports, of)) => of == name && within(ports, port.into()),
        // A port without a protocol applies to every protocol with ports.
        None if item.starts_with(|c: char| c.is_ascii_digit()) => {
            protocol.has_ports() && within(item, port.into())
        }
        None => *item == name,
    };
    services.all_but != services.items.iter().any(is_listed)
}

/// The number of addresses of a complete list of networks.
pub(crate) fn counted(addresses: &Addresses) -> Option<u128> {
    assert_eq!(addresses.omitted, 0);
    let size = |network: &IpNet| {
        let bits = network.max_prefix_len() - network.prefix_len();
        1u128.checked_shl(bits.into())
    };
    let listed: u128 = addresses.networks.iter().map(size).sum::<Option<u128>>()?;
    let Some(IpNet::V4(_)) = addresses.networks.first() else {
        return match addresses.all_but {
            // An empty list has no address family, and 2^128 addresses of IPv6 exceed u128.
            true if addresses.networks.is_empty() => addresses.count.exact(),
            true => Some(u128::MAX - listed + 1),
            false => Some(listed),
        };
    };
    Some(if addresses.all_but {
        (1 << 32) - listed
    } else {
        listed
    })
}

fn agrees<T>(both: &GainedLost<T>, old: bool, new: bool, lists: impl Fn(&T) -> bool) -> bool {
    lists(&both.gained) == (new && !old) && lists(&both.lost) == (old && !new)
}

/// The part of a rule's diff that contradicts its old and new version for one attempt.
pub(crate) fn disagreement(
    change: Option<&RuleChange>,
    old: &Rule,
    new: &Rule,
    attempt: &Attempt,
) -> Option<&'static str> {
    let a = attempt;
    let address = [old, new].map(|rule| has_address(rule, a.address));
    let service = [old, new].map(|rule| has_service(rule, a.protocol, a.port));
    let uid = [old, new].map(|rule| has_uid(rule, a.uid));
    let Some(change) = change else {
        let same = [address, service, uid].into_iter().all(|[old, new]| old == new);
        return (!same).then_some("nothing");
    };
    let addresses = match a.address {
        Address::V4(_) => &change.ipv4,
        Address::V6 { .. } => &change.ipv6,
    };
    if !agrees(addresses, address[0], address[1], |set| {
        lists_address(set, a.address)
    }) {
        return Some("addresses");
    }
    if !agrees(&change.services, service[0], service[1], |set| {
        lists_service(set, a.protocol, a.port)
    }) {
        return Some("services");
    }
    if !agrees(&change.uids, uid[0], uid[1], |set| lists_uid(set, a.uid)) {
        return Some("uids");
    }
    None
}
