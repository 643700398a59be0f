//! Judges a call by the scopes of the calling task.

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
    enforce::{Denial, EPERM, PackedVerdict},
    features, task_scope,
};

/// Whether this hook must see to an answer about a socket of the same scope, since the cgroup hook cannot do
/// what it says.
#[inline(always)]
fn is_beyond_cgroup_hook(answer: PackedVerdict) -> bool {
    if let Mode::Audit = answer.life().mode {
        return false;
    }
    match answer.verdict().action() {
        Action::Kill => features::has_send_signal() == 0 || is_beyond_errno(answer),
        Action::Block => is_beyond_errno(answer),
        Action::Allow | Action::Audit => false,
    }
}

#[inline(always)]
fn is_beyond_errno(answer: PackedVerdict) -> bool {
    features::has_set_retval() == 0 && answer.errno() != EPERM
}

/// Whether there is anything that a cgroup hook cannot do: otherwise sockets of the same scope need not be asked
/// about.
#[inline(always)]
fn are_cgroup_hooks_short() -> bool {
    features::has_send_signal() == 0 || features::has_set_retval() == 0
}

/// Judges a call by the scope of the task at one depth; the denial, or 0. A global function: checked once, and not once a
/// depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_level(level: u32, socket: u64, name: u64, call: u64) -> u64 {
    judge_at::<true>(level, socket, name, call)
}

/// The same for hooks that no call with an address comes to: half of it is not theirs, and the verifier follows all that
/// could be called.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_socket_level(level: u32, socket: u64, call: u64) -> u64 {
    judge_at::<false>(level, socket, 0, call)
}

/// Of a call that is denied already it tells what those policies say that leave it to a cgroup hook, which will not see
/// it.
#[inline(always)]
fn judge_at<const ADDRESSES: bool>(level: u32, socket: u64, name: u64, call: u64) -> u64 {
    let ask = |reference: u32| {
        PackedVerdict::from_word(if ADDRESSES {
            evaluate_for_task(socket, name, call, reference)
        } else {
            evaluate_about_socket(call, reference)
        })
    };
    let Some(scope) = task_scope::at_level(level & 0xff) else {
        return 0;
    };
    let call = Call(call);
    let is_create = call.hook() == Hook::LsmCreate as u8;
    let is_family = call.protocol().family().is_some();
    let own = is_create || task_scope::ancestor_of_socket(socket, level & 0xff) == scope.cgroup;
    // A cgroup hook follows, or has been there: at connect for what has addresses, at the socket for the rest.
    let follows = own && !(is_create && is_family);
    if own && !is_create && !call.is_named() {
        // What is connected was judged then, and the others when they were made.
        return 0;
    }
    if follows && !call.is_denied() && scope.flags & Scope::NO_CGROUP_HOOKS == 0 && !are_cgroup_hooks_short()
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
        let defers = follows && reference.is_for_cgroup();
        let mut answer = ask(reference.0 | SlotRef::ANY_ERRNO | SlotRef::UNCOUNTED);
        let is_ours = forget((!defers || is_beyond_cgroup_hook(answer)) as u64, unknown);
        if is_ours != call.is_denied() as u64 {
            // Counted only by whoever sees to it.
            answer = ask(reference.0 | SlotRef::ANY_ERRNO);
            if !matches!(answer.verdict().action(), Action::Allow) {
                let told = call.about(own, slot);
                let outcome = if ADDRESSES && call.is_address() {
                    enforce_about_address(socket, name, told.0, answer.word(), scope.cgroup)
                } else {
                    enforce_about_socket(socket, told.0, answer.word(), scope.cgroup)
                };
                denial = Denial(forget(denial.joined(outcome as u8, answer.errno()).0, unknown));
            }
        }
        i += 1;
    }
    denial.0
}

/// Judges a call by all scopes of the task, the nearest first, whose errno holds.
#[inline(always)]
pub(super) fn judge(socket: u64, name: u64, call: Call) -> i32 {
    judge_by(call, |level, call| evaluate_level(level, socket, name, call))
}

/// The same of a call without an address, whatever it says.
#[inline(always)]
pub(super) fn evaluate_without_address(socket: u64, call: Call) -> i32 {
    judge_by(call, |level, call| evaluate_socket_level(level, socket, call))
}

#[inline(always)]
fn judge_by(call: Call, evaluate_level: impl Fn(u32, u64) -> u64) -> i32 {
    let levels = task_scope::levels();
    if levels == 0 {
        return 0;
    }
    let mut denial = 0;
    let mut level = Scope::LEVELS;
    while level > 0 {
        level -= 1;
        if levels >> level & 1 != 0 {
            let one = evaluate_level(level, call.0);
            if denial == 0 {
                denial = one;
            }
        }
        denial = forget(denial, levels);
    }
    if denial != 0 {
        // No cgroup hook comes after this one.
        level = Scope::LEVELS;
        while level > 0 {
            level -= 1;
            if levels >> level & 1 != 0 {
                evaluate_level(level, call.when_denied().0);
            }
        }
    }
    errno(denial, levels)
}

/// What the program returns for an errno. Newer verifiers (6.12) want to see that it is one, and see nothing
/// through a negation.
#[inline(always)]
pub(super) fn errno(number: u64, unknown: u64) -> i32 {
    let complement = forget(MAX_ERRNO.wrapping_sub(number), unknown) & MAX_ERRNO;
    complement as i32 - MAX_ERRNO as i32
}

/// Greatest errno (include/linux/err.h).
const MAX_ERRNO: u64 = 4095;

/// What programs before this one returned is returned again, without a look at the call.
#[inline(always)]
pub(super) fn is_denied(before: u64) -> bool {
    before as u32 != 0
}

#[inline(always)]
pub(super) fn denied(before: u64) -> i32 {
    errno(0u64.wrapping_sub(before as i32 as u64) & MAX_ERRNO, before)
}
