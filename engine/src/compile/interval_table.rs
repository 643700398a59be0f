//! From the intervals of a line to its nodes in the image.
//!
//! The root is chosen for the fewest look-ups of pages: one class; a leaf; an index, where it
//! leaves most intervals in buckets of one leaf; else a directory.

use engine_common::{
    image::{Dimension, Location, PAGE_WORDS},
    interval_table::Node,
};

use super::{
    CompileError,
    entry::LineKey,
    interval::Interval,
    page_arena::{PageArena, location},
    rule_set::RuleSetId,
};

/// Bits of the key that an index looks at, at least and at most.
pub(super) const INDEX_BITS: (u32, u32) = (6, 16);

/// What a line's root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Class,
    Leaf,
    Directory,
    /// By so many upper bits.
    Index(u32),
}

/// A line, ready to be written.
#[derive(Debug)]
pub(super) struct Line<K> {
    id: Dimension,
    intervals: Vec<Interval<K>>,
    /// Bits of the key, or of its upper half on a wide line.
    key_bits: u32,
    root: Root,
}

impl<K: LineKey> Line<K> {
    /// Chooses a root for the intervals, which cover the whole line. `key_bits` counts the bits of
    /// a narrow key, or of the upper half of a wide one.
    pub(super) fn plan(id: Dimension, key_bits: u32, intervals: Vec<Interval<K>>) -> Line<K> {
        let root = choose(id, key_bits, &intervals);
        Line {
            id,
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
        places: &[Location],
    ) -> Result<Node, CompileError> {
        let shift = self.bucket_shift(index_bits);
        let low = shift + K::LOW_BITS;
        let mut full = FullPages::default();
        let mut rest = &self.intervals[..];
        for bucket in 0..1usize << index_bits {
            let last = K::from_bits((bucket as u128) << low | ((1 << low) - 1));
            let reach = rest.partition_point(|interval| interval.end < last);
            let node = if reach == 0 {
                Node::rule_set(place(places, rest[0].class))
            } else {
                let entries = Entries {
                    intervals: &rest[..=reach],
                    last,
                    places,
                };
                self.write_bucket(arena, &entries, &mut full)?
            };
            arena.words_mut(Location(at.0 + bucket as u32), 1)[0] = node.0;
            // An interval that goes on into the next bucket is met there again.
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
                line: self.id,
                intervals: entries.intervals.len(),
            });
        }
        Ok(directory)
    }
}

fn choose<K: LineKey>(id: Dimension, key_bits: u32, intervals: &[Interval<K>]) -> Root {
    let count = intervals.len();
    if count == 1 {
        return Root::Class;
    }
    if count <= K::FEW {
        return Root::Leaf;
    }
    let flat = K::FANOUT.pow(1 + K::LEVELS);
    // Executables and sockets are a few devices and many numbers: an index tells none of them apart.
    if !matches!(id, Dimension::Executable | Dimension::Unix) {
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

/// How many intervals end in buckets that one leaf can hold, and that are not most of the line.
fn in_small_buckets<K: LineKey>(intervals: &[Interval<K>], shift: u32) -> usize {
    let small = (intervals.len() / 2).min(K::FANOUT);
    let bucket = |interval: &Interval<K>| interval.end.into() >> K::LOW_BITS >> shift;
    intervals
        .chunk_by(|a, b| bucket(a) == bucket(b))
        .map(<[_]>::len)
        .filter(|&count| count <= small)
        .sum()
}

/// What can be placed and written, whatever its keys.
pub(super) trait Plan {
    /// The line.
    fn id(&self) -> Dimension;

    /// Words of the root's object; none for a class.
    fn root_words(&self) -> usize;

    /// Counts the intervals of each class.
    fn count_classes(&self, uses: &mut [u32]);

    /// Writes the line, with its root's object at `at`. `places` are the classes' bitmaps.
    fn write(&self, arena: &mut PageArena, at: Location, places: &[Location]) -> Result<Node, CompileError>;
}

impl<K: LineKey> Plan for Line<K> {
    fn id(&self) -> Dimension {
        self.id
    }

    fn root_words(&self) -> usize {
        let count = self.intervals.len();
        match self.root {
            Root::Class => 0,
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

    fn count_classes(&self, uses: &mut [u32]) {
        for interval in &self.intervals {
            uses[interval.class.0 as usize] += 1;
        }
    }

    fn write(&self, arena: &mut PageArena, at: Location, places: &[Location]) -> Result<Node, CompileError> {
        let all = Entries {
            intervals: &self.intervals,
            last: self.intervals[self.intervals.len() - 1].end,
            places,
        };
        match self.root {
            Root::Class => Ok(Node::rule_set(place(places, self.intervals[0].class))),
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
            Root::Index(bits) => self.write_index(arena, at, bits, places),
        }
    }
}

/// The entries of one bucket: the last interval is cut at the bucket's end.
struct Entries<'a, K> {
    intervals: &'a [Interval<K>],
    last: K,
    places: &'a [Location],
}

impl<K: LineKey> Entries<'_, K> {
    fn iter(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.intervals
            .iter()
            .map(|interval| (interval.end.min(self.last), place(self.places, interval.class).0))
    }

    fn write(&self, arena: &mut PageArena, at: Location) {
        let words = arena.words_mut(at, self.intervals.len() * K::ENTRY_WORDS);
        for (entry, (end, value)) in words.chunks_exact_mut(K::ENTRY_WORDS).zip(self.iter()) {
            end.put(value, entry);
        }
    }
}

/// Entries that lead to full pages.
struct Directory<K> {
    entries: Vec<(K, u32)>,
    levels: u32,
}

impl<K: LineKey> Directory<K> {
    fn write(&self, arena: &mut PageArena, at: Location) -> Node {
        put_all(arena, at, &self.entries);
        Node::directory(at, self.entries.len(), self.levels)
    }
}

/// The full leaf pages of a line. Buckets come in the order of their keys, so they can share
/// pages: a search for a key of one bucket passes over the smaller ends of those before, and stops
/// before the greater ones of those behind.
#[derive(Default)]
struct FullPages {
    /// The page that is not full yet, and its number of entries.
    open: Option<(usize, usize)>,
}

impl FullPages {
    /// Writes entries; the pages that hold them, each with its last end among them.
    fn append<K: LineKey>(
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

    /// Makes the last page a full one.
    fn finish<K: LineKey>(self, arena: &mut PageArena) {
        if let Some((page, filled)) = self.open {
            pad::<K>(arena, page, filled);
        }
    }
}

fn put_all<K: LineKey>(arena: &mut PageArena, at: Location, entries: &[(K, u32)]) {
    let words = arena.words_mut(at, entries.len() * K::ENTRY_WORDS);
    for (entry, &(end, value)) in words.chunks_exact_mut(K::ENTRY_WORDS).zip(entries) {
        end.put(value, entry);
    }
}

/// Repeats the last of `filled` entries up to the end of the page.
fn pad<K: LineKey>(arena: &mut PageArena, page: usize, filled: usize) {
    let words = arena.words_mut(location(page, 0), PAGE_WORDS);
    for entry in filled..K::FANOUT {
        let from = (filled - 1) * K::ENTRY_WORDS;
        words.copy_within(from..from + K::ENTRY_WORDS, entry * K::ENTRY_WORDS);
    }
}

fn place(places: &[Location], class: RuleSetId) -> Location {
    places[class.0 as usize]
}

#[cfg(test)]
mod tests;
