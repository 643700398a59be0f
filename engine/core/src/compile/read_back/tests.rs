use std::net::IpAddr;

use engine_common::{
    Action, Mode,
    image::Revision,
    interval_table::{Node, NodeKind},
};

use super::*;
use crate::{
    compile::{
        Identities, compile,
        test_policies::{policy, rule},
    },
    policy::AddressSet,
};

/// Word of page 0 that holds the root node of a dimension.
const fn root_word(dimension: Dimension) -> usize {
    8 + dimension as usize
}

/// A policy whose IPv4 table is an index and whose IPv6 table is a directory.
fn pages() -> Vec<Page> {
    let mut one = policy(vec![
        rule("feed", Action::Kill, "any"),
        rule("ten", Action::Allow, "10.0.0.0/8 2001:db8::/32"),
    ]);
    let sparse = (0..2_000u32).map(|i| IpAddr::from((i.wrapping_mul(0x9e37_79b1) | 1).to_be_bytes()));
    let dense = (0..400u128).map(|i| IpAddr::from((0x2001_0db8 << 96 | i << 1).to_be_bytes()));
    one.rules[0].to = AddressSet::of(sparse.chain(dense).map(Into::into));
    let revision = Revision {
        generation: 1,
        mode: Mode::Enforce,
    };
    let image = compile(&one, &Identities::default(), revision).unwrap();
    image.pages().to_vec()
}

fn refused(change: impl FnOnce(&mut Vec<Page>)) -> ImageError {
    let mut pages = pages();
    change(&mut pages);
    Image::from_pages(pages).unwrap_err()
}

#[test]
fn compiled_images_are_valid() {
    let pages = pages();
    assert_eq!(Image::from_pages(pages.clone()).unwrap().pages(), pages);
    let none = compile(
        &policy(Vec::new()),
        &Identities::default(),
        Revision {
            generation: 1,
            mode: Mode::Audit,
        },
    );
    assert!(Image::from_pages(none.unwrap().pages().to_vec()).is_ok());
}

#[test]
fn invalid_headers_are_refused() {
    assert_eq!(refused(Vec::clear), ImageError::Empty);
    assert_eq!(
        refused(|pages| pages[0][0] += 1),
        ImageError::Abi {
            found: ABI_VERSION + 1,
            expected: ABI_VERSION
        }
    );
    let count = pages().len();
    let header = count as u32;
    assert_eq!(
        refused(|pages| pages.truncate(count - 1)),
        ImageError::PageCount {
            header,
            found: count - 1
        }
    );
    assert_eq!(
        refused(|pages| pages.push([0; PAGE_WORDS])),
        ImageError::PageCount {
            header,
            found: count + 1
        }
    );
    assert_eq!(refused(|pages| pages[0][3] &= !31), ImageError::BitmapWords(0));
    assert_eq!(refused(|pages| pages[0][3] |= 31), ImageError::BitmapWords(31));
    assert_eq!(
        refused(|pages| pages[0][3] |= 1024 << 16),
        ImageError::RuleCount {
            rules: 1026,
            limit: 64
        }
    );
    assert_eq!(
        refused(|pages| pages[0][4] = (count * PAGE_WORDS - 3) as u64),
        ImageError::Counters
    );
}

#[test]
fn invalid_root_nodes_are_refused() {
    let count = pages().len() as u32;
    let behind = Location(count * PAGE_WORDS as u32);
    // The sample has no rule for unix sockets, and so no table for them.
    for dimension in Dimension::ALL
        .into_iter()
        .filter(|dimension| *dimension != Dimension::Unix)
    {
        let root = |node: Node| refused(|pages| pages[0][root_word(dimension)] = node.0);
        assert_eq!(root(Node::leaf(behind, 2)), ImageError::Table(dimension));
        // No entries; more entries than a page holds; invalid numbers of levels.
        assert_eq!(root(Node::leaf(Location(0), 0)), ImageError::Table(dimension));
        assert_eq!(root(Node::leaf(Location(500), 100)), ImageError::Table(dimension));
        assert_eq!(
            root(Node::directory(Location(0), 2, 0)),
            ImageError::Table(dimension)
        );
        assert_eq!(
            root(Node::directory(Location(0), 2, 127)),
            ImageError::Table(dimension)
        );
        for shift in 0..128 {
            assert_eq!(root(Node::index(behind, shift)), ImageError::Table(dimension));
        }
        assert_eq!(root(Node::rule_set(behind)), ImageError::Bitmap(dimension));
    }
}

#[test]
fn invalid_inner_nodes_are_refused() {
    let whole = Image::from_pages(pages()).unwrap();
    let v4 = whole.header().interval_table(Dimension::V4);
    assert_eq!(v4.kind(), NodeKind::Index);
    let first_bucket = v4.page() as usize * PAGE_WORDS + v4.word();
    let put = |word: usize, node: Node| refused(|pages| pages[word / PAGE_WORDS][word % PAGE_WORDS] = node.0);
    // An index inside an index; a bitmap that crosses the end of a page.
    assert_eq!(put(first_bucket, v4), ImageError::Table(Dimension::V4));
    let refused_words = refused(|pages| {
        pages[0][3] = pages[0][3] & !31 | 2;
        pages[0][root_word(Dimension::Uid)] = Node::rule_set(Location(PAGE_WORDS as u32 - 1)).0;
    });
    assert!(matches!(refused_words, ImageError::Bitmap(_)), "{refused_words}");

    // Leaves that are unsorted, or end before the last key.
    let v6 = whole.header().interval_table(Dimension::V6);
    assert_eq!(v6.kind(), NodeKind::Directory);
    let entry = v6.page() as usize * PAGE_WORDS + v6.word();
    let leaf = whole.words()[entry + 2] as usize;
    let unsorted = refused(|pages| pages[leaf].swap(1, 4));
    assert_eq!(unsorted, ImageError::Table(Dimension::V6));
    let early = refused(|pages| {
        let last = entry + (v6.entries() - 1) * 3;
        let page = pages[last / PAGE_WORDS][last % PAGE_WORDS + 2] as usize;
        for entry in pages[page].chunks_exact_mut(3) {
            entry[0] = entry[0].min(u64::MAX - 1);
        }
    });
    assert_eq!(early, ImageError::Table(Dimension::V6));
    let itself = refused(|pages| pages[entry / PAGE_WORDS][entry % PAGE_WORDS + 2] = 0);
    assert_eq!(itself, ImageError::Table(Dimension::V6));
}

/// Reading an image with any one word changed ends without a panic.
#[test]
fn corrupt_words_do_not_panic() {
    let mut pages = pages();
    let mut random = 0x7469_6465u64;
    for _ in 0..300 {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let word = if random >> 60 < 8 {
            8 + (random >> 33) as usize % 7
        } else {
            (random >> 33) as usize % (pages.len() * PAGE_WORDS)
        };
        let (page, word) = (word / PAGE_WORDS, word % PAGE_WORDS);
        let before = pages[page][word];
        pages[page][word] = random.rotate_left(17) ^ before;
        let _ = Image::from_pages(pages.clone());
        pages[page][word] = before;
    }
}
