use engine_common::{
    Tables,
    image::Page,
    interval_table::{NodeKind, lookup_u32, lookup_u128},
};

use super::*;
use crate::compile::page_arena::MAX_PAGES;

struct Pages(Vec<Page>);

impl Tables for Pages {
    fn page(&self, number: u32) -> Option<&Page> {
        self.0.get(number as usize)
    }
}

/// Pseudo-random numbers (Knuth's MMIX generator, the upper half).
fn random(state: &mut u64) -> u64 {
    let mut half = || {
        *state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        *state >> 32
    };
    half() << 32 | half()
}

/// Intervals with these ends and `last`, each with a rule set of its own.
fn intervals<K: TableKey>(mut ends: Vec<K>, last: K) -> Vec<Interval<K>> {
    ends.push(last);
    ends.sort_unstable();
    ends.dedup();
    let rule_set = |i: usize| RuleSetId(i as u32);
    let numbered = ends.into_iter().enumerate();
    numbered
        .map(|(i, end)| Interval {
            end,
            rule_set: rule_set(i),
        })
        .collect()
}

/// Plans and writes a table, and compares look-ups at the edges of its intervals with a linear search.
/// Returns the root and all nodes of an index.
fn checked<K: TableKey>(
    dimension: Dimension,
    key_bits: u32,
    intervals: Vec<Interval<K>>,
    find: impl Fn(&Pages, Node, K) -> Location,
) -> (Node, Vec<Node>) {
    // A look-up returns the location of a bitmap; any distinct locations do.
    let bitmaps: Vec<Location> = (0..intervals.len() as u32)
        .map(|i| Location(i ^ 0x00a5_0000))
        .collect();
    let table = IntervalTable::plan(dimension, key_bits, intervals);
    let mut arena = PageArena::new(MAX_PAGES);
    let at = match table.root_words() {
        0 => Location(0),
        words => arena.allocate(words).unwrap(),
    };
    let root = table.write(&mut arena, at, &bitmaps).unwrap();
    let pages = Pages(arena.into_pages());

    let mut start = Some(K::from_bits(0));
    for (i, interval) in table.intervals.iter().enumerate() {
        // The linear search is this loop: each interval is the expected result for its own keys.
        let first = start.unwrap();
        let middle = K::from_bits(first.into() + (interval.end.into() - first.into()) / 2);
        for key in [first, middle, interval.end] {
            assert_eq!(find(&pages, root, key), bitmaps[i], "key {:x}", key.into());
        }
        start = interval.end.next();
    }
    let below = match root.kind() {
        NodeKind::Index => {
            let first = root.page() as usize * PAGE_WORDS + root.word();
            let count = 1usize << (key_bits - root.extra());
            pages.0.as_flattened()[first..first + count]
                .iter()
                .map(|&node| Node(node))
                .collect()
        }
        _ => Vec::new(),
    };
    (root, below)
}

fn table_u32(dimension: Dimension, key_bits: u32, ends: Vec<u32>) -> (Node, Vec<Node>) {
    let last = ((1u64 << key_bits) - 1) as u32;
    checked(dimension, key_bits, intervals(ends, last), |pages, root, key| {
        lookup_u32(pages, &pages.0[0], root, key).unwrap()
    })
}

fn table_u128(dimension: Dimension, ends: Vec<u128>) -> (Node, Vec<Node>) {
    checked(dimension, 64, intervals(ends, u128::MAX), |pages, root, key| {
        lookup_u128(pages, &pages.0[0], root, (key >> 64) as u64, key as u64).unwrap()
    })
}

fn kinds(nodes: &[Node]) -> [usize; 3] {
    [NodeKind::RuleSet, NodeKind::Leaf, NodeKind::Directory]
        .map(|kind| nodes.iter().filter(|node| node.kind() == kind).count())
}

fn ends_u32(count: usize, mask: u32) -> Vec<u32> {
    let mut state = count as u64;
    (0..count).map(|_| random(&mut state) as u32 & mask).collect()
}

fn ends_u128(count: usize, mask: u128) -> Vec<u128> {
    let mut state = count as u64;
    let mut wide = || u128::from(random(&mut state)) << 64 | u128::from(random(&mut state));
    (0..count).map(|_| wide() & mask).collect()
}

#[test]
fn roots_of_u32_tables() {
    for (count, mask, kind) in [
        (0, u32::MAX, NodeKind::RuleSet),
        (1, u32::MAX, NodeKind::Leaf),
        (63, u32::MAX, NodeKind::Leaf),
        (64, u32::MAX, NodeKind::Index),
        (300, 0xfff, NodeKind::Leaf),
        (2_000, u32::MAX, NodeKind::Index),
        (2_000, 0xf_ffff, NodeKind::Directory),
        (100_000, u32::MAX, NodeKind::Index),
        (100_000, 0xff_ffff, NodeKind::Directory),
    ] {
        let (root, _) = table_u32(Dimension::V4, 32, ends_u32(count, mask));
        assert_eq!(root.kind(), kind, "{count} below {mask:x}");
    }
}

