//! What changes from one compiled image to another, as data and as text. Everything is read from
//! the pages: the live policy is nothing but its image and the names of its rules.
//!
//! ```text
//! names of both -> one slot a rule (pairing) -> lines of both, merged (merge)
//!               -> addresses, services and uids gained and lost (addresses, selection) -> PolicyDiff
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
    addresses::gathered,
    merge::{Fate, compare},
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
pub use count::Count;
pub use model::{Both, Change, Moved, PolicyDiff, RuleChange, RuleSummary, SettingChange};
pub use selection::Selection;

/// Networks, ports or user ids listed of each kind, where nothing else is asked for.
pub const DEFAULT_LIMIT: usize = 8;

/// An image with the names of its rules.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The image.
    pub image: &'a Image,
    /// The rules' names, in the rules' order. A rule without one is named by its number, `#3`.
    pub rules: &'a [String],
}

/// What changes from `old` to `new`.
pub fn diff(old: &Side<'_>, new: &Side<'_>) -> PolicyDiff {
    diff_up_to(old, new, DEFAULT_LIMIT)
}

/// The same, with at most `limit` networks, ports or user ids listed of each kind. Counts are exact
/// whatever the limit.
pub fn diff_up_to(old: &Side<'_>, new: &Side<'_>, limit: usize) -> PolicyDiff {
    let pairing = Pairing::of(old, new);
    let (old, new) = (old.image, new.image);
    let both = (old, new);
    let narrow = |line| (walk::narrow(old, line), walk::narrow(new, line));
    let wide = |line| (walk::wide(old, line), walk::wide(new, line));

    let ipv4 = gathered(&pairing, both, &narrow(Dimension::V4), limit);
    let ipv6 = gathered(&pairing, both, &wide(Dimension::V6), limit);
    // The lines by protocol alone follow from this one.
    let ports = keys(&pairing, both, &narrow(Dimension::Port));
    let users = keys(&pairing, both, &narrow(Dimension::Uid));
    let mut other_executables = vec![false; pairing.slots()];
    compare(&pairing, both, &wide(Dimension::Executable), |slot, _, _, _| {
        other_executables[slot] = true;
    });

    let mut other_sockets = vec![false; pairing.slots()];
    compare(&pairing, both, &wide(Dimension::Unix), |slot, _, _, _| {
        other_sockets[slot] = true;
    });

    let action = |image: &Image, rule: usize| rule_action(&image.pages()[0], rule as u16);
    let summary = |rule: usize, slot: usize, names: &[String], image: &Image, fate: Fate| RuleSummary {
        name: names[rule].clone(),
        action: action(image, rule),
        position: rule + 1,
        before: names.get(rule + 1).cloned(),
        ipv4: ipv4[slot].of(fate).count,
        ipv6: ipv6[slot].of(fate).count,
    };
    let kept = pairing.kept();
    let moved = out_of_order(&kept.iter().map(|kept| kept.old).collect::<Vec<_>>());
    let changed = kept.iter().zip(moved).map(|(kept, moved)| {
        let slot = kept.slot;
        let (before, now) = (action(old, kept.old), action(new, kept.new));
        RuleChange {
            name: pairing.new_names[kept.new].clone(),
            action: (before != now).then(|| Change::of(before.as_str(), now.as_str())),
            moved: moved.then(|| Moved {
                from: kept.old + 1,
                to: kept.new + 1,
                before: pairing.new_names.get(kept.new + 1).cloned(),
            }),
            ipv4: ipv4[slot].clone(),
            ipv6: ipv6[slot].clone(),
            services: ports[slot].map(|ranges| services(ranges, limit)),
            uids: users[slot].map(|ranges| uids(ranges, limit)),
            executables_changed: other_executables[slot],
            unix_changed: other_sockets[slot],
        }
    });
    PolicyDiff {
        changed: changed.filter(|change| !change.is_empty()).collect(),
        added: pairing
            .added()
            .map(|(rule, slot)| summary(rule, slot, &pairing.new_names, new, Fate::Gained))
            .collect(),
        removed: pairing
            .removed()
            .map(|(rule, slot)| summary(rule, slot, &pairing.old_names, old, Fate::Lost))
            .collect(),
        ..settings(old.header(), new.header())
    }
}

/// Ranges that each rule gains and loses on a narrow line, by slot.
fn keys(
    pairing: &Pairing,
    images: (&Image, &Image),
    walks: &(Walk<u32>, Walk<u32>),
) -> Vec<Both<Vec<(u32, u32)>>> {
    let mut of = vec![Both::<Vec<(u32, u32)>>::default(); pairing.slots()];
    compare(pairing, images, walks, |slot, fate, start, end| {
        of[slot].of_mut(fate).push((start, end));
    });
    of
}

/// What headers differ in; generation, counters and all that is about places are no difference.
fn settings(old: Header<'_>, new: Header<'_>) -> PolicyDiff {
    let change = |old: String, new: String| (old != new).then(|| Change::of(&old, &new));
    let of_both = |text: fn(Header<'_>) -> String| change(text(old), text(new));
    let named = |name, text| of_both(text).map(|change| SettingChange { name, change });
    let others = [
        named("nat64", nat64_prefixes),
        named("fold", dedup_windows),
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

/// Windows within which repeats are folded.
fn dedup_windows(header: Header<'_>) -> String {
    let fold = header.dedup();
    let window = |ms: u32| match ms {
        0 => "off".to_owned(),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    };
    format!(
        "audit {}, block {}, kill {}",
        window(fold.audit_ms),
        window(fold.block_ms),
        window(fold.kill_ms)
    )
}

/// The policy's own NAT64 prefixes, in their order: of two that overlap the first counts.
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
