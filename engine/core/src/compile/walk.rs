//! Reads a complete interval table from the pages of an image, where an evaluation looks up one key.

use std::collections::BTreeSet;

use engine_common::{
    image::{Dimension, Header, Location, PAGE_WORDS},
    interval_table::{Node, NodeKind},
};

use super::{
    Image,
    entry::TableKey,
    interval_table::INDEX_BITS,
    key_ranges::{LAST_PORT_KEY, LAST_PROTOCOL},
};

/// A range of keys with the same rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyRange<K> {
    pub(super) start: K,
    /// Last key, inclusive.
    pub(super) end: K,
    /// Location of the rule bitmap.
    pub(super) bitmap: Location,
}

/// The content of an interval table.
#[derive(Debug)]
pub(super) struct Walk<K> {
    /// All keys, in order. Adjacent ranges with the same bitmap are merged.
    pub(super) ranges: Vec<KeyRange<K>>,
    /// Number of index buckets that are a rule set, a leaf, a directory.
    pub(super) buckets: [usize; 3],
    /// Pages that hold nodes of the table.
    pub(super) pages: BTreeSet<usize>,
    /// Whether a node points outside the image or is malformed.
    pub(super) broken: bool,
}

/// Reads a table with u32 keys.
pub(super) fn walk_u32(image: &Image, dimension: Dimension) -> Walk<u32> {
    let last = match dimension {
        Dimension::Port => LAST_PORT_KEY,
        Dimension::ProtocolSome | Dimension::ProtocolEvery => LAST_PROTOCOL,
        Dimension::V4 | Dimension::V6 | Dimension::Uid | Dimension::Executable | Dimension::Unix => u32::MAX,
    };
    walk(image, dimension, last.count_ones(), last)
}

/// Reads a table with u128 keys.
pub(super) fn walk_u128(image: &Image, dimension: Dimension) -> Walk<u128> {
    walk(image, dimension, 64, u128::MAX)
}

/// Reads a table whose last key is `last`. `key_bits` is the number of bits of a u32 key, or of the
/// upper half of a u128 key.
fn walk<K: TableKey>(image: &Image, dimension: Dimension, key_bits: u32, last: K) -> Walk<K> {
    let mut walk = Walk {
        ranges: Vec::new(),
        buckets: [0; 3],
        pages: BTreeSet::new(),
        broken: false,
    };
    let header = Header(&image.pages()[0]);
    if dimension == Dimension::Unix && !header.has_unix_rules() {
        // The table exists only if a rule selects unix sockets.
        return walk;
    }
    let root = header.interval_table(dimension);
    walk.broken = walk.node(image, root, key_bits, last).is_none();
    walk
}

impl<K: TableKey> Walk<K> {
    fn node(&mut self, image: &Image, node: Node, key_bits: u32, last: K) -> Option<()> {
        match node.kind() {
            NodeKind::Index => {
                let shift = node.extra();
                let bits = key_bits.checked_sub(shift)?;
                if !(INDEX_BITS.0..=INDEX_BITS.1).contains(&bits) {
                    return None; // the compiler writes no such index
                }
                let low = shift + K::LOW_BITS;
                let first = node.page() as usize * PAGE_WORDS + node.word();
                for bucket in 0..1usize << bits {
                    let below = Node(*image.words().get(first + bucket)?);
                    self.pages.insert((first + bucket) / PAGE_WORDS);
                    let end = K::from_bits((bucket as u128) << low | ((1 << low) - 1));
                    let kind = match below.kind() {
                        NodeKind::RuleSet => 0,
                        NodeKind::Leaf => 1,
                        NodeKind::Directory => 2,
                        NodeKind::Index => return None,
                    };
                    self.buckets[kind] += 1;
                    self.node(image, below, key_bits, end)?;
                }
                Some(())
            }
            NodeKind::RuleSet => {
                self.push(last, Location(node.page()));
                Some(())
            }
            NodeKind::Leaf => {
                let at = node.page() as usize * PAGE_WORDS + node.word();
                self.leaf(image, at, node.entries(), last)
            }
            NodeKind::Directory => {
                let at = node.page() as usize * PAGE_WORDS + node.word();
                self.directory(image, at, node.entries(), node.extra(), last)
            }
        }
    }

    fn leaf(&mut self, image: &Image, at: usize, entries: usize, last: K) -> Option<()> {
        self.pages.insert(at / PAGE_WORDS);
        for (end, bitmap) in entries_at::<K>(image, at, entries)? {
            // The page can also hold entries of the buckets before and after.
            if self.next().is_some_and(|next| end >= next) {
                self.push(end.min(last), Location(bitmap));
            }
        }
        self.reaches(last).then_some(())
    }

    fn directory(&mut self, image: &Image, at: usize, entries: usize, levels: u32, last: K) -> Option<()> {
        if !(1..=K::LEVELS).contains(&levels) {
            return None;
        }
        self.pages.insert(at / PAGE_WORDS);
        for (end, page) in entries_at::<K>(image, at, entries)? {
            if self.reaches(last) {
                break;
            }
            if self.next().is_none_or(|next| end < next) {
                continue; // padding
            }
            let below = page as usize * PAGE_WORDS;
            if levels > 1 {
                self.directory(image, below, K::FANOUT, levels - 1, last.min(end))?;
            } else {
                self.leaf(image, below, K::FANOUT, last.min(end))?;
            }
        }
        self.reaches(last).then_some(())
    }

    /// Whether all keys up to `last` were read.
    fn reaches(&self, last: K) -> bool {
        self.ranges.last().is_some_and(|range| range.end >= last)
    }

    /// First key that was not read yet.
    fn next(&self) -> Option<K> {
        match self.ranges.last() {
            None => Some(K::from_bits(0)),
            Some(range) => range.end.next(),
        }
    }

    fn push(&mut self, end: K, bitmap: Location) {
        let Some(start) = self.next().filter(|&start| start <= end) else {
            return;
        };
        match self.ranges.last_mut() {
            Some(before) if before.bitmap == bitmap => before.end = end,
            _ => self.ranges.push(KeyRange { start, end, bitmap }),
        }
    }
}

/// The entries of a leaf or directory; `None` unless they are in one page and sorted by end.
fn entries_at<K: TableKey>(image: &Image, at: usize, count: usize) -> Option<impl Iterator<Item = (K, u32)>> {
    if at % PAGE_WORDS + count * K::ENTRY_WORDS > PAGE_WORDS {
        return None;
    }
    let words = image.words().get(at..at + count * K::ENTRY_WORDS)?;
    let entries = words.chunks_exact(K::ENTRY_WORDS).map(K::take);
    entries
        .clone()
        .is_sorted_by_key(|(end, _)| end)
        .then_some(entries)
}
