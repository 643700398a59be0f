//! An image as text, read from its pages and not from the policy: what the kernel will see.

use std::{
    fmt::{Display, Write},
    net::{Ipv4Addr, Ipv6Addr},
};

use engine_common::{
    Action, Protocol,
    decide::rule_action,
    dedup::DedupWindows,
    image::{Dimension, Header, Location, RuleBitmap},
    interval_table::NodeKind,
    limits::MAX_NAT64_PREFIXES,
};

use super::{
    Image,
    entry::LineKey,
    walk::{self, Section, Walk},
};
use crate::policy::Errno;

/// Intervals printed of each line, where nothing else is asked for.
pub const DEFAULT_LIMIT: usize = 64;
/// Rules of one set that are printed.
const MOST_RULES: usize = 16;

/// The image as stable text. `rule_names` are the rules' names, in order; a rule without one is
/// printed by its number. Of each line at most `limit` intervals are printed.
pub fn dump(image: &Image, rule_names: &[&str], limit: usize) -> String {
    let dump = Dump {
        image,
        names: rule_names,
        limit,
        out: String::new(),
    };
    dump.print()
}

struct Dump<'a> {
    image: &'a Image,
    names: &'a [&'a str],
    limit: usize,
    out: String,
}

impl<'a> Dump<'a> {
    fn print(mut self) -> String {
        self.header();
        self.rules();
        self.traits();
        let image = self.image;
        self.line(
            Dimension::V4,
            "ipv4",
            32,
            walk::narrow(image, Dimension::V4),
            |key| Ipv4Addr::from(key).to_string(),
        );
        self.line(
            Dimension::V6,
            "ipv6",
            64,
            walk::wide(image, Dimension::V6),
            |key| Ipv6Addr::from(key).to_string(),
        );
        let service = |key: u32| format!("{}/{}", protocol(key >> 16), key & 0xffff);
        self.line(
            Dimension::Port,
            "port",
            25,
            walk::narrow(image, Dimension::Port),
            service,
        );
        let some = walk::narrow(image, Dimension::ProtocolSome);
        self.line(Dimension::ProtocolSome, "protocol, some port", 9, some, protocol);
        let every = walk::narrow(image, Dimension::ProtocolEvery);
        self.line(
            Dimension::ProtocolEvery,
            "protocol, every port",
            9,
            every,
            protocol,
        );
        let uid = walk::narrow(image, Dimension::Uid);
        self.line(Dimension::Uid, "uid", 32, uid, |key| key.to_string());
        let executable = walk::wide(image, Dimension::Executable);
        self.line(Dimension::Executable, "executable", 64, executable, |key| {
            format!("{:#x}:{}", key >> 64, key as u64)
        });
        if image.header().has_unix_rules() {
            let unix = walk::wide(image, Dimension::Unix);
            self.line(Dimension::Unix, "unix socket", 64, unix, |key| {
                format!("{:#x}:{:016x}", key >> 64, key as u64)
            });
        }
        self.out
    }

