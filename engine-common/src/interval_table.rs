//! Interval tables: from a key to a rule set.
//!
//! A table divides a key space into elementary intervals, each with a rule set. Intervals are stored by
//! their **ends** (inclusive), sorted; the result of a look-up is the first entry whose end is not below the
//! key. The last entry's end is the greatest key of its node, so a look-up always finds one. Full
//! pages of a directory are padded with entries of the greatest end. Neighbouring buckets of an index
//! may share full leaf pages: entries outside a node's key range do not change the result.
//!
//! A table with 32-bit keys has entries of one word, `end << 32 | value`. A table with 128-bit keys has
//! entries of three words: upper half, lower half, value. Values are rule sets in a
//! leaf and page indexes in a directory.
//!
//! A root is a [`Node`]: one rule set for all keys, a leaf, a directory, or an index of 2^k nodes
//! by the key's upper bits. An index never contains an index, and a directory refers only to
//! full pages: directories (`levels` 2) or leaves (`levels` 1).

use crate::{
    decide::Tables,
    image::{Location, PAGE_WORDS, Page},
    verdict::Fault,
    verifier::forget,
};

/// Entries of a full page, 32-bit keys.
pub const FANOUT_U32: usize = PAGE_WORDS;
/// Entries of a full page, 128-bit keys (two words of the page stay unused).
pub const FANOUT_U128: usize = PAGE_WORDS / ENTRY_WORDS_U128;
/// Words of an entry, 128-bit keys.
pub const ENTRY_WORDS_U128: usize = 3;
/// Most directory levels, 128-bit keys.
pub const MAX_LEVELS_U128: u32 = 2;

/// Steps of a binary search among [`FANOUT_U32`] entries.
const STEPS_U32: u32 = 9;
/// Steps of a binary search among [`FANOUT_U128`] entries.
const STEPS_U128: u32 = 8;

/// Kind of a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeKind {
    /// One rule set for all keys.
    RuleSet = 0,
    /// Sorted entries whose values are rule sets.
    Leaf = 1,
    /// Sorted entries whose values are indexes of full pages.
    Directory = 2,
    /// Nodes, chosen by `key >> shift`.
    Index = 3,
}

/// A node in one word: bits 0 to 1 kind, 2 to 13 entries, 16 to 24 first word, 25 to 31 shift
/// (index) or levels (directory), 32 to 63 page (for a rule set: its location).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Node(pub u64);

impl Node {
    /// One rule set for all keys.
    pub const fn rule_set(bitmap: Location) -> Node {
        Node((bitmap.0 as u64) << 32 | NodeKind::RuleSet as u64)
    }

    /// `entries` entries from `at` on, all in one page.
    pub const fn leaf(at: Location, entries: usize) -> Node {
        Self::pack(NodeKind::Leaf, at, entries, 0)
    }

    /// `entries` entries from `at` on; `levels` is 1 if they refer to leaves.
    pub const fn directory(at: Location, entries: usize, levels: u32) -> Node {
        Self::pack(NodeKind::Directory, at, entries, levels)
    }

    /// Nodes from `at` on (they may cross pages), chosen by `key >> shift`. With 128-bit keys the upper
    /// half is shifted.
    pub const fn index(at: Location, shift: u32) -> Node {
        Self::pack(NodeKind::Index, at, 0, shift)
    }

    const fn pack(kind: NodeKind, at: Location, entries: usize, extra: u32) -> Node {
        Node(
            kind as u64
                | ((entries as u64) & 0xfff) << 2
                | (at.word() as u64) << 16
                | ((extra & 127) as u64) << 25
                | (at.page() as u64) << 32,
        )
    }

    /// The node's kind.
    #[inline(always)]
    pub const fn kind(self) -> NodeKind {
        match self.0 & 3 {
            0 => NodeKind::RuleSet,
            1 => NodeKind::Leaf,
            2 => NodeKind::Directory,
            _ => NodeKind::Index,
        }
    }

    /// Number of entries of a leaf or directory.
    #[inline(always)]
    pub const fn entries(self) -> usize {
        (self.0 >> 2) as usize & 0xfff
    }

    /// First word in its page.
    #[inline(always)]
    pub const fn word(self) -> usize {
        (self.0 >> 16) as usize & (PAGE_WORDS - 1)
    }

    /// Shift of an index, levels of a directory.
    #[inline(always)]
    pub const fn extra(self) -> u32 {
        (self.0 >> 25) as u32 & 127
    }

