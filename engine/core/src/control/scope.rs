//! The scope of a cgroup, with a policy added or removed.

use engine_common::{
    Mode,
    limits::MAX_STACKED,
    scope::{HookSet, Scope, SlotRef},
};

use crate::datapath::Slot;

/// The scope of a cgroup without a policy; strict where the egress filter is to be attached.
pub(super) fn empty(cgroup: u64, level: Option<u32>, strict: bool) -> Scope {
    Scope {
        cgroup,
        level: level.unwrap_or(Scope::UNKNOWN_LEVEL),
        flags: if strict { Scope::STRICT } else { 0 },
        slots: [SlotRef::NONE; MAX_STACKED],
    }
}

/// Whether the scope refers to the slot.
pub(super) fn has(scope: &Scope, slot: Slot) -> bool {
    scope
        .slots
        .iter()
        .any(|reference| reference.slot() == Some(slot.0))
}

/// Whether the scope has no policies.
pub(super) fn is_empty(scope: &Scope) -> bool {
    scope.slots.iter().all(|reference| reference.slot().is_none())
}

/// Number of policies in the scope.
pub(super) fn count(scope: &Scope) -> usize {
    scope
        .slots
        .iter()
        .filter(|reference| reference.slot().is_some())
        .count()
}

/// The scope with a policy of this slot and mode, for these hooks; `None` where it has the maximum number of policies.
pub(super) fn with(scope: &Scope, slot: Slot, mode: Mode, hooks: HookSet) -> Option<Scope> {
    let mut changed = *scope;
    let at = changed
        .slots
        .iter()
        .position(|reference| reference.slot().is_none_or(|used| used == slot.0))?;
    changed.slots[at] = SlotRef::new(slot.0, mode).for_hooks(hooks);
    Some(changed.with_flags())
}

/// The scope without the slot; the others keep their order.
pub(super) fn without(scope: &Scope, slot: Slot) -> Scope {
    let mut changed = *scope;
    changed.slots = [SlotRef::NONE; MAX_STACKED];
    let others = scope
        .slots
        .iter()
        .filter(|reference| reference.slot() != Some(slot.0));
    for (to, from) in changed.slots.iter_mut().zip(others) {
        *to = *from;
    }
    changed.with_flags()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOKS: HookSet = HookSet::CGROUP.union(HookSet::TRACER);

    #[test]
    fn policies_come_and_go_in_their_order() {
        let none = empty(7, Some(2), false);
        assert!(is_empty(&none));
        let one = with(&none, Slot(3), Mode::Enforce, HOOKS).unwrap();
        let two = with(&one, Slot(5), Mode::Audit, HOOKS).unwrap();
        assert_eq!(
            (count(&two), has(&two, Slot(5)), has(&one, Slot(5))),
            (2, true, false)
        );
        assert_eq!(with(&two, Slot(3), Mode::Enforce, HOOKS), Some(two));
        let other = with(&two, Slot(3), Mode::Audit, HOOKS).unwrap();
        assert_eq!((count(&other), other.slots[0].mode()), (2, Mode::Audit));
        assert_eq!((none.flags, two.flags), (0, Scope::LOCAL_ADDRESSES));
        let left = without(&two, Slot(3));
        assert_eq!((left.slots[0].slot(), count(&left)), (Some(5), 1));
        assert_eq!(without(&left, Slot(5)), none);
        let full = (0..8).fold(none, |scope, slot| {
            with(&scope, Slot(slot), Mode::Enforce, HOOKS).unwrap()
        });
        assert_eq!(with(&full, Slot(9), Mode::Enforce, HOOKS), None);
    }
}
