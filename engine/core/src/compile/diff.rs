//! The changes between two compiled images, as data and as text. Everything is read from the pages,
//! because of an attached policy only the image and the rule names are available.
//!
//! ```text
//! rule names of both -> one slot per rule name (pairing) -> tables of both, merged (merge)
//!                    -> addresses, services and uids gained and lost (addresses, selection) -> PolicyDiff
//! ```

mod addresses;
mod count;
mod merge;
mod model;
mod order;
mod pairing;
mod render;
mod selection;

use engine_common::{
    decide::rule_action,
    image::{Dimension, Header},
    limits::MAX_NAT64_PREFIXES,
};

use self::{
    addresses::collect_addresses,
    merge::{CoverageChange, compare},
    order::out_of_order,
    pairing::Pairing,
    selection::{services, uids},
};
use super::{
    Image,
    dump::errno,
    walk::{self, Walk},
};

pub use addresses::Addresses;
pub use count::AddressCount;
pub use model::{Change, GainedLost, PolicyDiff, RuleChange, RuleMove, RuleSummary, SettingChange};
pub use selection::Selection;

/// Default number of networks, ports or user ids listed for each change.
pub const DEFAULT_LIMIT: usize = 8;

/// An image with the names of its rules.
#[derive(Clone, Copy, Debug)]
pub struct NamedImage<'a> {
    /// The compiled policy.
    pub image: &'a Image,
    /// The names of the rules, in order. A rule without one is named by its index, `#3`.
    pub rules: &'a [String],
}

/// The changes from `old` to `new`, with at most [`DEFAULT_LIMIT`] items listed of each kind.
pub fn diff(old: &NamedImage<'_>, new: &NamedImage<'_>) -> PolicyDiff {
    diff_up_to(old, new, DEFAULT_LIMIT)
}

/// The changes from `old` to `new`, with at most `limit` networks, ports or user ids listed of each kind.
/// Counts are always exact.
pub fn diff_up_to(old: &NamedImage<'_>, new: &NamedImage<'_>, limit: usize) -> PolicyDiff {
    let pairing = Pairing::of(old, new);
    let (old, new) = (old.image, new.image);
    let both = (old, new);
    let walks_u32 = |dimension| (walk::walk_u32(old, dimension), walk::walk_u32(new, dimension));
    let walks_u128 = |dimension| (walk::walk_u128(old, dimension), walk::walk_u128(new, dimension));

    let ipv4 = collect_addresses(&pairing, both, &walks_u32(Dimension::V4), limit);
    let ipv6 = collect_addresses(&pairing, both, &walks_u128(Dimension::V6), limit);
    // The protocol dimensions follow from the port dimension.
    let ports = collect_ranges(&pairing, both, &walks_u32(Dimension::Port));
    let users = collect_ranges(&pairing, both, &walks_u32(Dimension::Uid));
    let mut executables_changed = vec![false; pairing.slots()];
    compare(
        &pairing,
        both,
        &walks_u128(Dimension::Executable),
        |slot, _, _, _| {
            executables_changed[slot] = true;
        },
    );

    let mut unix_changed = vec![false; pairing.slots()];
    compare(&pairing, both, &walks_u128(Dimension::Unix), |slot, _, _, _| {
        unix_changed[slot] = true;
    });

    let action = |image: &Image, rule: usize| rule_action(&image.pages()[0], rule as u16);
    let summary =
        |rule: usize, slot: usize, names: &[String], image: &Image, change: CoverageChange| RuleSummary {
            name: names[rule].clone(),
            action: action(image, rule),
            position: rule + 1,
            next_rule: names.get(rule + 1).cloned(),
            ipv4: ipv4[slot].of(change).count,
            ipv6: ipv6[slot].of(change).count,
        };
    let common = pairing.common();
    let moved = out_of_order(&common.iter().map(|rule| rule.old).collect::<Vec<_>>());
    let changed = common.iter().zip(moved).map(|(rule, moved)| {
        let slot = rule.slot;
        let (before, now) = (action(old, rule.old), action(new, rule.new));
        RuleChange {
            name: pairing.new_names[rule.new].clone(),
            action: (before != now).then(|| Change::of(before.as_str(), now.as_str())),
            moved: moved.then(|| RuleMove {
                from: rule.old + 1,
                to: rule.new + 1,
                next_rule: pairing.new_names.get(rule.new + 1).cloned(),
            }),
            ipv4: ipv4[slot].clone(),
            ipv6: ipv6[slot].clone(),
            services: ports[slot].map(|ranges| services(ranges, limit)),
            uids: users[slot].map(|ranges| uids(ranges, limit)),
            executables_changed: executables_changed[slot],
            unix_changed: unix_changed[slot],
        }
    });
    PolicyDiff {
        changed: changed.filter(|change| !change.is_empty()).collect(),
        added: pairing
            .added()
            .map(|(rule, slot)| summary(rule, slot, &pairing.new_names, new, CoverageChange::Gained))
            .collect(),
        removed: pairing
            .removed()
            .map(|(rule, slot)| summary(rule, slot, &pairing.old_names, old, CoverageChange::Lost))
            .collect(),
        ..settings(old.header(), new.header())
    }
}

/// The ranges that each rule gains and loses in a dimension with u32 keys, by slot.
fn collect_ranges(
    pairing: &Pairing,
    images: (&Image, &Image),
    walks: &(Walk<u32>, Walk<u32>),
) -> Vec<GainedLost<Vec<(u32, u32)>>> {
    let mut of = vec![GainedLost::<Vec<(u32, u32)>>::default(); pairing.slots()];
    compare(pairing, images, walks, |slot, change, start, end| {
        of[slot].of_mut(change).push((start, end));
    });
    of
}

/// The settings that differ between two headers. Generation, counters and locations are ignored.
fn settings(old: Header<'_>, new: Header<'_>) -> PolicyDiff {
    let change = |old: String, new: String| (old != new).then(|| Change::of(&old, &new));
    let of_both = |text: fn(Header<'_>) -> String| change(text(old), text(new));
    let named = |name, text| of_both(text).map(|change| SettingChange { name, change });
    let others = [
        named("nat64", nat64_prefixes),
        named("deduplicate", dedup_windows),
        named("strict", |header| header.is_strict().to_string()),
    ];
    PolicyDiff {
        default: of_both(|header| header.default_action().as_str().to_owned()),
        errno: of_both(|header| errno(header.errno())),
        mode: of_both(|header| header.revision().mode.as_str().to_owned()),
        other_settings: others.into_iter().flatten().collect(),
        ..PolicyDiff::default()
    }
}

/// The windows of event deduplication, in policy syntax.
fn dedup_windows(header: Header<'_>) -> String {
    let windows = header.dedup();
    let window = |ms: u32| match ms {
        0 => "off".to_owned(),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    };
    format!(
        "audit {}, block {}, kill {}",
        window(windows.audit_ms),
        window(windows.block_ms),
        window(windows.kill_ms)
    )
}

/// The NAT64 prefixes of the policy, in order: if two overlap, the first one applies.
fn nat64_prefixes(header: Header<'_>) -> String {
    let prefixes = (0..MAX_NAT64_PREFIXES).map(|i| header.nat64(i));
    let texts: Vec<String> = prefixes
        .filter(|prefix| prefix.length != 0)
        .map(|prefix| {
            let bits = u128::from(prefix.high) << 64 | u128::from(prefix.low);
            format!("{}/{}", std::net::Ipv6Addr::from(bits), prefix.length)
        })
        .collect();
    if texts.is_empty() {
        return "none".to_owned();
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests;
