//! The table format: one compiled policy as pages of 64-bit words.
//!
//! An image is an array of [`Page`]s (in the kernel: one inner map of the map of images, one
//! element per page). Page 0 starts with the header and the fixed bitmaps; small objects
//! share that page, since access to another page costs a map look-up (8 to 10 ns).
//!
//! A **bitmap** has one bit per rule, bit `r % 64` of word `r / 64`; every bitmap of an image has
//! [`Header::bitmap_words`] words and never crosses a page. A **rule set** is the [`Location`] of the
//! bitmap of the rules that cover an elementary interval of a dimension: the keys of the interval form an
//! equivalence class.

use crate::{
    action::{Action, Mode},
    dedup::DedupWindows,
    destination::Nat64Prefix,
    interval_table::Node,
    limits::{MAX_BITMAP_WORDS, MAX_NAT64_PREFIXES},
};

/// Words of a page: 4 KiB.
pub const PAGE_WORDS: usize = 512;
/// A page of an image.
pub type Page = [u64; PAGE_WORDS];

/// Words of the header.
pub const HEADER_WORDS: usize = 32;
/// Number of bitmaps at fixed locations of page 0.
pub const RULE_BITMAP_COUNT: usize = 8;
/// First word of page 0 that the compiler may use.
pub const FREE_WORD: usize = HEADER_WORDS + RULE_BITMAP_COUNT * MAX_BITMAP_WORDS;

/// The bitmaps at fixed locations of page 0; each holds the rules with one property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RuleBitmap {
    /// Rules whose action is kill.
    Kill = 0,
    /// Rules whose action is block.
    Block = 1,
    /// Rules whose action is audit.
    Audit = 2,
    /// Rules that cover every IPv4 destination.
    EveryV4 = 3,
    /// Rules that cover every destination of both families.
    EveryAddress = 4,
    /// Rules that cover some IPv4 destination.
    SomeV4 = 5,
    /// Rules that cover some destination of either family.
    SomeAddress = 6,
    /// All rules.
    Every = 7,
}

impl RuleBitmap {
    /// Word of page 0 where the bitmap starts.
    #[inline(always)]
    pub const fn word(self) -> usize {
        HEADER_WORDS + self as usize * MAX_BITMAP_WORDS
    }

    /// The bitmap's location.
    #[inline(always)]
    pub const fn location(self) -> Location {
        Location(self.word() as u32)
    }
}

/// A location in an image: the index of a word, counted over all pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Location(pub u32);

impl Location {
    /// The page.
    #[inline(always)]
    pub const fn page(self) -> u32 {
        self.0 / PAGE_WORDS as u32
    }

    /// The word in that page.
    #[inline(always)]
    pub const fn word(self) -> usize {
        (self.0 as usize) & (PAGE_WORDS - 1)
    }
}

/// Words of the header. Everything else in page 0 below [`HEADER_WORDS`] is zero.
mod word {
    pub(super) const ABI: usize = 0;
    pub(super) const REVISION: usize = 1;
    pub(super) const POLICY: usize = 2;
    pub(super) const SHAPE: usize = 3;
    pub(super) const COUNTERS: usize = 4;
    pub(super) const DEDUP: usize = 5;
    pub(super) const DEDUP_KILL: usize = 6;
    pub(super) const INTERVAL_TABLES: usize = 8;
    pub(super) const NAT64_LENGTHS: usize = 16;
    pub(super) const NAT64: usize = 17;
}

/// The dimensions that rules match. An image has one interval table for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dimension {
    /// IPv4 address, 32-bit key.
    V4 = 0,
    /// IPv6 address, 128-bit key.
    V6 = 1,
    /// `protocol << 16 | port`, 32-bit key.
    Port = 2,
    /// Protocol, 32-bit key: rules that cover some port of it.
    ProtocolSome = 3,
    /// Protocol, 32-bit key: rules that cover every port of it.
    ProtocolEvery = 4,
    /// Uid, 32-bit key.
    Uid = 5,
    /// Executable (device, inode), 128-bit key.
    Executable = 6,
    /// Unix socket ([`crate::UnixSocketId`]), 128-bit key. Rules about unix sockets are only in this table, not in
    /// those of addresses and protocols.
    Unix = 7,
}

