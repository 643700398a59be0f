//! Splits the ranges that rules cover into elementary intervals, each with its rule set.

use super::rule_set::{RuleSetId, RuleSets, flip};
use crate::policy::address_set::Key;

/// A range of keys that the same rules cover. It starts after the previous interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval<K> {
    /// Last key, inclusive.
    pub(super) end: K,
    /// The rules that cover the range.
    pub(super) rule_set: RuleSetId,
}

/// Splits the keys from 0 to `last` into elementary intervals. `spans` are inclusive ranges with the
/// rule that covers them; the ranges of one rule must not overlap. Adjacent intervals with the same
/// rule set are merged.
pub(super) fn split<K: Key>(
    spans: impl IntoIterator<Item = (K, K, usize)>,
    last: K,
    rule_sets: &mut RuleSets,
) -> Vec<Interval<K>> {
    // The keys where a rule starts or stops covering. Both invert its bit.
    let mut edges: Vec<(K, u32)> = Vec::new();
    for (start, end, rule) in spans {
        edges.push((start, rule as u32));
        if let Some(after) = end.next() {
            edges.push((after, rule as u32));
        }
    }
    edges.sort_unstable();

    let mut intervals: Vec<Interval<K>> = Vec::new();
    let mut covering = vec![0u64; rule_sets.words()];
    let mut close = |end: K, covering: &[u64], rule_sets: &mut RuleSets| {
        let rule_set = rule_sets.intern(covering);
        match intervals.last_mut() {
            Some(before) if before.rule_set == rule_set => before.end = end,
            _ => intervals.push(Interval { end, rule_set }),
        }
    };
    // Apply all edges at one key before the interval that starts there is closed.
    for group in edges.chunk_by(|a, b| a.0 == b.0) {
        let at = group[0].0;
        if at > last {
            break;
        }
        if let Some(before) = at.previous() {
            close(before, &covering, rule_sets);
        }
        for &(_, rule) in group {
            flip(&mut covering, rule as usize);
        }
    }
    close(last, &covering, rule_sets);
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_ranges_with_one_rule_set_are_merged() {
        let mut rule_sets = RuleSets::new(2);
        let intervals = split([(0u32, 9, 0), (10, 19, 0), (5, 6, 1)], 99, &mut rule_sets);
        let shape: Vec<_> = intervals
            .iter()
            .map(|i| (i.end, rule_sets.bitmap(i.rule_set)[0]))
            .collect();
        assert_eq!(shape, [(4, 0b01), (6, 0b11), (19, 0b01), (99, 0)]);
    }

    #[test]
    fn all_keys_are_covered() {
        let mut rule_sets = RuleSets::new(1);
        assert_eq!(split([], u32::MAX, &mut rule_sets).len(), 1);
        let intervals = split([(0u32, u32::MAX, 0)], u32::MAX, &mut rule_sets);
        assert_eq!(
            intervals,
            [Interval {
                end: u32::MAX,
                rule_set: RuleSets::EVERY
            }]
        );
    }
}
