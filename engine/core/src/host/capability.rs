//! What the kernel and the loaded programs can do.

use std::collections::BTreeMap;

use engine_common::scope::HookSet;

use super::{Requirements, unmet};
use crate::{
    datapath::{Calls, Features, GroupName},
    instance::Disabled,
};

/// What policies can rely on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Cgroup hooks can kill before the call returns (Linux 6.16).
    pub cgroup_hooks_kill: bool,
    /// Cgroup hooks can choose the errno of a denied call (Linux 5.18).
    pub cgroup_hooks_choose_errno: bool,
    /// The groups of programs that are not available, each with the reason.
    pub unavailable: BTreeMap<GroupName, String>,
}

impl Capabilities {
    /// Those of a set of programs; `is_loaded` says which groups it has.
    pub fn of_loaded(
        features: Features,
        is_loaded: impl Fn(GroupName) -> bool,
        disabled: &Disabled,
    ) -> Capabilities {
        let reason = |group: GroupName| match is_loaded(group) {
            true => group.quick_reason(disabled),
            false => Some(group.absence_reason(disabled)),
        };
        Capabilities {
            cgroup_hooks_kill: features.send_signal,
            cgroup_hooks_choose_errno: features.set_retval,
            unavailable: GroupName::optional()
                .filter_map(|group| Some((group, reason(group)?)))
                .collect(),
        }
    }

    /// The same, without the groups that the requirements depend on and whose programs the kernel does not call: found by
    /// calls, some milliseconds for each kind of program.
    #[must_use]
    pub fn tried_for(self, requirements: &Requirements, calls: &Calls) -> Capabilities {
        GroupName::optional().fold(self, |known, group| {
            let depends =
                unmet(requirements, &known) != unmet(requirements, &known.without(group, String::new()));
            match depends.then(|| calls.never_called_reason(group)).flatten() {
                Some(reason) => known.without(group, reason),
                None => known,
            }
        })
    }

    fn without(&self, group: GroupName, reason: String) -> Capabilities {
        let mut without = self.clone();
        without.unavailable.entry(group).or_insert(reason);
        without
    }

    /// Why a group of programs is not available; `None` where it is.
    pub fn unavailable_reason(&self, group: GroupName) -> Option<&str> {
        self.unavailable.get(&group).map(String::as_str)
    }

    /// The kinds of hooks that are available.
    pub fn hooks(&self) -> HookSet {
        GroupName::optional()
            .filter(|group| !self.unavailable.contains_key(group))
            .fold(HookSet::CGROUP, |hooks, group| hooks.union(group.hooks()))
    }
}
