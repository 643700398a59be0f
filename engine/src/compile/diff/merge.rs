//! The lines of two images walked side by side: which keys which rule gains and loses.

use super::{Image, Walk, pairing::Pairing};
use crate::compile::entry::LineKey;

/// What becomes of a key of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Only the new image's rule covers it.
    Gained,
    /// Only the old image's rule covers it.
    Lost,
}

/// One rule at the key that the walk has come to.
#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    old: bool,
    new: bool,
    /// What becomes of its keys, since which.
    open: Option<(Fate, K)>,
}

impl<K> Slot<K> {
    fn fate(&self) -> Option<Fate> {
        match (self.old, self.new) {
            (false, true) => Some(Fate::Gained),
            (true, false) => Some(Fate::Lost),
            _ => None,
        }
    }
}

/// Reports slot, fate, first and last key of every range that a rule gains or loses; those of one
/// rule in the order of their keys, and never two that touch and have one fate.
///
/// The work is that of the edges: a rule is only looked at where it starts or stops covering keys,
/// however many sections the others cut in between.
pub(super) fn compare<K: LineKey>(
    pairing: &Pairing,
    (old, new): (&Image, &Image),
    (old_walk, new_walk): &(Walk<K>, Walk<K>),
    mut report: impl FnMut(usize, Fate, K, K),
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
            let fate = slot.fate();
            if fate == slot.open.map(|(fate, _)| fate) {
                continue;
            }
            // What is open began at a key before this one.
            if let (Some((fate, start)), Some(end)) = (slot.open, at.previous()) {
                report(index, fate, start, end);
            }
            slot.open = fate.map(|fate| (fate, at));
        }
    }
    let ends = [old_walk, new_walk].map(|walk| walk.sections.last().map(|section| section.end));
    let Some(end) = ends.into_iter().flatten().max() else {
        return;
    };
    for (index, slot) in slots.iter().enumerate() {
        if let Some((fate, start)) = slot.open {
            report(index, fate, start, end);
        }
    }
}

/// How far one line has been walked.
struct Cursor<'a, K> {
    image: &'a Image,
    walk: &'a Walk<K>,
    /// Slot of each rule.
    slots: &'a [usize],
    /// Number of the section that comes next.
    next: usize,
    /// The rules of the section before it.
    bitmap: &'a [u64],
}

impl<'a, K: LineKey> Cursor<'a, K> {
    fn new(image: &'a Image, walk: &'a Walk<K>, slots: &'a [usize]) -> Cursor<'a, K> {
        Cursor {
            image,
            walk,
            slots,
            next: 0,
            bitmap: &[],
        }
    }

    /// First key of the section that comes next.
    fn start(&self) -> Option<K> {
        self.walk.sections.get(self.next).map(|section| section.start)
    }

    /// Goes on by a section; calls with the slot of each rule that starts or stops there.
    fn step(&mut self, mut flipped: impl FnMut(usize)) {
        let Some(section) = self.walk.sections.get(self.next) else {
            return;
        };
        self.next += 1;
        let first = section.class.0 as usize;
        let count = self.image.header().bitmap_words();
        // Images are read through before they get here: the bitmap is there.
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
