//! The differences as text, one line each.

use anstyle::{AnsiColor, Style};
use ipnet::IpNet;

use super::{
    addresses::Addresses,
    count::AddressCount,
    model::{Change, GainedLost, PolicyDiff, RuleChange, RuleSummary},
    selection::Selection,
};

/// Size of the IPv4 address space.
const EVERY_IPV4: u128 = 1 << 32;

impl PolicyDiff {
    /// The differences as text: one line for each rule added, removed and changed, then one for each
    /// setting. Has ANSI colours. Empty if nothing changes, otherwise ends with a line feed.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for rule in &self.added {
            let position = match &rule.next_rule {
                Some(before) => format!(" before {}", name(before)),
                None => String::new(),
            };
            text += &line(
                Sign::Added,
                &format!("{}{position}, {}", heading(rule), extent(rule)),
            );
        }
        for rule in &self.removed {
            text += &line(Sign::Removed, &format!("{}, {}", heading(rule), extent(rule)));
        }
        for rule in &self.changed {
            let parts = parts(rule).join("; ");
            text += &line(Sign::Changed, &format!("rule {}: {parts}", name(&rule.name)));
        }
        let settings = [
            ("default", &self.default),
            ("errno", &self.errno),
            ("mode", &self.mode),
        ];
        let settings = settings
            .into_iter()
            .filter_map(|(name, change)| Some((name, change.as_ref()?)));
        let others = self
            .other_settings
            .iter()
            .map(|setting| (setting.name, &setting.change));
        for (name, change) in settings.chain(others) {
            text += &line(Sign::Changed, &format!("{name}: {}", arrow(change)));
        }
        text
    }
}

#[derive(Clone, Copy)]
enum Sign {
    Added,
    Removed,
    Changed,
}

fn line(mark: Sign, text: &str) -> String {
    let (sign, colour) = match mark {
        Sign::Added => ('+', AnsiColor::Green),
        Sign::Removed => ('-', AnsiColor::Red),
        Sign::Changed => ('~', AnsiColor::Yellow),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("  {style}{sign}{style:#} {text}\n")
}

/// Valid names need no escaping, but these can come from a file that another program wrote.
fn name(name: &str) -> impl std::fmt::Display {
    name.escape_debug()
}

/// `rule builders (audit)`.
fn heading(rule: &RuleSummary) -> String {
    format!("rule {} ({})", name(&rule.name), rule.action.as_str())
}

/// `12 addresses, 2^64 IPv6 addresses`.
fn extent(rule: &RuleSummary) -> String {
    let is_every = rule.ipv4.exact() == Some(EVERY_IPV4) && rule.ipv6.exact().is_none();
    if is_every {
        return "every address".to_owned();
    }
    match (rule.ipv4.is_zero(), rule.ipv6.is_zero()) {
        // All other rules have addresses.
        (true, true) => "unix sockets".to_owned(),
        (_, true) => counted(rule.ipv4, Family::V4),
        (true, false) => counted(rule.ipv6, Family::V6),
        (false, false) => format!(
            "{}, {}",
            counted(rule.ipv4, Family::V4),
            counted(rule.ipv6, Family::V6)
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// `1 address`, `2^64 IPv6 addresses`, `every IPv4 address`.
fn counted(count: AddressCount, family: Family) -> String {
    let noun = match family {
        Family::V4 => "address",
        Family::V6 => "IPv6 address",
    };
    match (count.exact(), family) {
        (None, _) => "every IPv6 address".to_owned(),
        (Some(EVERY_IPV4), Family::V4) => "every IPv4 address".to_owned(),
        (Some(1), _) => format!("1 {noun}"),
        _ => format!("{count} {noun}es"),
    }
}

/// The changes of a rule, as phrases.
fn parts(rule: &RuleChange) -> Vec<String> {
    let mut parts = Vec::new();
    parts.extend(rule.action.as_ref().map(arrow));
    parts.extend(rule.moved.as_ref().map(|moved| match &moved.next_rule {
        Some(before) => format!("moved before {}", name(before)),
        None => "moved to the end".to_owned(),
    }));
    for (addresses, family) in [(&rule.ipv4, Family::V4), (&rule.ipv6, Family::V6)] {
        parts.extend(signed(addresses, |addresses| networks(addresses, family)));
    }
    parts.extend(signed(&rule.services, |services| selected("", services)));
    parts.extend(signed(&rule.uids, |uids| selected("uid ", uids)));
    if rule.executables_changed {
        parts.push("executables changed".to_owned());
    }
    if rule.unix_changed {
        parts.push("unix sockets changed".to_owned());
    }
    parts
}

/// `block -> kill`.
fn arrow(change: &Change) -> String {
    format!("{} -> {}", change.old, change.new)
}

/// What is gained, after a plus, and what is lost, after a minus. `text` returns `None` for nothing.
fn signed<T>(both: &GainedLost<T>, text: impl Fn(&T) -> Option<String>) -> impl Iterator<Item = String> {
    let gained = text(&both.gained).map(|text| format!("+{text}"));
    let lost = text(&both.lost).map(|text| format!("-{text}"));
    gained.into_iter().chain(lost)
}

/// `256 addresses 10.20.8.0/24`, `4,294,967,295 addresses, all but 10.20.9.7`.
fn networks(addresses: &Addresses, family: Family) -> Option<String> {
    if addresses.count.is_zero() {
        return None;
    }
    let mut text = counted(addresses.count, family);
    if !addresses.networks.is_empty() {
        let networks: Vec<String> = addresses.networks.iter().map(network).collect();
        text += if addresses.all_but { ", all but " } else { " " };
        text += &networks.join(", ");
        match addresses.omitted {
            0 => {}
            1 => text += " and 1 more network",
            more => text += &format!(" and {more} more networks"),
        }
    }
    Some(text)
}

/// A network; a single address without prefix length.
fn network(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        return network.addr().to_string();
    }
    network.to_string()
}

fn selected(what: &str, selection: &Selection) -> Option<String> {
    (!selection.is_empty()).then(|| format!("{what}{selection}"))
}
