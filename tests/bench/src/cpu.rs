//! Which thread runs where: one that measures must not share its core with the one that reads events.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is timed.
    Caller,
    /// It reads events.
    Reader,
    /// Whatever: all cores are its.
    Any,
}

/// The cores that this process was given.
fn given() -> Vec<usize> {
    use std::sync::OnceLock;
    static GIVEN: OnceLock<Vec<usize>> = OnceLock::new();
    let look = || {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        (0..CpuSet::count())
            .filter(|&core| set.is_set(core).unwrap_or(false))
            .collect()
    };
    GIVEN.get_or_init(look).clone()
}

/// Keeps this thread to the cores of its role; with one core for all there is nothing to keep to.
pub(crate) fn pin_to(role: Role) {
    let cores = given();
    let cores: &[usize] = match (role, cores.as_slice()) {
        (Role::Caller, [.., last]) => &[*last],
        (Role::Reader, [first, ..]) => &[*first],
        (_, all) => all,
    };
    let mut set = CpuSet::new();
    for &core in cores {
        // A core of the set that we were given.
        let _ = set.set(core);
    }
    // Refused, the scheduler decides, and the spread shows it.
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}
