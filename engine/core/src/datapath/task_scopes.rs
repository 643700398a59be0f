//! The scopes of cgroups by id: a copy for programs that run for every task of the machine and find the scopes of a task
//! among the ancestors of its cgroup.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use engine_common::scope::{Scope, SlotRef};

use super::{program_group::ScopeNeeds, syscall};

/// The two maps: scopes by cgroup id, and the levels of the hierarchy that have some.
pub(super) struct TaskScopes {
    scopes: OwnedFd,
    levels: OwnedFd,
}

impl TaskScopes {
    pub(super) fn new(scopes: OwnedFd, levels: OwnedFd) -> TaskScopes {
        TaskScopes { scopes, levels }
    }

    /// Writes the scope of a cgroup; one without policies is removed.
    pub(super) fn write(&self, scope: &Scope) -> io::Result<()> {
        if scope.slots == [SlotRef::NONE; engine_common::limits::MAX_STACKED] {
            return self.remove(scope.cgroup);
        }
        if scope.level >= Scope::LEVELS && scope.level != Scope::UNKNOWN_LEVEL {
            // Programs would not look at it.
            return Err(io::Error::other(format!(
                "the cgroup is at level {} of the hierarchy; policies can be attached above level {}",
                scope.level,
                Scope::LEVELS
            )));
        }
        syscall::write_scope(self.scopes.as_fd(), scope)?;
        // Then the level: programs look only at levels that are set.
        let levels = syscall::read_words::<1>(self.levels.as_fd(), 0)?[0] | scope.level_bit();
        syscall::write_words(self.levels.as_fd(), 0, &[levels])
    }

    /// Removes the scope of a cgroup.
    pub(super) fn remove(&self, cgroup: u64) -> io::Result<()> {
        syscall::remove_scope(self.scopes.as_fd(), cgroup)?;
        // A level that no cgroup uses any more costs tasks one look-up, so levels are reset only with the last cgroup.
        if self.is_empty()? {
            syscall::write_words(self.levels.as_fd(), 0, &[0])?;
        }
        Ok(())
    }

    /// Whether no cgroup has policies.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(syscall::scope_after(self.scopes.as_fd(), None)?.is_none())
    }

    /// Removes all scopes.
    pub(super) fn clear(&self) -> io::Result<()> {
        while let Some(cgroup) = syscall::scope_after(self.scopes.as_fd(), None)? {
            self.remove(cgroup)?;
        }
        Ok(())
    }

    /// What the policies of all cgroups together need attached. Stops looking when `is_enough` of what was found so far:
    /// needs are only added.
    pub(super) fn needs(&self, is_enough: impl Fn(&ScopeNeeds) -> bool) -> io::Result<ScopeNeeds> {
        let (mut needs, mut cgroup) = (ScopeNeeds::default(), None);
        while !is_enough(&needs) {
            cgroup = syscall::scope_after(self.scopes.as_fd(), cgroup)?;
            let Some(found) = cgroup else { break };
            needs.has_policies = true;
            if let Some(scope) = syscall::read_scope(self.scopes.as_fd(), found)? {
                needs.hooks = needs.hooks.union(scope.hooks());
                needs.strict |= scope.is_strict();
            }
        }
        Ok(needs)
    }
}