impl Dimension {
    /// All dimensions, ordered by discriminant.
    pub const ALL: [Dimension; 8] = [
        Dimension::V4,
        Dimension::V6,
        Dimension::Port,
        Dimension::ProtocolSome,
        Dimension::ProtocolEvery,
        Dimension::Uid,
        Dimension::Executable,
        Dimension::Unix,
    ];
}

/// Generation and mode of an image, in one word so that one store changes both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Version of the policy, from 1.
    pub generation: u64,
    /// Mode of the policy.
    pub mode: Mode,
}

impl Revision {
    /// The word: `generation << 1 | audit`.
    pub const fn to_word(self) -> u64 {
        self.generation << 1 | self.mode as u64
    }

    /// Writes the word into page 0.
    pub fn write(self, page: &mut Page) {
        page[word::REVISION] = self.to_word();
    }

    /// Reads the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Revision {
        Revision {
            generation: word >> 1,
            mode: if word & 1 == 1 { Mode::Audit } else { Mode::Enforce },
        }
    }
}

/// Typed view of page 0.
#[derive(Clone, Copy)]
pub struct Header<'a>(pub &'a Page);

impl<'a> Header<'a> {
    /// [`crate::ABI_VERSION`] of the binary that compiled the image.
    #[inline(always)]
    pub const fn abi_version(self) -> u32 {
        self.0[word::ABI] as u32
    }

    /// Generation and mode.
    #[inline(always)]
    pub const fn revision(self) -> Revision {
        Revision::from_word(self.0[word::REVISION])
    }

    /// The default action; block for an invalid value.
    #[inline(always)]
    pub const fn default_action(self) -> Action {
        match Action::from_u8(self.0[word::POLICY] as u8) {
            Some(action) => action,
            None => Action::Block,
        }
    }

    /// Errno of a denial, positive.
    #[inline(always)]
    pub const fn errno(self) -> u16 {
        (self.0[word::POLICY] >> 16) as u16
    }

    /// Whether the decision depends on the calling task (uid or executable). If so, the caller must
    /// check that the task is not a kernel thread.
    #[inline(always)]
    pub const fn needs_subject(self) -> bool {
        self.0[word::POLICY] >> 32 & 1 != 0
    }

    /// Whether the decision depends on [`crate::Attempt::executable`].
    #[inline(always)]
    pub const fn needs_executable(self) -> bool {
        self.0[word::POLICY] >> 33 & 1 != 0
    }

    /// Whether packets are checked in addition to calls.
    #[inline(always)]
    pub const fn is_strict(self) -> bool {
        self.0[word::POLICY] >> 34 & 1 != 0
    }

    /// Whether some rule is about unix sockets.
    #[inline(always)]
    pub const fn has_unix_rules(self) -> bool {
        self.0[word::POLICY] >> 35 & 1 != 0
    }

    /// Words of every bitmap, 1 to 16.
    #[inline(always)]
    pub const fn bitmap_words(self) -> usize {
        (self.0[word::SHAPE] & 31) as usize
    }

    /// Number of rules.
    #[inline(always)]
    pub const fn rule_count(self) -> u32 {
        (self.0[word::SHAPE] >> 16) as u16 as u32
    }

    /// Number of pages.
    #[inline(always)]
    pub const fn page_count(self) -> u32 {
        (self.0[word::SHAPE] >> 32) as u32
    }

    /// Location of the counters: one word per rule, then default, then faults. They may cross pages.
    #[inline(always)]
    pub const fn counters(self) -> Location {
        Location(self.0[word::COUNTERS] as u32)
    }

