//! Merges the tables of two images and reports the key ranges that each rule gains and loses.

use super::{Image, Walk, pairing::Pairing};
use crate::compile::entry::TableKey;

/// How the coverage of a key by a rule changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoverageChange {
    /// Only the rule of the new image covers it.
    Gained,
    /// Only the rule of the old image covers it.
    Lost,
}

/// The state of one rule at the current key.
#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    /// Whether the rule of the old image covers the key.
    old: bool,
    /// Whether the rule of the new image covers the key.
    new: bool,
    /// The change in progress and its first key.
    open: Option<(CoverageChange, K)>,
}

impl<K> Slot<K> {
    fn change(&self) -> Option<CoverageChange> {
        match (self.old, self.new) {
            (false, true) => Some(CoverageChange::Gained),
            (true, false) => Some(CoverageChange::Lost),
            _ => None,
        }
    }
}

/// Reports slot, change, first and last key of every range that a rule gains or loses. The ranges of one
/// rule are in key order, and adjacent ranges with the same change are merged.
///
/// The work is proportional to the number of edges: a rule is only visited where it starts or stops
/// covering keys.
pub(super) fn compare<K: TableKey>(
    pairing: &Pairing,
    (old, new): (&Image, &Image),
    (old_walk, new_walk): &(Walk<K>, Walk<K>),
    mut report: impl FnMut(usize, CoverageChange, K, K),
) {
    let none = Slot {
        old: false,
        new: false,
        open: None,
    };
    let mut slots = vec![none; pairing.slots()];
    let mut touched: Vec<usize> = Vec::new();
    let mut old = Cursor::new(old, old_walk, &pairing.old_slots);
    let mut new = Cursor::new(new, new_walk, &pairing.new_slots);
    while let Some(at) = [old.start(), new.start()].into_iter().flatten().min() {
        if old.start() == Some(at) {
            old.step(|slot| {
                slots[slot].old ^= true;
                touched.push(slot);
            });
        }
        if new.start() == Some(at) {
            new.step(|slot| {
                slots[slot].new ^= true;
                touched.push(slot);
            });
        }
        for index in touched.drain(..) {
            let slot = &mut slots[index];
            let change = slot.change();
            if change == slot.open.map(|(change, _)| change) {
                continue;
            }
            // The open change started at an earlier key.
            if let (Some((change, start)), Some(end)) = (slot.open, at.previous()) {
                report(index, change, start, end);
            }
            slot.open = change.map(|change| (change, at));
        }
    }
    let ends = [old_walk, new_walk].map(|walk| walk.ranges.last().map(|range| range.end));
    let Some(end) = ends.into_iter().flatten().max() else {
        return;
    };
    for (index, slot) in slots.iter().enumerate() {
        if let Some((change, start)) = slot.open {
            report(index, change, start, end);
        }
    }
}

/// The position in the table of one image.
struct Cursor<'a, K> {
    image: &'a Image,
    walk: &'a Walk<K>,
    /// Slot of each rule.
    slots: &'a [usize],
    /// Index of the next range.
    next: usize,
    /// The rules of the current range.
    bitmap: &'a [u64],
}

impl<'a, K: TableKey> Cursor<'a, K> {
    fn new(image: &'a Image, walk: &'a Walk<K>, slots: &'a [usize]) -> Cursor<'a, K> {
        Cursor {
            image,
            walk,
            slots,
            next: 0,
            bitmap: &[],
        }
    }

    /// First key of the next range.
    fn start(&self) -> Option<K> {
        self.walk.ranges.get(self.next).map(|range| range.start)
    }

    /// Moves to the next range. Calls `flipped` with the slot of each rule that starts or stops there.
    fn step(&mut self, mut flipped: impl FnMut(usize)) {
        let Some(range) = self.walk.ranges.get(self.next) else {
            return;
        };
        self.next += 1;
        let first = range.bitmap.0 as usize;
        let count = self.image.header().bitmap_words();
        // Images are checked when they are read, so the bitmap is inside the image.
        let bitmap = self.image.words().get(first..first + count).unwrap_or_default();
        for word in 0..count {
            let of = |bitmap: &[u64]| bitmap.get(word).copied().unwrap_or(0);
            let mut flips = of(self.bitmap) ^ of(bitmap);
            while flips != 0 {
                let rule = word * 64 + flips.trailing_zeros() as usize;
                flips &= flips - 1;
                if let Some(&slot) = self.slots.get(rule) {
                    flipped(slot);
                }
            }
        }
        self.bitmap = bitmap;
    }
}
