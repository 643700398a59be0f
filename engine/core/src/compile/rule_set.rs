//! The distinct sets of rules (equivalence classes of keys), each stored once as a bitmap.

use std::{collections::hash_map::RandomState, hash::BuildHasher};

use hashbrown::{HashTable, hash_table::Entry};

/// Index of a rule set within one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSetId(pub u32);

/// The distinct rule bitmaps of one policy, one bit for each rule.
#[derive(Debug)]
pub struct RuleSets {
    /// Words of each bitmap.
    words: usize,
    /// All bitmaps, ordered by id.
    bitmaps: Vec<u64>,
    /// Finds the id of a bitmap by its hash.
    ids: HashTable<RuleSetId>,
    hasher: RandomState,
    /// The two sets interned last: within a dimension, the ranges of a rule alternate with the gaps between them.
    recent: [RuleSetId; 2],
}

impl RuleSets {
    /// The set of all rules, which is always interned.
    pub const EVERY: RuleSetId = RuleSetId(0);

    /// Rule sets for a policy of `rules` rules.
    pub fn new(rules: usize) -> RuleSets {
        let words = rules.div_ceil(64).max(1);
        let mut every = vec![0u64; words];
        for rule in 0..rules {
            set(&mut every, rule);
        }
        let mut rule_sets = RuleSets {
            words,
            bitmaps: Vec::new(),
            ids: HashTable::new(),
            hasher: RandomState::new(),
            recent: [RuleSets::EVERY; 2],
        };
        rule_sets.find_or_add(&every);
        rule_sets
    }

    /// Number of words in each bitmap.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Number of rule sets.
    pub fn count(&self) -> usize {
        self.bitmaps.len() / self.words
    }

    /// The bitmap of a rule set.
    pub fn bitmap(&self, id: RuleSetId) -> &[u64] {
        bitmap(&self.bitmaps, self.words, id)
    }

    /// The id of a bitmap of [`RuleSets::words`] words. Ids are assigned in the order of the calls.
    pub fn intern(&mut self, bitmap: &[u64]) -> RuleSetId {
        for id in self.recent {
            if self.bitmap(id) == bitmap {
                return id;
            }
        }
        let id = self.find_or_add(bitmap);
        self.recent = [id, self.recent[0]];
        id
    }

    fn find_or_add(&mut self, new: &[u64]) -> RuleSetId {
        let (bitmaps, words) = (&mut self.bitmaps, self.words);
        let entry = self.ids.entry(
            self.hasher.hash_one(new),
            |&id| bitmap(bitmaps, words, id) == new,
            |&id| self.hasher.hash_one(bitmap(bitmaps, words, id)),
        );
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let id = RuleSetId((bitmaps.len() / words) as u32);
                bitmaps.extend_from_slice(new);
                free.insert(id);
                id
            }
        }
    }
}

fn bitmap(bitmaps: &[u64], words: usize, id: RuleSetId) -> &[u64] {
    &bitmaps[id.0 as usize * words..][..words]
}

/// Sets the bit of a rule.
pub(super) fn set(bitmap: &mut [u64], rule: usize) {
    if let Some(word) = bitmap.get_mut(rule / 64) {
        *word |= 1 << (rule % 64);
    }
}

/// Inverts the bit of a rule.
pub(super) fn flip(bitmap: &mut [u64], rule: usize) {
    if let Some(word) = bitmap.get_mut(rule / 64) {
        *word ^= 1 << (rule % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bitmaps_have_one_id() {
        let mut rule_sets = RuleSets::new(70);
        let every = rule_sets.bitmap(RuleSets::EVERY).to_vec();
        assert_eq!(every, [u64::MAX, 0b11_1111]);
        let ids: Vec<_> = (0..100u64).map(|i| rule_sets.intern(&[i, 1])).collect();
        assert_eq!(rule_sets.count(), 101);
        for (i, &id) in ids.iter().enumerate() {
            assert_eq!(rule_sets.bitmap(id), [i as u64, 1]);
            assert_eq!(rule_sets.intern(&[i as u64, 1]), id);
        }
        assert_eq!(rule_sets.intern(&every), RuleSets::EVERY);
    }
}