    /// Page; for a rule set, its location.
    #[inline(always)]
    pub const fn page(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Looks up a page; page 0 is `root`.
#[inline(always)]
fn page<'a, T: Tables + ?Sized>(tables: &'a T, root: &'a Page, index: u32) -> Result<&'a Page, Fault> {
    if index == 0 {
        return Ok(root);
    }
    match tables.page(index) {
        Some(page) => Ok(page),
        None => Err(Fault::NoPage),
    }
}

/// Follows an index node, if it is one.
#[inline(always)]
fn descend<T: Tables + ?Sized>(tables: &T, root: &Page, node: Node, key: u64) -> Result<Node, Fault> {
    match node.kind() {
        NodeKind::Index => {
            let at = node.word() as u64 + (key >> (node.extra() & 63));
            let page = page(tables, root, node.page() + (at / PAGE_WORDS as u64) as u32)?;
            Ok(Node(page[at as usize & (PAGE_WORDS - 1)]))
        }
        _ => Ok(node),
    }
}

/// Value of the first entry whose end is not below `key`.
///
/// Binary search with a fixed step count: the number of remaining entries does not depend on the comparisons, and
/// the first of them is masked. Both branches of a step leave identical verifier state, so that it explores
/// one. Steps beyond the last needed one change nothing. Only one early exit is taken, half way: the verifier
/// would explore every exit of the loop to the end of the program.
#[inline(always)]
fn search_u32(page: &Page, first: usize, entries: usize, key: u32) -> u32 {
    const MASK: usize = PAGE_WORDS - 1;
    let mut first = first & MASK;
    let mut left = entries;
    let mut step = 0;
    while step < STEPS_U32 {
        if step == STEPS_U32 / 2 && left <= 1 {
            break;
        }
        let half = left / 2;
        let probe = (first + half).wrapping_sub(1) & MASK;
        if ((page[probe] >> 32) as u32) < key {
            first = (first + half) & MASK;
        }
        left = left.div_ceil(2);
        step += 1;
    }
    page[first] as u32
}

/// Value of the first entry whose end is not below the key; see [`search_u32`].
#[inline(always)]
fn search_u128(page: &Page, start: usize, entries: usize, high_key: u64, low_key: u64) -> u32 {
    const MASK: usize = PAGE_WORDS / 2 - 1;
    let mut first = 0;
    let mut left = entries;
    let mut step = 0;
    while step < STEPS_U128 {
        if step == STEPS_U128 / 2 && left <= 1 {
            break;
        }
        let half = left / 2;
        let at = start + ((first + half).wrapping_sub(1) & MASK) * ENTRY_WORDS_U128;
        let end_high = page[at & (PAGE_WORDS - 1)];
        let end_low = page[(at + 1) & (PAGE_WORDS - 1)];
        if end_high < high_key || (end_high == high_key && end_low < low_key) {
            first = (first + half) & MASK;
        }
        left = left.div_ceil(2);
        step += 1;
    }
    page[(start + first * ENTRY_WORDS_U128 + 2) & (PAGE_WORDS - 1)] as u32
}

/// A result in one word, since a BPF function returns one: a location, or a fault with
/// bit 32 set.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Found(u64);

impl Found {
    const FAULT: u64 = 1 << 32;

    #[inline(always)]
    const fn of(result: Result<Location, Fault>) -> Found {
        match result {
            Ok(location) => Found(location.0 as u64),
            Err(fault) => Found(Self::FAULT | fault as u64),
        }
    }

    #[inline(always)]
    const fn result(self) -> Result<Location, Fault> {
        if self.0 < Self::FAULT {
            Ok(Location(self.0 as u32))
        } else {
            // The only fault of a look-up.
            Err(Fault::NoPage)
        }
    }
}

/// Rule set of a key in the table with 32-bit keys whose root is `table`.
///
/// # Errors
/// [`Fault::NoPage`] if the image refers to a page that it does not have.
#[inline(always)]
pub fn lookup_u32<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    table: Node,
    key: u32,
) -> Result<Location, Fault> {
    find_u32(tables, root, table, key).result()
}

/// [`lookup_u32`]; not inlined in the kernel programs: five inlined copies in one decision
/// exceed the stack.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn find_u32<T: Tables + ?Sized>(tables: &T, root: &Page, table: Node, key: u32) -> Found {
    let key = forget(key as u64, root[0]) as u32;
    let search = || {
        let mut node = descend(tables, root, table, key as u64)?;
        if let NodeKind::RuleSet = node.kind() {
            return Ok(Location(node.page()));
        }
        if let NodeKind::Directory = node.kind() {
            let directory = page(tables, root, node.page())?;
            let index = search_u32(directory, node.word(), node.entries(), key);
            node = Node::leaf(
                Location(index.wrapping_mul(PAGE_WORDS as u32)),
                forget(FANOUT_U32 as u64, root[0]) as usize,
            );
        }
        let leaf = page(tables, root, node.page())?;
        Ok(Location(search_u32(leaf, node.word(), node.entries(), key)))
    };
    Found::of(search())
}

/// Rule set of a key in the table with 128-bit keys whose root is `table`.
///
/// # Errors
/// [`Fault::NoPage`] if the image refers to a page that it does not have.
#[inline(always)]
pub fn lookup_u128<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    table: Node,
    high: u64,
    low: u64,
) -> Result<Location, Fault> {
    find_u128(tables, root, table, high, low).result()
}

/// [`lookup_u128`]; not inlined in the kernel programs.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn find_u128<T: Tables + ?Sized>(tables: &T, root: &Page, table: Node, high: u64, low: u64) -> Found {
    let (high, low) = (forget(high, root[0]), forget(low, root[0]));
    let search = || {
        let mut node = descend(tables, root, table, high)?;
        if let NodeKind::RuleSet = node.kind() {
            return Ok(Location(node.page()));
        }
        let mut level = 0;
        while level <= MAX_LEVELS_U128 {
            let here = page(tables, root, node.page())?;
            let value = search_u128(here, node.word(), node.entries(), high, low);
            let levels = match node.kind() {
                NodeKind::Directory => node.extra(),
                _ => return Ok(Location(value)),
            };
            let at = Location(value.wrapping_mul(PAGE_WORDS as u32));
            let entries = forget(FANOUT_U128 as u64, root[0]) as usize;
            node = if levels > 1 {
                Node::directory(at, entries, levels - 1)
            } else {
                Node::leaf(at, entries)
            };
            level += 1;
        }
        Err(Fault::NoPage)
    };
    Found::of(search())
}

const _: () = assert!(FANOUT_U128 <= PAGE_WORDS / 2);