    fn say(&mut self, text: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.out, "{text}");
    }

    fn header(&mut self) {
        let header: Header<'a> = self.image.header();
        let life = header.revision();
        self.say(format_args!(
            "image: abi {}, {} pages, {} words a bitmap",
            header.abi_version(),
            header.page_count(),
            header.bitmap_words()
        ));
        self.say(format_args!(
            "policy: generation {}, mode {}, default {}, errno {}",
            life.generation,
            life.mode.as_str(),
            header.default_action().as_str(),
            errno(header.errno())
        ));
        let looks_at = match (header.needs_subject(), header.needs_executable()) {
            (false, false) => "nothing",
            (true, false) => "uid",
            (true, true) => "uid and executable",
            (false, true) => "executable alone, which no compiler writes",
        };
        self.say(format_args!("looks at the task: {looks_at}"));
        if header.is_strict() {
            self.say(format_args!("judges packets too (strict)"));
        }
        self.say(format_args!("counters: {}", place(header.counters())));
        let fold = header.dedup();
        if fold != DedupWindows::default() {
            self.say(format_args!(
                "folds repeats: audit {} ms, block {} ms, kill {} ms",
                fold.audit_ms, fold.block_ms, fold.kill_ms
            ));
        }
        let prefixes = (0..MAX_NAT64_PREFIXES).map(|i| header.nat64(i));
        for prefix in prefixes.filter(|prefix| prefix.length != 0) {
            let bits = u128::from(prefix.high) << 64 | u128::from(prefix.low);
            self.say(format_args!("nat64: {}/{}", Ipv6Addr::from(bits), prefix.length));
        }
    }

    fn rules(&mut self) {
        let count = self.image.rule_count() as usize;
        self.say(format_args!("rules: {count}"));
        for rule in 0..count {
            let action: Action = rule_action(&self.image.pages()[0], rule as u16);
            let line = format!("  {rule} {} {}", action.as_str(), self.name(rule));
            self.say(line);
        }
    }

    fn traits(&mut self) {
        self.say("traits:");
        for (of, label) in [
            (RuleBitmap::EveryV4, "every ipv4 destination"),
            (RuleBitmap::EveryAddress, "every destination"),
            (RuleBitmap::SomeV4, "some ipv4 destination"),
            (RuleBitmap::SomeAddress, "some destination"),
            (RuleBitmap::Every, "all rules"),
        ] {
            let line = format!("  {label}: {}", self.set(of.location()));
            self.say(line);
        }
    }

    fn line<K: LineKey>(
        &mut self,
        id: Dimension,
        label: &str,
        key_bits: u32,
        walk: Walk<K>,
        key: impl Fn(K) -> String,
    ) {
        let root = self.image.header().interval_table(id);
        let at = Location(root.page() * engine_common::image::PAGE_WORDS as u32 + root.word() as u32);
        let structure = match root.kind() {
            NodeKind::RuleSet => "one class".to_owned(),
            NodeKind::Leaf => format!("leaf of {} entries at {}", root.entries(), place(at)),
            NodeKind::Directory => format!(
                "directory of {} entries at {}, levels {}",
                root.entries(),
                place(at),
                root.extra()
            ),
            NodeKind::Index => {
                let [classes, leaves, directories] = walk.buckets;
                format!(
                    "index by {} bits at {}: {classes} classes, {leaves} leaves, {directories} directories",
                    key_bits.saturating_sub(root.extra()),
                    place(at)
                )
            }
        };
        self.say(format_args!(
            "{label}: {} intervals, {} pages; {structure}",
            walk.sections.len(),
            walk.pages.len()
        ));
        for Section { start, end, class } in walk.sections.iter().take(self.limit) {
            let range = if start == end {
                key(*start)
            } else {
                format!("{}-{}", key(*start), key(*end))
            };
            let line = format!("  {range} -> {}", self.set(*class));
            self.say(line);
        }
        if let Some(left @ 1..) = walk.sections.len().checked_sub(self.limit) {
            self.say(format_args!("  and {left} more"));
        }
        if walk.broken {
            self.say("  the rest is not in the image");
        }
    }

    /// The rules of the bitmap at a place.
    fn set(&self, at: Location) -> String {
        let first = at.0 as usize;
        let words = first..first + self.image.header().bitmap_words();
        let Some(bitmap) = self.image.words().get(words) else {
            return format!("no bitmap at {}", place(at));
        };
        let is_set = |rule: &usize| bitmap[rule / 64] >> (rule % 64) & 1 != 0;
        let rules: Vec<usize> = (0..bitmap.len() * 64).filter(is_set).collect();
        let mut names: Vec<String> = rules
            .iter()
            .take(MOST_RULES)
            .map(|&rule| self.name(rule))
            .collect();
        if let Some(left @ 1..) = rules.len().checked_sub(MOST_RULES) {
            names.push(format!("and {left} more"));
        }
        format!("{{{}}}", names.join(", "))
    }

    fn name(&self, rule: usize) -> String {
        match self.names.get(rule) {
            Some(name) => name.escape_debug().to_string(),
            None => format!("#{rule}"),
        }
    }
}

fn place(at: Location) -> String {
    format!("page {} word {}", at.page(), at.word())
}

/// The protocol as the policy language writes it; its number where it has no name.
pub(super) fn protocol(number: u32) -> String {
    let name = match Protocol(number as u16) {
        Protocol::ICMP => "icmp",
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::DCCP => "dccp",
        Protocol::ICMPV6 => "icmpv6",
        Protocol::SCTP => "sctp",
        Protocol::UDPLITE => "udplite",
        Protocol::MPTCP => "mptcp",
        Protocol::RAW => "raw",
        Protocol::UNIX => "unix",
        other => {
            let named = |family| {
                Protocol::FAMILY_NAMES
                    .iter()
                    .find(|(number, _)| *number == family)
            };
            return match other.family().map(|family| (family, named(family))) {
                Some((_, Some((_, name)))) => (*name).to_owned(),
                Some((family, None)) => format!("family {family}"),
                None => number.to_string(),
            };
        }
    };
    name.to_owned()
}

/// The errno by its name.
pub(super) fn errno(number: u16) -> String {
    match Errno::ALL.iter().find(|errno| errno.number() == number) {
        Some(errno) => errno.as_str().to_owned(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests;
