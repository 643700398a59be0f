//! Orders sets by their references to each other (topological sort), and finds cycles.

/// An order in which every set comes after those it refers to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The sets, except those that are in a cycle or refer to one.
    pub(super) sets: Vec<usize>,
    /// The cycles: each set refers to the next, the last one to the first.
    pub(super) cycles: Vec<Vec<usize>>,
}

/// Orders sets; `named[i]` are the sets that set `i` refers to.
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
        cycles: cycles(named, &waiting_for),
    }
}

/// Follows the references of the sets that were not ordered. Each refers to another such set, so every walk
/// ends in a cycle or in a set that an earlier walk visited.
fn cycles(named: &[Vec<usize>], waiting_for: &[usize]) -> Vec<Vec<usize>> {
    let waits = |&i: &usize| waiting_for[i] > 0;
    let mut seen = vec![false; named.len()];
    let mut cycles = Vec::new();
    for start in (0..named.len()).filter(waits) {
        let mut path = Vec::new();
        let mut next = Some(start);
        while let Some(at) = next {
            if seen[at] {
                if let Some(first) = path.iter().position(|&i| i == at) {
                    cycles.push(path.split_off(first));
                }
                break;
            }
            seen[at] = true;
            path.push(at);
            next = named[at].iter().copied().find(waits);
        }
    }
    cycles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referenced_sets_come_first() {
        let order = order(&[vec![1, 2], vec![2], vec![], vec![0]]);
        assert_eq!(order.sets, [2, 1, 0, 3]);
        assert!(order.cycles.is_empty());
    }

    #[test]
    fn each_cycle_is_found_once() {
        // 0 -> 1 -> 2 -> 1, 3 -> 3, 4 -> 0, 5 free.
        let order = order(&[vec![1], vec![2], vec![1], vec![3], vec![0], vec![]]);
        assert_eq!(order.sets, [5]);
        assert_eq!(order.cycles, [vec![1, 2], vec![3]]);
    }
}
