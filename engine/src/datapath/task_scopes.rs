//! What cgroups carry, once more: by their ids, for programs that run for every task of the machine and find
//! the scopes of a task by going up its cgroups.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use engine_common::scope::{HookSet, Scope, SlotRef};

use super::syscall;

/// The two tables: scopes by cgroup id, and the depths at which there are some.
pub(super) struct TaskScopes {
    scopes: OwnedFd,
    levels: OwnedFd,
}

impl TaskScopes {
    pub(super) fn new(scopes: OwnedFd, levels: OwnedFd) -> TaskScopes {
        TaskScopes { scopes, levels }
    }

    /// Writes what a cgroup carries; one that carries nothing is taken out.
    pub(super) fn write(&self, scope: &Scope) -> io::Result<()> {
        if scope.slots == [SlotRef::NONE; engine_common::limits::MAX_STACKED] {
            return self.remove(scope.cgroup);
        }
        if scope.level >= Scope::LEVELS && scope.level != Scope::UNKNOWN_LEVEL {
            // Programs would not come across it.
            return Err(io::Error::other(format!(
                "the cgroup lies {} levels deep; policies stand above level {}",
                scope.level,
                Scope::LEVELS
            )));
        }
        syscall::write_scope(self.scopes.as_fd(), scope)?;
        // Then the depth: until it is there nobody looks.
        let levels = syscall::read_words::<1>(self.levels.as_fd(), 0)?[0] | scope.level_bit();
        syscall::write_words(self.levels.as_fd(), 0, &[levels])
    }

    /// Takes a cgroup out.
    pub(super) fn remove(&self, cgroup: u64) -> io::Result<()> {
        syscall::remove_scope(self.scopes.as_fd(), cgroup)?;
        // A depth that nobody uses any more costs tasks a look-up, no more: only the last one is worth the while.
        if self.is_empty()? {
            syscall::write_words(self.levels.as_fd(), 0, &[0])?;
        }
        Ok(())
    }

    /// Whether no cgroup carries anything.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(syscall::scope_after(self.scopes.as_fd(), None)?.is_none())
    }

    /// Takes all cgroups out.
    pub(super) fn clear(&self) -> io::Result<()> {
        while let Some(cgroup) = syscall::scope_after(self.scopes.as_fd(), None)? {
            self.remove(cgroup)?;
        }
        Ok(())
    }

    /// The hooks that policies are for, on all cgroups together.
    pub(super) fn hooks(&self) -> io::Result<HookSet> {
        let (mut hooks, mut cgroup) = (HookSet::NONE, None);
        loop {
            cgroup = syscall::scope_after(self.scopes.as_fd(), cgroup)?;
            let Some(found) = cgroup else {
                return Ok(hooks);
            };
            if let Some(scope) = syscall::read_scope(self.scopes.as_fd(), found)? {
                hooks = hooks.and(scope.hooks());
            }
        }
    }
}
