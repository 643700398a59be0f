//! Classes: distinct sets of rules, each stored once.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

/// Number of a class within one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSetId(pub u32);

/// The distinct rule bitmaps of one policy.
#[derive(Debug)]
pub struct Classes {
    words: usize,
    /// All bitmaps, one after the other.
    bitmaps: Vec<u64>,
    hasher: RandomState,
    /// Newest class of each hash; `older` chains those of the same hash.
    newest: HashMap<u64, RuleSetId>,
    older: Vec<Option<RuleSetId>>,
    /// The two classes last asked for: along a line, a rule's ranges and the gaps between take turns.
    recent: [RuleSetId; 2],
}

impl Classes {
    /// Class of all rules; interned from the start.
    pub const EVERY: RuleSetId = RuleSetId(0);

    /// Classes of a policy of `rules` rules.
    pub fn new(rules: usize) -> Classes {
        let words = rules.div_ceil(64).max(1);
        let mut every = vec![0u64; words];
        for rule in 0..rules {
            set(&mut every, rule);
        }
        let mut classes = Classes {
            words,
            bitmaps: Vec::new(),
            hasher: RandomState::new(),
            newest: HashMap::new(),
            older: Vec::new(),
            recent: [Classes::EVERY; 2],
        };
        classes.add(&every);
        classes
    }

    /// Words of a bitmap.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Number of classes.
    pub fn count(&self) -> usize {
        self.older.len()
    }

    /// The rules of a class.
    pub fn bitmap(&self, class: RuleSetId) -> &[u64] {
        let at = class.0 as usize * self.words;
        &self.bitmaps[at..at + self.words]
    }

    /// The class of a bitmap of [`Classes::words`] words.
    pub fn intern(&mut self, bitmap: &[u64]) -> RuleSetId {
        for class in self.recent {
            if self.bitmap(class) == bitmap {
                return class;
            }
        }
        let class = self.find(bitmap).unwrap_or_else(|| self.add(bitmap));
        self.recent = [class, self.recent[0]];
        class
    }

    fn find(&self, bitmap: &[u64]) -> Option<RuleSetId> {
        let mut next = self.newest.get(&self.hasher.hash_one(bitmap)).copied();
        while let Some(class) = next {
            if self.bitmap(class) == bitmap {
                return next;
            }
            next = self.older[class.0 as usize];
        }
        None
    }

    fn add(&mut self, bitmap: &[u64]) -> RuleSetId {
        let class = RuleSetId(self.older.len() as u32);
        self.bitmaps.extend_from_slice(bitmap);
        let older = self.newest.insert(self.hasher.hash_one(bitmap), class);
        self.older.push(older);
        class
    }
}

/// Sets the bit of a rule.
pub(super) fn set(bitmap: &mut [u64], rule: usize) {
    if let Some(word) = bitmap.get_mut(rule / 64) {
        *word |= 1 << (rule % 64);
    }
}

/// Flips the bit of a rule.
pub(super) fn flip(bitmap: &mut [u64], rule: usize) {
    if let Some(word) = bitmap.get_mut(rule / 64) {
        *word ^= 1 << (rule % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_a_bitmap() {
        let mut classes = Classes::new(70);
        let every = classes.bitmap(Classes::EVERY).to_vec();
        assert_eq!(every, [u64::MAX, 0b11_1111]);
        let ids: Vec<_> = (0..100u64).map(|i| classes.intern(&[i, 1])).collect();
        assert_eq!(classes.count(), 101);
        for (i, &id) in ids.iter().enumerate() {
            assert_eq!(classes.bitmap(id), [i as u64, 1]);
            assert_eq!(classes.intern(&[i as u64, 1]), id);
        }
        assert_eq!(classes.intern(&every), Classes::EVERY);
    }
}
