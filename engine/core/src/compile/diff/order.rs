//! Finds the rules that moved between two policies.

/// Whether each element is out of order: the smallest number of elements such that the others ascend.
/// `numbers` are distinct.
pub(super) fn out_of_order(numbers: &[usize]) -> Vec<bool> {
    // Longest increasing subsequence: `ends[n]` is the element that ends the best subsequence of length
    // n + 1, `before[i]` the predecessor of element i.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(numbers.len());
    for (i, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|&end| numbers[end] < *number);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = i,
            None => ends.push(i),
        }
    }
    let mut moved = vec![true; numbers.len()];
    let mut next = ends.last().copied();
    while let Some(i) = next {
        moved[i] = false;
        next = before[i];
    }
    moved
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moved(numbers: &[usize]) -> Vec<usize> {
        let moved = out_of_order(numbers);
        numbers
            .iter()
            .zip(moved)
            .filter(|(_, moved)| *moved)
            .map(|(&n, _)| n)
            .collect()
    }

    #[test]
    fn the_fewest_move() {
        assert!(moved(&[]).is_empty());
        assert!(moved(&[0, 1, 2]).is_empty());
        assert_eq!(moved(&[2, 0, 1, 3]), [2]);
        assert_eq!(moved(&[1, 2, 3, 0]), [0]);
        assert_eq!(moved(&[5, 9, 7]).len(), 1);
        assert_eq!(moved(&[3, 2, 1, 0]).len(), 3);
    }

    proptest! {
        #[test]
        fn no_smaller_set_exists(
            numbers in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle()
        ) {
            let moved = out_of_order(&numbers);
            let stay = |is_out: &dyn Fn(usize) -> bool| {
                let stay: Vec<usize> = (0..8).filter(|&i| !is_out(i)).map(|i| numbers[i]).collect();
                stay.is_sorted().then_some(stay.len())
            };
            let most = (0..1u32 << 8).filter_map(|set| stay(&|i| set >> i & 1 == 1)).max();
            prop_assert_eq!(stay(&|i| moved[i]), most);
        }
    }
}
