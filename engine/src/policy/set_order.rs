//! In which order sets that name each other are put together.

/// An order in which every set comes after those it names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The sets, without those that are in a circle or name one that is.
    pub(super) sets: Vec<usize>,
    /// Circles: each set names the next, the last one the first.
    pub(super) circles: Vec<Vec<usize>>,
}

/// Orders sets; `named[i]` are the sets that set `i` names.
pub(super) fn order(named: &[Vec<usize>]) -> Order {
    let mut waiting_for: Vec<usize> = named.iter().map(Vec::len).collect();
    let mut waiters: Vec<Vec<usize>> = vec![Vec::new(); named.len()];
    for (set, names) in named.iter().enumerate() {
        for &name in names {
            waiters[name].push(set);
        }
    }
    let mut sets: Vec<usize> = (0..named.len()).filter(|&i| waiting_for[i] == 0).collect();
    let mut done = 0;
    while let Some(&set) = sets.get(done) {
        done += 1;
        for &waiter in &waiters[set] {
            waiting_for[waiter] -= 1;
            if waiting_for[waiter] == 0 {
                sets.push(waiter);
            }
        }
    }
    Order {
        sets,
        circles: circles(named, &waiting_for),
    }
}

/// Follows the sets that still wait: each waits for another one of them, so every walk ends in a
/// circle, or in a set where an earlier walk was.
fn circles(named: &[Vec<usize>], waiting_for: &[usize]) -> Vec<Vec<usize>> {
    let waits = |&i: &usize| waiting_for[i] > 0;
    let mut seen = vec![false; named.len()];
    let mut circles = Vec::new();
    for start in (0..named.len()).filter(waits) {
        let mut path = Vec::new();
        let mut next = Some(start);
        while let Some(at) = next {
            if seen[at] {
                if let Some(first) = path.iter().position(|&i| i == at) {
                    circles.push(path.split_off(first));
                }
                break;
            }
            seen[at] = true;
            path.push(at);
            next = named[at].iter().copied().find(waits);
        }
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_comes_first() {
        let order = order(&[vec![1, 2], vec![2], vec![], vec![0]]);
        assert_eq!(order.sets, [2, 1, 0, 3]);
        assert!(order.circles.is_empty());
    }

    #[test]
    fn each_circle_is_found_once() {
        // 0 -> 1 -> 2 -> 1, 3 -> 3, 4 -> 0, 5 free.
        let order = order(&[vec![1], vec![2], vec![1], vec![3], vec![0], vec![]]);
        assert_eq!(order.sets, [5]);
        assert_eq!(order.circles, [vec![1, 2], vec![3]]);
    }
}
