//! Checks a call against the scopes of the calling task.

use engine_common::{
    Action, Hook, Mode,
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
    verifier::forget,
};

use super::call::{
    Call, enforce_about_address, enforce_about_socket, evaluate_about_socket, evaluate_for_task,
};
use crate::{
    enforce::Denial,
    evaluate::{EPERM, PackedVerdict},
    features, task_scope,
};

/// Whether this hook must enforce a verdict about a socket of the same scope, because the cgroup hook cannot kill or
/// return the errno.
#[inline(always)]
fn is_beyond_cgroup_hook(packed: PackedVerdict) -> bool {
    if let Mode::Audit = packed.revision().mode {
        return false;
    }
    match packed.verdict().action() {
        Action::Kill => features::has_send_signal() == 0 || is_beyond_errno(packed),
        Action::Block => is_beyond_errno(packed),
        Action::Allow | Action::Audit => false,
    }
}

#[inline(always)]
fn is_beyond_errno(packed: PackedVerdict) -> bool {
    features::has_set_retval() == 0 && packed.errno() != EPERM
}

/// Whether cgroup hooks lack a feature on this kernel; otherwise sockets of the same scope need no evaluation here.
#[inline(always)]
fn are_cgroup_hooks_limited() -> bool {
    features::has_send_signal() == 0 || features::has_set_retval() == 0
}

/// Checks a call against the task's scope at one depth; returns the [`Denial`]. A global function: the verifier checks
/// it once, not once per depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn check_level(level: u32, socket: u64, name: u64, call: u64) -> u64 {
    check_scope::<true>(level, socket, name, call)
}

/// The same for hooks whose calls have no address: the verifier checks all functions that could be called, and these
/// hooks need only half of them.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn check_socket_level(level: u32, socket: u64, call: u64) -> u64 {
    check_scope::<false>(level, socket, 0, call)
}

/// Evaluates and enforces the policies of a scope that no cgroup hook enforces for this call. For a call that is denied
/// already it enforces the others: the cgroup hook will not run.
#[inline(always)]
fn check_scope<const ADDRESSES: bool>(level: u32, socket: u64, name: u64, call: u64) -> u64 {
    let evaluate = |call: Call, reference: u32| {
        PackedVerdict::from_word(if ADDRESSES {
            evaluate_for_task(socket, name, call.0, reference)
        } else {
            evaluate_about_socket(call.0, reference)
        })
    };
    let Some(scope) = task_scope::at_level(level & 0xff) else {
        return 0;
    };
    let call = Call(call);
    let is_create = call.hook() == Hook::LsmCreate as u8;
    let is_family = call.protocol().family().is_some();
    let own = is_create || task_scope::ancestor_of_socket(socket, level & 0xff) == scope.cgroup;
    // A cgroup hook runs after this one or has run before: for connect if the protocol has addresses, otherwise for the
    // creation of the socket.
    let has_cgroup_hook = own && !(is_create && is_family);
    if own && !is_create && !call.is_named() {
        // The destination was checked at connect, a socket without address hook when it was created.
        return 0;
    }
    if has_cgroup_hook
        && !call.is_denied()
        && scope.flags & Scope::NO_CGROUP_HOOKS == 0
        && !are_cgroup_hooks_limited()
    {
        return 0;
    }
    let unknown = scope.cgroup;
    let mut denial = Denial(forget(0, unknown));
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        if !reference.is_for_lsm() {
            i += 1;
            continue;
        }
        let by_cgroup_hook = has_cgroup_hook && reference.is_for_cgroup();
        let call_of_slot = call.with_slot(own, by_cgroup_hook, slot);
        let mut packed = evaluate(
            call_of_slot,
            reference.0 | SlotRef::ANY_ERRNO | SlotRef::UNCOUNTED,
        );
        let by_this_hook = forget((!by_cgroup_hook || is_beyond_cgroup_hook(packed)) as u64, unknown);
        if by_this_hook != call.is_denied() as u64 {
            // Only the hook that enforces a verdict increments its counter.
            packed = evaluate(call_of_slot, reference.0 | SlotRef::ANY_ERRNO);
            if !matches!(packed.verdict().action(), Action::Allow) {
                let outcome = if ADDRESSES && call.is_address() {
                    enforce_about_address(socket, name, call_of_slot.0, packed.word(), scope.cgroup)
                } else {
                    enforce_about_socket(socket, call_of_slot.0, packed.word(), scope.cgroup)
                };
                denial = Denial(forget(denial.joined(outcome as u8, packed.errno()).0, unknown));
            }
        }
        i += 1;
    }
    denial.0
}

/// Checks a call against all scopes of the task and returns the value for the kernel. The nearest scope comes first;
/// its errno is returned.
#[inline(always)]
pub(super) fn check(socket: u64, name: u64, call: Call) -> i32 {
    check_levels(call, |level, call| check_level(level, socket, name, call))
}

/// The same for a call without an address.
#[inline(always)]
pub(super) fn check_without_address(socket: u64, call: Call) -> i32 {
    check_levels(call, |level, call| check_socket_level(level, socket, call))
}

#[inline(always)]
fn check_levels(call: Call, check_level: impl Fn(u32, u64) -> u64) -> i32 {
    let levels = task_scope::levels();
    if levels == 0 {
        return 0;
    }
    let denial = nearest_denial(levels, |level| check_level(level, call.0));
    if denial != 0 {
        // No cgroup hook will run.
        let mut level = Scope::LEVELS;
        while level > 0 {
            level -= 1;
            if levels >> level & 1 != 0 {
                check_level(level, call.when_denied().0);
            }
        }
    }
    errno(denial, levels)
}

/// Checks the scopes at all depths in use, the nearest first, and returns the first denial.
#[inline(always)]
pub(super) fn nearest_denial(levels: u64, check_level: impl Fn(u32) -> u64) -> u64 {
    let mut denial = 0;
    let mut level = Scope::LEVELS;
    while level > 0 {
        level -= 1;
        if levels >> level & 1 != 0 {
            let one = check_level(level);
            if denial == 0 {
                denial = one;
            }
        }
        denial = forget(denial, levels);
    }
    denial
}

/// The return value for an errno. Newer verifiers (6.12) require a return value within the range of errnos, and lose
/// the range in a negation.
#[inline(always)]
pub(super) fn errno(errno: u64, unknown: u64) -> i32 {
    let complement = forget(MAX_ERRNO.wrapping_sub(errno), unknown) & MAX_ERRNO;
    complement as i32 - MAX_ERRNO as i32
}

/// Greatest errno (include/linux/err.h).
const MAX_ERRNO: u64 = 4095;

/// Whether an LSM program that ran before this one has denied the call. Its value is returned, and the call not checked.
#[inline(always)]
pub(super) fn is_denied(before: u64) -> bool {
    before as u32 != 0
}

#[inline(always)]
pub(super) fn denied(before: u64) -> i32 {
    errno(0u64.wrapping_sub(before as i32 as u64) & MAX_ERRNO, before)
}
