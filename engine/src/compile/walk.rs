//! Reads a line back from the pages of an image: all of it, where the decision looks for one key.

use std::collections::BTreeSet;

use engine_common::{
    image::{Dimension, Header, Location, PAGE_WORDS},
    interval_table::{Node, NodeKind},
};

use super::{
    Image,
    coverage::{LAST_PORT_KEY, LAST_PROTOCOL},
    entry::LineKey,
    interval_table::INDEX_BITS,
};

/// Keys that have one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section<K> {
    pub(super) start: K,
    pub(super) end: K,
    pub(super) class: Location,
}

/// What a line is made of.
#[derive(Debug)]
pub(super) struct Walk<K> {
    /// All keys, in order; neighbours of one class are one section.
    pub(super) sections: Vec<Section<K>>,
    /// Buckets of the index that are a class, a leaf, a directory.
    pub(super) buckets: [usize; 3],
    /// Pages that a search may touch, page 0 and bitmaps included only where nodes lie there.
    pub(super) pages: BTreeSet<usize>,
    /// Whether the walk stopped at something that is not in the image, or that a search would not
    /// read as it is meant.
    pub(super) broken: bool,
}

/// Walks a narrow line.
pub(super) fn narrow(image: &Image, line: Dimension) -> Walk<u32> {
    let last = match line {
        Dimension::Port => LAST_PORT_KEY,
        Dimension::ProtocolSome | Dimension::ProtocolEvery => LAST_PROTOCOL,
        Dimension::V4 | Dimension::V6 | Dimension::Uid | Dimension::Executable | Dimension::Unix => u32::MAX,
    };
    walk(image, line, last.count_ones(), last)
}

/// Walks a wide line.
pub(super) fn wide(image: &Image, line: Dimension) -> Walk<u128> {
    walk(image, line, 64, u128::MAX)
}

/// Walks a line whose last key is `last`. `key_bits` counts the bits of a narrow key, or of the
/// upper half of a wide one.
fn walk<K: LineKey>(image: &Image, line: Dimension, key_bits: u32, last: K) -> Walk<K> {
    let mut walk = Walk {
        sections: Vec::new(),
        buckets: [0; 3],
        pages: BTreeSet::new(),
        broken: false,
    };
    let header = Header(&image.pages()[0]);
    if line == Dimension::Unix && !header.has_unix_rules() {
        // There is none where no rule is about such sockets.
        return walk;
    }
    let root = header.interval_table(line);
    walk.broken = walk.node(image, root, key_bits, last).is_none();
    walk
}

impl<K: LineKey> Walk<K> {
    fn node(&mut self, image: &Image, node: Node, key_bits: u32, last: K) -> Option<()> {
        match node.kind() {
            NodeKind::Index => {
                let shift = node.extra();
                let bits = key_bits.checked_sub(shift)?;
                if !(INDEX_BITS.0..=INDEX_BITS.1).contains(&bits) {
                    return None; // no index of ours
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
        for (end, class) in entries_at::<K>(image, at, entries)? {
            // Entries of buckets before share the page, and so do those of buckets behind.
            if self.next().is_some_and(|next| end >= next) {
                self.push(end.min(last), Location(class));
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

    /// Whether all keys up to `last` have a section.
    fn reaches(&self, last: K) -> bool {
        self.sections.last().is_some_and(|section| section.end >= last)
    }

    /// First key that no section has yet.
    fn next(&self) -> Option<K> {
        match self.sections.last() {
            None => Some(K::from_bits(0)),
            Some(section) => section.end.next(),
        }
    }

    fn push(&mut self, end: K, class: Location) {
        let Some(start) = self.next().filter(|&start| start <= end) else {
            return;
        };
        match self.sections.last_mut() {
            Some(before) if before.class == class => before.end = end,
            _ => self.sections.push(Section { start, end, class }),
        }
    }
}

/// The entries of a leaf or directory: in one page, sorted by their ends.
fn entries_at<K: LineKey>(image: &Image, at: usize, count: usize) -> Option<impl Iterator<Item = (K, u32)>> {
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