    /// Windows within which duplicates are suppressed.
    #[inline(always)]
    pub const fn dedup(self) -> DedupWindows {
        DedupWindows {
            audit_ms: self.0[word::DEDUP] as u32,
            block_ms: (self.0[word::DEDUP] >> 32) as u32,
            kill_ms: self.0[word::DEDUP_KILL] as u32,
        }
    }

    /// Root of a dimension's interval table.
    #[inline(always)]
    pub const fn interval_table(self, dimension: Dimension) -> Node {
        Node(self.0[word::INTERVAL_TABLES + dimension as usize])
    }

    /// One of the policy's NAT64 prefixes; unused ones have length 0 and match nothing.
    #[inline(always)]
    pub fn nat64(self, i: usize) -> Nat64Prefix {
        let i = i % MAX_NAT64_PREFIXES;
        Nat64Prefix {
            high: self.0[word::NAT64 + 2 * i],
            low: self.0[word::NAT64 + 2 * i + 1],
            length: (self.0[word::NAT64_LENGTHS] >> (8 * i)) as u8,
        }
    }
}

/// The fields of a header, for the compiler to write.
#[derive(Clone, Copy, Debug)]
pub struct HeaderFields {
    /// Generation and mode.
    pub revision: Revision,
    /// Default action.
    pub default_action: Action,
    /// Errno of a denial, positive.
    pub errno: u16,
    /// See [`Header::needs_subject`].
    pub needs_subject: bool,
    /// See [`Header::needs_executable`].
    pub needs_executable: bool,
    /// See [`Header::is_strict`].
    pub strict: bool,
    /// See [`Header::has_unix_rules`].
    pub has_unix_rules: bool,
    /// Words of every bitmap.
    pub bitmap_words: usize,
    /// Number of rules.
    pub rule_count: u32,
    /// Number of pages.
    pub page_count: u32,
    /// See [`Header::counters`].
    pub counters: Location,
    /// See [`Header::dedup`].
    pub dedup: DedupWindows,
    /// Roots, in the order of [`Dimension`].
    pub interval_tables: [Node; 8],
    /// NAT64 prefixes; unused ones have length 0.
    pub nat64: [Nat64Prefix; MAX_NAT64_PREFIXES],
}

impl HeaderFields {
    /// Writes the header into page 0.
    pub fn write(&self, page: &mut Page) {
        page[word::ABI] = crate::ABI_VERSION as u64;
        self.revision.write(page);
        page[word::POLICY] = self.default_action as u64
            | (self.errno as u64) << 16
            | (self.needs_subject as u64) << 32
            | (self.needs_executable as u64) << 33
            | (self.strict as u64) << 34
            | (self.has_unix_rules as u64) << 35;
        page[word::SHAPE] =
            self.bitmap_words as u64 | (self.rule_count as u64) << 16 | (self.page_count as u64) << 32;
        page[word::COUNTERS] = self.counters.0 as u64;
        page[word::DEDUP] = self.dedup.audit_ms as u64 | (self.dedup.block_ms as u64) << 32;
        page[word::DEDUP_KILL] = self.dedup.kill_ms as u64;
        for (i, node) in self.interval_tables.iter().enumerate() {
            page[word::INTERVAL_TABLES + i] = node.0;
        }
        let mut lengths = 0;
        for (i, prefix) in self.nat64.iter().enumerate() {
            lengths |= (prefix.length as u64) << (8 * i);
            page[word::NAT64 + 2 * i] = prefix.high;
            page[word::NAT64 + 2 * i + 1] = prefix.low;
        }
        page[word::NAT64_LENGTHS] = lengths;
    }
}

const _: () = assert!(word::NAT64 + 2 * MAX_NAT64_PREFIXES <= HEADER_WORDS);
const _: () = assert!(word::INTERVAL_TABLES + Dimension::ALL.len() <= word::NAT64_LENGTHS);
const _: () = assert!(FREE_WORD < PAGE_WORDS);
