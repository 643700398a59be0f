//! CPU affinity: the thread that measures must not share a core with the thread that reads events.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The role of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes the timed calls.
    Caller,
    /// Reads events.
    Reader,
    /// Anything else: may use all cores.
    Any,
}

/// The cores that this process may use.
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

/// Pins this thread to the core of its role. Has no effect with one core.
pub(crate) fn pin_to(role: Role) {
    let cores = given();
    let cores: &[usize] = match (role, cores.as_slice()) {
        (Role::Caller, [.., last]) => &[*last],
        (Role::Reader, [first, ..]) => &[*first],
        (_, all) => all,
    };
    let mut set = CpuSet::new();
    for &core in cores {
        // Cannot fail: the core comes from the affinity mask.
        let _ = set.set(core);
    }
    // Best effort: without affinity the spread of the results is larger.
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}
