//! Writes the intervals of one dimension into the image as a search tree.
//!
//! The root is chosen to minimize page look-ups: a single rule set; a leaf; an index, if most buckets
//! of the index then fit into one leaf; a directory otherwise.

use engine_common::{
    image::{Dimension, Location, PAGE_WORDS},
    interval_table::Node,
};

use super::{
    CompileError,
    entry::TableKey,
    interval::Interval,
    page_arena::{PageArena, location},
    rule_set::RuleSetId,
};

/// Minimum and maximum number of key bits that an index uses.
pub(super) const INDEX_BITS: (u32, u32) = (6, 16);

/// The kind of a table's root node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    RuleSet,
    Leaf,
    Directory,
    /// Indexed by this many upper bits of the key.
    Index(u32),
}

/// The intervals of one dimension and the layout chosen for them.
#[derive(Debug)]
pub(super) struct IntervalTable<K> {
    dimension: Dimension,
    intervals: Vec<Interval<K>>,
    /// Bits of a u32 key, or of the upper half of a u128 key.
    key_bits: u32,
    root: Root,
}

impl<K: TableKey> IntervalTable<K> {
    /// Chooses a root for the intervals, which cover all keys of the dimension. `key_bits` is the
    /// number of bits of a u32 key, or of the upper half of a u128 key.
    pub(super) fn plan(dimension: Dimension, key_bits: u32, intervals: Vec<Interval<K>>) -> IntervalTable<K> {
        let root = choose(dimension, key_bits, &intervals);
        IntervalTable {
            dimension,
            intervals,
            key_bits,
            root,
        }
    }

    fn bucket_shift(&self, index_bits: u32) -> u32 {
        self.key_bits - index_bits
    }

    fn write_index(
        &self,
        arena: &mut PageArena,
        at: Location,
        index_bits: u32,
        bitmaps: &[Location],
    ) -> Result<Node, CompileError> {
        let shift = self.bucket_shift(index_bits);
        let low = shift + K::LOW_BITS;
        let mut full = FullPages::default();
        let mut rest = &self.intervals[..];
        for bucket in 0..1usize << index_bits {
            let last = K::from_bits((bucket as u128) << low | ((1 << low) - 1));
            let reach = rest.partition_point(|interval| interval.end < last);
            let node = if reach == 0 {
                Node::rule_set(bitmap_location(bitmaps, rest[0].rule_set))
            } else {
                let entries = Entries {
                    intervals: &rest[..=reach],
                    last,
                    bitmaps,
                };
                self.write_bucket(arena, &entries, &mut full)?
            };
            arena.words_mut(Location(at.0 + bucket as u32), 1)[0] = node.0;
            // An interval that continues in the next bucket gets an entry there too.
            let done = if rest[reach].end == last { reach + 1 } else { reach };
            rest = &rest[done..];
        }
        full.finish::<K>(arena);
        Ok(Node::index(at, shift))
    }

    fn write_bucket(
        &self,
        arena: &mut PageArena,
        entries: &Entries<'_, K>,
        full: &mut FullPages,
    ) -> Result<Node, CompileError> {
        let count = entries.intervals.len();
        if count <= K::FANOUT {
            let at = arena.allocate(count * K::ENTRY_WORDS)?;
            entries.write(arena, at);
            return Ok(Node::leaf(at, count));
        }
        let directory = self.directory(arena, entries, full)?;
        let at = arena.allocate(directory.entries.len() * K::ENTRY_WORDS)?;
        Ok(directory.write(arena, at))
    }

