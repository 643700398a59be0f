//! Prints an image as text. Everything is read from the pages, as the kernel programs do.

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
    entry::TableKey,
    walk::{self, KeyRange, Walk},
};
use crate::policy::Errno;

/// Default number of intervals printed for each dimension.
pub const DEFAULT_LIMIT: usize = 64;
/// Maximum number of rule names printed for one rule set.
const MOST_RULES: usize = 16;

/// The image as text; equal images give equal text. `rule_names` are the names of the rules, in order; a
/// rule without one is printed as its index, `#3`. At most `limit` intervals of each dimension are printed.
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
        self.bitmaps();
        let image = self.image;
        self.table(
            Dimension::V4,
            "ipv4",
            32,
            walk::walk_u32(image, Dimension::V4),
            |key| Ipv4Addr::from(key).to_string(),
        );
        self.table(
            Dimension::V6,
            "ipv6",
            64,
            walk::walk_u128(image, Dimension::V6),
            |key| Ipv6Addr::from(key).to_string(),
        );
        let protocol = |key: u32| Protocol(key as u16).to_string();
        let service = |key: u32| format!("{}/{}", Protocol((key >> 16) as u16), key & 0xffff);
        self.table(
            Dimension::Port,
            "port",
            25,
            walk::walk_u32(image, Dimension::Port),
            service,
        );
        let some = walk::walk_u32(image, Dimension::ProtocolSome);
        self.table(Dimension::ProtocolSome, "protocol, some port", 9, some, protocol);
        let every = walk::walk_u32(image, Dimension::ProtocolEvery);
        self.table(
            Dimension::ProtocolEvery,
            "protocol, every port",
            9,
            every,
            protocol,
        );
        let uid = walk::walk_u32(image, Dimension::Uid);
        self.table(Dimension::Uid, "uid", 32, uid, |key| key.to_string());
        let executable = walk::walk_u128(image, Dimension::Executable);
        self.table(Dimension::Executable, "executable", 64, executable, |key| {
            format!("{:#x}:{}", key >> 64, key as u64)
        });
        if image.header().has_unix_rules() {
            let unix = walk::walk_u128(image, Dimension::Unix);
            self.table(Dimension::Unix, "unix socket", 64, unix, |key| {
                format!("{:#x}:{:016x}", key >> 64, key as u64)
            });
        }
        self.out
    }

    fn write_line(&mut self, text: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{text}");
    }

    fn header(&mut self) {
        let header: Header<'a> = self.image.header();
        let revision = header.revision();
        self.write_line(format_args!(
            "image: abi {}, {} pages, {} words per bitmap",
            header.abi_version(),
            header.page_count(),
            header.bitmap_words()
        ));
        self.write_line(format_args!(
            "policy: generation {}, mode {}, default {}, errno {}",
            revision.generation,
            revision.mode.as_str(),
            header.default_action().as_str(),
            errno(header.errno())
        ));
        let subject = match (header.needs_subject(), header.needs_executable()) {
            (false, false) => "none",
            (true, false) => "uid",
            (true, true) => "uid and executable",
            (false, true) => "executable only (invalid)",
        };
        self.write_line(format_args!("subject selectors: {subject}"));
        if header.is_strict() {
            self.write_line(format_args!("strict: packets are checked too"));
        }
        self.write_line(format_args!("counters: {}", position(header.counters())));
        let windows = header.dedup();
        if windows != DedupWindows::default() {
            self.write_line(format_args!(
                "deduplicate: audit {} ms, block {} ms, kill {} ms",
                windows.audit_ms, windows.block_ms, windows.kill_ms
            ));
        }
        let prefixes = (0..MAX_NAT64_PREFIXES).map(|i| header.nat64(i));
        for prefix in prefixes.filter(|prefix| prefix.length != 0) {
            let bits = u128::from(prefix.high) << 64 | u128::from(prefix.low);
            self.write_line(format_args!("nat64: {}/{}", Ipv6Addr::from(bits), prefix.length));
        }
    }

    fn rules(&mut self) {
        let count = self.image.rule_count() as usize;
        self.write_line(format_args!("rules: {count}"));
        for rule in 0..count {
            let action: Action = rule_action(&self.image.pages()[0], rule as u16);
            let line = format!("  {rule} {} {}", action.as_str(), self.name(rule));
            self.write_line(line);
        }
    }

    fn bitmaps(&mut self) {
        self.write_line("rule bitmaps:");
        for (bitmap, label) in [
            (RuleBitmap::EveryV4, "every ipv4 destination"),
            (RuleBitmap::EveryAddress, "every destination"),
            (RuleBitmap::SomeV4, "some ipv4 destination"),
            (RuleBitmap::SomeAddress, "some destination"),
            (RuleBitmap::Every, "all rules"),
        ] {
            let line = format!("  {label}: {}", self.rules_at(bitmap.location()));
            self.write_line(line);
        }
    }

    fn table<K: TableKey>(
        &mut self,
        dimension: Dimension,
        label: &str,
        key_bits: u32,
        walk: Walk<K>,
        key: impl Fn(K) -> String,
    ) {
        let root = self.image.header().interval_table(dimension);
        let at = Location(root.page() * engine_common::image::PAGE_WORDS as u32 + root.word() as u32);
        let structure = match root.kind() {
            NodeKind::RuleSet => "one rule set".to_owned(),
            NodeKind::Leaf => format!("leaf of {} entries at {}", root.entries(), position(at)),
            NodeKind::Directory => format!(
                "directory of {} entries at {}, levels {}",
                root.entries(),
                position(at),
                root.extra()
            ),
            NodeKind::Index => {
                let [rule_sets, leaves, directories] = walk.buckets;
                format!(
                    "index by {} bits at {}: {rule_sets} rule sets, {leaves} leaves, {directories} directories",
                    key_bits.saturating_sub(root.extra()),
                    position(at)
                )
            }
        };
        self.write_line(format_args!(
            "{label}: {} intervals, {} pages; {structure}",
            walk.ranges.len(),
            walk.pages.len()
        ));
        for KeyRange { start, end, bitmap } in walk.ranges.iter().take(self.limit) {
            let range = if start == end {
                key(*start)
            } else {
                format!("{}-{}", key(*start), key(*end))
            };
            let line = format!("  {range} -> {}", self.rules_at(*bitmap));
            self.write_line(line);
        }
        if let Some(left @ 1..) = walk.ranges.len().checked_sub(self.limit) {
            self.write_line(format_args!("  and {left} more"));
        }
        if walk.broken {
            self.write_line("  truncated: the table is corrupt");
        }
    }

    /// The names of the rules in the bitmap at a location.
    fn rules_at(&self, at: Location) -> String {
        let first = at.0 as usize;
        let words = first..first + self.image.header().bitmap_words();
        let Some(bitmap) = self.image.words().get(words) else {
            return format!("corrupt: no bitmap at {}", position(at));
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

fn position(at: Location) -> String {
    format!("page {} word {}", at.page(), at.word())
}

/// The name of an errno, or its value if policies cannot name it.
pub(super) fn errno(number: u16) -> String {
    match Errno::ALL.iter().find(|errno| errno.number() == number) {
        Some(errno) => errno.as_str().to_owned(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests;
