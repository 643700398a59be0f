//! The scope of a cgroup with policies that are live.

use engine_common::{
    limits::MAX_STACKED,
    scope::{HookSet, Scope, SlotRef},
};

use super::maps::Slot;
use crate::policy::Policy;

/// The scope with these policies in their order, each for the hooks that it selects among `available`. `None` if there are
/// more than [`MAX_STACKED`].
///
/// Without the egress filter (`filters_packets`), calls are checked and packets are not; `host::unmet` reports that.
pub(super) fn of(
    cgroup: u64,
    level: Option<u32>,
    policies: &[(Slot, &Policy)],
    available: HookSet,
    filters_packets: bool,
) -> Option<Scope> {
    let mut slots = [SlotRef::NONE; MAX_STACKED];
    for (reference, (slot, policy)) in slots.get_mut(..policies.len())?.iter_mut().zip(policies) {
        let hooks = policy.hooks.select(available, policy.needed_hooks());
        *reference = SlotRef::new(slot.0, policy.mode).for_hooks(hooks);
    }
    let is_strict = filters_packets && policies.iter().any(|(_, policy)| policy.strict);
    Some(Scope {
        cgroup,
        level: level.unwrap_or(Scope::UNKNOWN_LEVEL),
        flags: if is_strict { Scope::STRICT } else { 0 },
        slots,
    })
}

#[cfg(test)]
mod tests {
    use engine_common::{Action, Mode};

    use super::*;
    use crate::policy::{Hooks, LoadContext, from_flags};

    const LSM: HookSet = HookSet::LSM;
    const CGROUP: HookSet = HookSet::CGROUP;

    fn policy(hooks: Hooks, strict: bool) -> Policy {
        let resolve = |_: &str| Ok(Vec::new());
        let made = from_flags(
            &[],
            Some(Action::Block),
            Mode::Enforce,
            &LoadContext::default(),
            &resolve,
        );
        Policy {
            hooks,
            strict,
            ..made.unwrap().policy
        }
    }

    #[test]
    fn each_policy_has_the_hooks_that_it_selects() {
        let (auto, lsm) = (policy(Hooks::Auto, false), policy(Hooks::Only(LSM), false));
        let policies = [(Slot(4), &auto), (Slot(2), &lsm)];
        let scope = of(7, None, &policies, CGROUP.union(LSM), true).unwrap();
        assert_eq!((scope.cgroup, scope.level), (7, Scope::UNKNOWN_LEVEL));
        let slots: Vec<_> = scope
            .slots
            .iter()
            .map(|slot| (slot.slot(), slot.hooks()))
            .collect();
        assert_eq!(
            slots[..3],
            [
                (Some(4), CGROUP.union(LSM)),
                (Some(2), LSM),
                (None, HookSet::NONE)
            ]
        );
        let scope = of(7, Some(3), &policies, CGROUP, true).unwrap();
        assert_eq!((scope.level, scope.slots[0].hooks()), (3, CGROUP));
        assert_eq!(
            (scope.slots[1].slot(), scope.slots[1].hooks()),
            (Some(2), HookSet::NONE)
        );
    }

    #[test]
    fn a_scope_is_strict_if_packets_are_filtered_and_a_policy_is_strict() {
        let (plain, strict) = (policy(Hooks::Auto, false), policy(Hooks::Auto, true));
        let is_strict = |policies: &[_], filters| of(7, None, policies, CGROUP, filters).unwrap().is_strict();
        let both = [(Slot(0), &plain), (Slot(1), &strict)];
        assert!(is_strict(&both, true));
        assert!(!is_strict(&both, false));
        assert!(!is_strict(&both[..1], true));
    }

    #[test]
    fn no_policy_is_left_out() {
        let one = policy(Hooks::Auto, false);
        let policies: Vec<_> = (0..)
            .map(|slot| (Slot(slot), &one))
            .take(MAX_STACKED + 1)
            .collect();
        let full = of(7, None, &policies[1..], CGROUP, true).unwrap();
        assert_eq!(full.slots[MAX_STACKED - 1].slot(), Some(8));
        assert_eq!(of(7, None, &policies, CGROUP, true), None);
    }
}