#[test]
fn u32_index_with_every_kind_of_bucket() {
    // Three dense regions, two of them adjacent, among sparse keys.
    let mut ends = ends_u32(30_000, u32::MAX);
    for (bucket, count) in [(0x0a00_0000, 2_000u32), (0x0a04_0000, 700), (0x7f00_0000, 5_000)] {
        ends.extend((0..count).map(|i| bucket + 3 * i));
    }
    // The edge of a bucket, and the key next to it.
    ends.extend([0x0fff_ffff, 0x1fff_fffe, 0x2000_0000]);
    let (root, below) = table_u32(Dimension::V4, 32, ends);
    assert_eq!(root.kind(), NodeKind::Index);
    let [rule_set, leaf, directory] = kinds(&below);
    assert!(rule_set > 0 && leaf > 0 && directory == 3, "{:?}", kinds(&below));
}

#[test]
fn u32_tables_with_few_key_bits() {
    let (root, _) = table_u32(Dimension::ProtocolSome, 9, (0..511).collect());
    assert_eq!(root.kind(), NodeKind::Index);
    let (root, _) = table_u32(
        Dimension::Port,
        25,
        (0..2_000).map(|i| (6 << 16) + i * 7).collect(),
    );
    assert_eq!(root.kind(), NodeKind::Directory);
    let (root, _) = table_u32(Dimension::Uid, 32, (0..300_000).collect());
    assert_eq!(root.kind(), NodeKind::Index);
}

#[test]
fn roots_of_u128_tables() {
    for (count, mask, kind, levels) in [
        (0, u128::MAX, NodeKind::RuleSet, 0),
        (41, u128::MAX, NodeKind::Leaf, 0),
        (42, u128::MAX, NodeKind::Index, 0),
        (160, 0xffff, NodeKind::Leaf, 0),
        (171, 0xffff_ffff, NodeKind::Directory, 1),
        (20_000, u128::MAX, NodeKind::Index, 0),
        (28_000, u128::MAX >> 32, NodeKind::Directory, 1),
        (28_899, 0xffff_ffff_ffff, NodeKind::Directory, 1),
        (28_900, 0xffff_ffff_ffff, NodeKind::Directory, 2),
        (60_000, u128::MAX >> 32, NodeKind::Directory, 2),
    ] {
        let (root, _) = table_u128(Dimension::V6, ends_u128(count, mask));
        assert_eq!(root.kind(), kind, "{count} below {mask:x}");
        if kind == NodeKind::Directory {
            assert_eq!(root.extra(), levels, "{count} below {mask:x}");
        }
    }
}

#[test]
fn u128_index_with_every_kind_of_bucket() {
    let mut ends = ends_u128(80_000, u128::MAX);
    let dense = |base: u128, count: usize| {
        ends_u128(count, u128::MAX >> 40)
            .into_iter()
            .map(move |e| base | e)
    };
    ends.extend(dense(0x2001_0db8 << 96, 40_000));
    ends.extend(dense(0x2001_0000 << 96, 3_000));
    ends.extend(dense(0xfe80 << 112, 3_000));
    ends.push((0x0fff << 112) | (u128::MAX >> 16));
    let (root, below) = table_u128(Dimension::V6, ends);
    assert_eq!(root.kind(), NodeKind::Index);
    let of_levels = |levels| {
        let directories = below.iter().filter(|node| node.kind() == NodeKind::Directory);
        directories.filter(|node| node.extra() == levels).count()
    };
    assert_eq!((of_levels(1), of_levels(2)), (1, 1));
    let [rule_set, leaf, _] = kinds(&below);
    assert!(rule_set > 0 && leaf > 0);
}

#[test]
fn executables_have_no_index() {
    let ends = ends_u128(5_000, u128::MAX);
    let (root, _) = table_u128(Dimension::Executable, ends);
    assert_eq!(root.kind(), NodeKind::Directory);
}

#[test]
fn too_many_intervals_are_an_error() {
    // One bucket with more intervals than a directory of two levels holds.
    let count = MAX_ENTRIES_OF_TWO_LEVELS as u128 + 1;
    let table: IntervalTable<u128> =
        IntervalTable::plan(Dimension::V6, 64, intervals((0..count).collect(), u128::MAX));
    let mut arena = PageArena::new(MAX_PAGES);
    let at = arena.allocate(table.root_words()).unwrap();
    let bitmaps = vec![Location(0); table.intervals.len()];
    let error = table.write(&mut arena, at, &bitmaps).unwrap_err();
    assert!(
        matches!(
            error,
            CompileError::TooManyIntervals {
                dimension: Dimension::V6,
                ..
            }
        ),
        "{error}"
    );
}

const MAX_ENTRIES_OF_TWO_LEVELS: usize = 170 * 170 * 170;
