//! Lines: from a key to a class.
//!
//! A line cuts a key space into elementary intervals, each with a class. Intervals are stored by
//! their **ends** (inclusive), sorted; the answer is the first entry whose end is not below the
//! key. The last entry's end is the greatest key below its node, so there always is one. Full
//! pages of a directory are padded with entries of the greatest end. Neighbouring buckets of an index
//! may share full leaf pages: entries below a node's keys, or above, do not change the answer.
//!
//! A **narrow** line has 32-bit keys; an entry is one word, `end << 32 | value`. A **wide** line has
//! 128-bit keys; an entry is three words: upper half, lower half, value. Values are classes in a
//! leaf and page numbers in a directory.
//!
//! A root is a [`Node`]: a class for the whole line, a leaf, a directory, or an index of 2^k nodes
//! by the key's upper bits. An index never holds an index, and a directory page only pages that
//! are full: of directories (`levels` 2) or of leaves (`levels` 1).

use crate::{
    decide::Tables,
    image::{Location, PAGE_WORDS, Page},
    verdict::Fault,
    verifier::forget,
};

/// Entries of a full page of a narrow line.
pub const FANOUT_U32: usize = PAGE_WORDS;
/// Entries of a full page of a wide line (two words of the page stay unused).
pub const FANOUT_U128: usize = PAGE_WORDS / ENTRY_WORDS_U128;
/// Words of an entry of a wide line.
pub const ENTRY_WORDS_U128: usize = 3;
/// Directory levels a wide line may have.
pub const MAX_LEVELS_U128: u32 = 2;

/// Halvings that settle a search among [`FANOUT_U32`] entries.
const STEPS_U32: u32 = 9;
/// Halvings that settle a search among [`FANOUT_U128`] entries.
const STEPS_U128: u32 = 8;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeKind {
    /// One class for all keys.
    Class = 0,
    /// Sorted entries whose values are classes.
    Leaf = 1,
    /// Sorted entries whose values are numbers of full pages.
    Directory = 2,
    /// Nodes, chosen by `key >> shift`.
    Index = 3,
}

/// A node, in one word: bits 0 to 1 kind, 2 to 13 entries, 16 to 24 first word, 25 to 31 shift
/// (index) or levels (directory), 32 to 63 page (or, for a class, its location).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Node(pub u64);

impl Node {
    /// One class for all keys.
    pub const fn class(class: Location) -> Node {
        Node((class.0 as u64) << 32 | NodeKind::Class as u64)
    }

    /// `entries` entries from `at` on, all in one page.
    pub const fn leaf(at: Location, entries: usize) -> Node {
        Self::pack(NodeKind::Leaf, at, entries, 0)
    }

    /// `entries` entries from `at` on; `levels` is 1 where they lead to leaves.
    pub const fn directory(at: Location, entries: usize, levels: u32) -> Node {
        Self::pack(NodeKind::Directory, at, entries, levels)
    }

    /// Nodes from `at` on (they may go on over pages), chosen by `key >> shift`. For wide lines the
    /// key is the upper half.
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

    /// What it is.
    #[inline(always)]
    pub const fn kind(self) -> NodeKind {
        match self.0 & 3 {
            0 => NodeKind::Class,
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

    /// Page; for a class, its location.
    #[inline(always)]
    pub const fn page(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Looks a page up; page 0 is at hand already.
#[inline(always)]
fn page<'a, T: Tables + ?Sized>(tables: &'a T, root: &'a Page, number: u32) -> Result<&'a Page, Fault> {
    if number == 0 {
        return Ok(root);
    }
    match tables.page(number) {
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
/// The number of entries left does not depend on what was found, and the first of them is masked:
/// so both branches of a step leave the verifier with the same knowledge, and it follows one. Steps
/// after the last needed one change nothing; that they are is asked for once, half way: each way
/// out of the loop would be followed to the end of the program.
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

/// A result in one word, which is all that a kernel function returns: a location, or a fault with
/// the upper half set.
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
            // The only fault a look-up has.
            Err(Fault::NoPage)
        }
    }
}

/// Class of a key on a narrow line.
///
/// # Errors
/// [`Fault::NoPage`] when the image refers to a page it does not have.
#[inline(always)]
pub fn lookup_u32<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    line: Node,
    key: u32,
) -> Result<Location, Fault> {
    locate_narrow(tables, root, line, key).result()
}

/// [`lookup_u32`], a function of its own in the kernel programs: inlined five times a decision it
/// would not fit the stack.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn locate_narrow<T: Tables + ?Sized>(tables: &T, root: &Page, line: Node, key: u32) -> Found {
    let key = forget(key as u64, root[0]) as u32;
    let search = || {
        let mut node = descend(tables, root, line, key as u64)?;
        if let NodeKind::Class = node.kind() {
            return Ok(Location(node.page()));
        }
        if let NodeKind::Directory = node.kind() {
            let directory = page(tables, root, node.page())?;
            let number = search_u32(directory, node.word(), node.entries(), key);
            node = Node::leaf(
                Location(number.wrapping_mul(PAGE_WORDS as u32)),
                forget(FANOUT_U32 as u64, root[0]) as usize,
            );
        }
        let leaf = page(tables, root, node.page())?;
        Ok(Location(search_u32(leaf, node.word(), node.entries(), key)))
    };
    Found::of(search())
}

/// Class of a key on a wide line.
///
/// # Errors
/// [`Fault::NoPage`] when the image refers to a page it does not have.
#[inline(always)]
pub fn lookup_u128<T: Tables + ?Sized>(
    tables: &T,
    root: &Page,
    line: Node,
    high: u64,
    low: u64,
) -> Result<Location, Fault> {
    locate_wide(tables, root, line, high, low).result()
}

/// [`lookup_u128`], a function of its own in the kernel programs.
#[cfg_attr(not(target_arch = "bpf"), inline(always))]
#[cfg_attr(target_arch = "bpf", inline(never))]
fn locate_wide<T: Tables + ?Sized>(tables: &T, root: &Page, line: Node, high: u64, low: u64) -> Found {
    let (high, low) = (forget(high, root[0]), forget(low, root[0]));
    let search = || {
        let mut node = descend(tables, root, line, high)?;
        if let NodeKind::Class = node.kind() {
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