    /// Writes the leaves of a directory, and its inner pages.
    fn directory(
        &self,
        arena: &mut PageArena,
        entries: &Entries<'_, K>,
        full: &mut FullPages,
    ) -> Result<Directory<K>, CompileError> {
        let mut directory = Directory {
            entries: full.append(arena, entries)?,
            levels: 1,
        };
        while directory.entries.len() > K::FANOUT && directory.levels < K::LEVELS {
            let mut above = Vec::new();
            for chunk in directory.entries.chunks(K::FANOUT) {
                let page = arena.allocate_pages(1)?;
                put_all(arena, location(page, 0), chunk);
                pad::<K>(arena, page, chunk.len());
                above.push((chunk[chunk.len() - 1].0, page as u32));
            }
            directory = Directory {
                entries: above,
                levels: directory.levels + 1,
            };
        }
        if directory.entries.len() > K::FANOUT {
            return Err(CompileError::TooManyIntervals {
                dimension: self.dimension,
                intervals: entries.intervals.len(),
            });
        }
        Ok(directory)
    }
}

fn choose<K: TableKey>(dimension: Dimension, key_bits: u32, intervals: &[Interval<K>]) -> Root {
    let count = intervals.len();
    if count == 1 {
        return Root::RuleSet;
    }
    if count <= K::FEW {
        return Root::Leaf;
    }
    let flat = K::FANOUT.pow(1 + K::LEVELS);
    // The upper bits of these keys are device ids: few distinct values, so an index cannot separate the keys.
    if !matches!(dimension, Dimension::Executable | Dimension::Unix) {
        let bits = (count.ilog2() - 1).clamp(INDEX_BITS.0, INDEX_BITS.1);
        if count > flat || 2 * in_small_buckets(intervals, key_bits - bits) >= count {
            return Root::Index(bits);
        }
    }
    if count <= K::FANOUT {
        Root::Leaf
    } else {
        Root::Directory
    }
}

/// Number of intervals that end in buckets which fit into one leaf and hold at most half of all intervals.
fn in_small_buckets<K: TableKey>(intervals: &[Interval<K>], shift: u32) -> usize {
    let small = (intervals.len() / 2).min(K::FANOUT);
    let bucket = |interval: &Interval<K>| interval.end.into() >> K::LOW_BITS >> shift;
    intervals
        .chunk_by(|a, b| bucket(a) == bucket(b))
        .map(<[_]>::len)
        .filter(|&count| count <= small)
        .sum()
}

/// An interval table with keys of either width.
pub(super) trait DimensionTable {
    /// The dimension that the table is for.
    fn dimension(&self) -> Dimension;

    /// Words of the root object; 0 if the root is a rule set.
    fn root_words(&self) -> usize;

    /// Adds the number of intervals of each rule set to `uses`.
    fn count_rule_sets(&self, uses: &mut [u32]);

    /// Writes the table with its root object at `at`. `bitmaps` has the location of each rule set's bitmap.
    fn write(&self, arena: &mut PageArena, at: Location, bitmaps: &[Location]) -> Result<Node, CompileError>;
}

impl<K: TableKey> DimensionTable for IntervalTable<K> {
    fn dimension(&self) -> Dimension {
        self.dimension
    }

    fn root_words(&self) -> usize {
        let count = self.intervals.len();
        match self.root {
            Root::RuleSet => 0,
            Root::Leaf => count * K::ENTRY_WORDS,
            Root::Index(bits) => 1 << bits,
            Root::Directory => {
                let mut entries = count.div_ceil(K::FANOUT);
                if entries > K::FANOUT {
                    entries = entries.div_ceil(K::FANOUT);
                }
                entries * K::ENTRY_WORDS
            }
        }
    }

    fn count_rule_sets(&self, uses: &mut [u32]) {
        for interval in &self.intervals {
            uses[interval.rule_set.0 as usize] += 1;
        }
    }

    fn write(&self, arena: &mut PageArena, at: Location, bitmaps: &[Location]) -> Result<Node, CompileError> {
        let all = Entries {
            intervals: &self.intervals,
            last: self.intervals[self.intervals.len() - 1].end,
            bitmaps,
        };
        match self.root {
            Root::RuleSet => Ok(Node::rule_set(bitmap_location(
                bitmaps,
                self.intervals[0].rule_set,
            ))),
            Root::Leaf => {
                all.write(arena, at);
                Ok(Node::leaf(at, self.intervals.len()))
            }
            Root::Directory => {
                let mut full = FullPages::default();
                let directory = self.directory(arena, &all, &mut full)?;
                full.finish::<K>(arena);
                Ok(directory.write(arena, at))
            }
            Root::Index(bits) => self.write_index(arena, at, bits, bitmaps),
        }
    }
}

