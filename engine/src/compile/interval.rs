//! From the ranges that rules cover to elementary intervals, each with its class.

use super::rule_set::{Classes, RuleSetId, flip};

/// A key of a line.
pub trait Key: Copy + Ord + Into<u128> {
    /// The next key, if there is one.
    fn next(self) -> Option<Self>;
    /// The key before, if there is one.
    fn previous(self) -> Option<Self>;
}

macro_rules! key {
    ($($t:ty),*) => {$(
        impl Key for $t {
            fn next(self) -> Option<Self> { self.checked_add(1) }
            fn previous(self) -> Option<Self> { self.checked_sub(1) }
        }
    )*};
}
key!(u32, u128);

/// Keys from the interval before up to `end`, included, that the same rules cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval<K> {
    /// Last key.
    pub end: K,
    /// The rules.
    pub class: RuleSetId,
}

/// Cuts the key space up to `last` into elementary intervals. `spans` are inclusive ranges with the
/// rule that covers them; the ranges of one rule must not overlap each other. Neighbours of one
/// class are one interval, so the result is as short as it can be.
pub fn cut<K: Key>(
    spans: impl IntoIterator<Item = (K, K, usize)>,
    last: K,
    classes: &mut Classes,
) -> Vec<Interval<K>> {
    // Where a rule starts or stops covering; both are the flip of its bit.
    let mut edges: Vec<(K, u32)> = Vec::new();
    for (start, end, rule) in spans {
        edges.push((start, rule as u32));
        if let Some(after) = end.next() {
            edges.push((after, rule as u32));
        }
    }
    edges.sort_unstable();

    let mut intervals: Vec<Interval<K>> = Vec::new();
    let mut covering = vec![0u64; classes.words()];
    let mut close = |end: K, covering: &[u64], classes: &mut Classes| {
        let class = classes.intern(covering);
        match intervals.last_mut() {
            Some(before) if before.class == class => before.end = end,
            _ => intervals.push(Interval { end, class }),
        }
    };
    // All flips at one key come before the interval that starts there.
    for group in edges.chunk_by(|a, b| a.0 == b.0) {
        let at = group[0].0;
        if at > last {
            break;
        }
        if let Some(before) = at.previous() {
            close(before, &covering, classes);
        }
        for &(_, rule) in group {
            flip(&mut covering, rule as usize);
        }
    }
    close(last, &covering, classes);
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_class_are_one_interval() {
        let mut classes = Classes::new(2);
        let cut = cut([(0u32, 9, 0), (10, 19, 0), (5, 6, 1)], 99, &mut classes);
        let shape: Vec<_> = cut.iter().map(|i| (i.end, classes.bitmap(i.class)[0])).collect();
        assert_eq!(shape, [(4, 0b01), (6, 0b11), (19, 0b01), (99, 0)]);
    }

    #[test]
    fn the_whole_line_is_covered() {
        let mut classes = Classes::new(1);
        assert_eq!(cut([], u32::MAX, &mut classes).len(), 1);
        let cut = cut([(0u32, u32::MAX, 0)], u32::MAX, &mut classes);
        assert_eq!(
            cut,
            [Interval {
                end: u32::MAX,
                class: Classes::EVERY
            }]
        );
    }
}
