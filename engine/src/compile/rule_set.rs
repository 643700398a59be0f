//! RuleSets: distinct sets of rules, each stored once.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

/// Index of a rule set within one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSetId(pub u32);

/// The distinct rule bitmaps of one policy.
#[derive(Debug)]
pub struct RuleSets {
    words: usize,
    /// All bitmaps, one after the other.
    bitmaps: Vec<u64>,
    hasher: RandomState,
    /// Newest rule_set of each hash; `older` chains those of the same hash.
    newest: HashMap<u64, RuleSetId>,
    older: Vec<Option<RuleSetId>>,
    /// The two rule_sets last asked for: along a line, a rule's ranges and the gaps between take turns.
    recent: [RuleSetId; 2],
}

impl RuleSets {
    /// Class of all rules; interned from the start.
    pub const EVERY: RuleSetId = RuleSetId(0);

    /// RuleSets of a policy of `rules` rules.
    pub fn new(rules: usize) -> RuleSets {
        let words = rules.div_ceil(64).max(1);
        let mut every = vec![0u64; words];
        for rule in 0..rules {
            set(&mut every, rule);
        }
        let mut rule_sets = RuleSets {
            words,
            bitmaps: Vec::new(),
            hasher: RandomState::new(),
            newest: HashMap::new(),
            older: Vec::new(),
            recent: [RuleSets::EVERY; 2],
        };
        rule_sets.add(&every);
        rule_sets
    }

    /// Words of a bitmap.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Number of rule_sets.
    pub fn count(&self) -> usize {
        self.older.len()
    }

    /// The rules of a rule_set.
    pub fn bitmap(&self, rule_set: RuleSetId) -> &[u64] {
        let at = rule_set.0 as usize * self.words;
        &self.bitmaps[at..at + self.words]
    }

    /// The rule_set of a bitmap of [`RuleSets::words`] words.
    pub fn intern(&mut self, bitmap: &[u64]) -> RuleSetId {
        for rule_set in self.recent {
            if self.bitmap(rule_set) == bitmap {
                return rule_set;
            }
        }
        let rule_set = self.find(bitmap).unwrap_or_else(|| self.add(bitmap));
        self.recent = [rule_set, self.recent[0]];
        rule_set
    }

    fn find(&self, bitmap: &[u64]) -> Option<RuleSetId> {
        let mut next = self.newest.get(&self.hasher.hash_one(bitmap)).copied();
        while let Some(rule_set) = next {
            if self.bitmap(rule_set) == bitmap {
                return next;
            }
            next = self.older[rule_set.0 as usize];
        }
        None
    }

    fn add(&mut self, bitmap: &[u64]) -> RuleSetId {
        let rule_set = RuleSetId(self.older.len() as u32);
        self.bitmaps.extend_from_slice(bitmap);
        let older = self.newest.insert(self.hasher.hash_one(bitmap), rule_set);
        self.older.push(older);
        rule_set
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