/// The entries of one bucket. The last interval is truncated at the end of the bucket.
struct Entries<'a, K> {
    intervals: &'a [Interval<K>],
    last: K,
    bitmaps: &'a [Location],
}

impl<K: TableKey> Entries<'_, K> {
    fn iter(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.intervals.iter().map(|interval| {
            (
                interval.end.min(self.last),
                bitmap_location(self.bitmaps, interval.rule_set).0,
            )
        })
    }

    fn write(&self, arena: &mut PageArena, at: Location) {
        let words = arena.words_mut(at, self.intervals.len() * K::ENTRY_WORDS);
        for (entry, (end, value)) in words.chunks_exact_mut(K::ENTRY_WORDS).zip(self.iter()) {
            end.put(value, entry);
        }
    }
}

/// Entries that point to full pages.
struct Directory<K> {
    entries: Vec<(K, u32)>,
    levels: u32,
}

impl<K: TableKey> Directory<K> {
    fn write(&self, arena: &mut PageArena, at: Location) -> Node {
        put_all(arena, at, &self.entries);
        Node::directory(at, self.entries.len(), self.levels)
    }
}

/// The full leaf pages of a table. Buckets are written in key order, so neighbouring buckets can share a
/// page: a search skips the smaller ends of the bucket before and stops before the larger ends of the
/// bucket after.
#[derive(Default)]
struct FullPages {
    /// The page that still has free entries, and its number of used entries.
    open: Option<(usize, usize)>,
}

impl FullPages {
    /// Writes entries. Returns the pages that hold them, each with the last end written there.
    fn append<K: TableKey>(
        &mut self,
        arena: &mut PageArena,
        entries: &Entries<'_, K>,
    ) -> Result<Vec<(K, u32)>, CompileError> {
        let mut pages: Vec<(K, u32)> = Vec::new();
        for (end, value) in entries.iter() {
            let (page, filled) = match self.open {
                Some((page, filled)) if filled < K::FANOUT => (page, filled),
                _ => (arena.allocate_pages(1)?, 0),
            };
            let at = location(page, filled * K::ENTRY_WORDS);
            end.put(value, arena.words_mut(at, K::ENTRY_WORDS));
            self.open = Some((page, filled + 1));
            match pages.last_mut() {
                Some(last) if last.1 == page as u32 => last.0 = end,
                _ => pages.push((end, page as u32)),
            }
        }
        Ok(pages)
    }

    /// Pads the last page.
    fn finish<K: TableKey>(self, arena: &mut PageArena) {
        if let Some((page, filled)) = self.open {
            pad::<K>(arena, page, filled);
        }
    }
}

fn put_all<K: TableKey>(arena: &mut PageArena, at: Location, entries: &[(K, u32)]) {
    let words = arena.words_mut(at, entries.len() * K::ENTRY_WORDS);
    for (entry, &(end, value)) in words.chunks_exact_mut(K::ENTRY_WORDS).zip(entries) {
        end.put(value, entry);
    }
}

/// Fills the page from entry `filled` on with copies of the last used entry.
fn pad<K: TableKey>(arena: &mut PageArena, page: usize, filled: usize) {
    let words = arena.words_mut(location(page, 0), PAGE_WORDS);
    for entry in filled..K::FANOUT {
        let from = (filled - 1) * K::ENTRY_WORDS;
        words.copy_within(from..from + K::ENTRY_WORDS, entry * K::ENTRY_WORDS);
    }
}

fn bitmap_location(bitmaps: &[Location], rule_set: RuleSetId) -> Location {
    bitmaps[rule_set.0 as usize]
}

#[cfg(test)]
mod tests;
