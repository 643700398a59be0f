//! Attaching and detaching the programs of a pinned set, by pinned links: loops over the table of groups.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use engine_common::scope::{HookSet, Scope};
use serde::Serialize;

use super::{
    error::DatapathError,
    features::tracing_programs_reattach,
    pin_directory::{self, at},
    pinned_datapath::PinnedDatapath,
    program::ProgramSpec,
    program_group::{ANCHOR, GROUPS, GroupName, GroupScope, ProgramGroup, ScopeNeeds},
    stop::Stop,
    syscall,
};

/// State of the link of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Attached and pinned.
    Attached,
    /// Pinned, but detached: the cgroup was removed, or the link was detached by force.
    Detached,
    /// Not pinned.
    Missing,
}

impl LinkState {
    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            LinkState::Attached => "attached",
            LinkState::Detached => "detached",
            LinkState::Missing => "missing",
        }
    }
}

fn rows(scope: GroupScope) -> impl DoubleEndedIterator<Item = &'static ProgramGroup> {
    GROUPS.iter().filter(move |row| row.scope == scope)
}

impl PinnedDatapath {
    /// Ids of the cgroups that have links.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when the directory of links cannot be read.
    pub fn cgroups(&self) -> Result<Vec<u64>, DatapathError> {
        cgroups_of(&self.directory)
    }

    /// The kinds of hooks that the set has programs for.
    pub fn hooks(&self) -> HookSet {
        let rows = GROUPS.iter().filter(|row| self.has(row.name));
        rows.fold(HookSet::NONE, |hooks, row| hooks.union(row.hooks))
    }

    /// Attaches the programs that the cgroup lacks. `empty` is the scope of this cgroup without a policy: until another is
    /// written, everything passes; it is strict where the egress filter is needed. `hooks` are those of its policies.
    ///
    /// # Errors
    /// [`DatapathError`] when a program cannot be attached. What was attached stays; it lets everything pass.
    pub fn prepare(
        &self,
        cgroup: BorrowedFd<'_>,
        empty: &Scope,
        hooks: HookSet,
    ) -> Result<(), DatapathError> {
        let needs = ScopeNeeds {
            hooks,
            strict: empty.is_strict(),
            has_policies: true,
        };
        let links = cgroup_links(&self.directory, empty.cgroup);
        pin_directory::make(&links)?;
        self.attach_missing(&ANCHOR, cgroup, &links)?;
        let scope = self.scope(empty.cgroup).map_err(scope_error("read"))?;
        if scope.is_none_or(|scope| scope.cgroup == 0) {
            self.write_scope(empty).map_err(scope_error("write"))?;
        }
        for row in rows(GroupScope::Cgroup).filter(|row| (row.wanted_by)(&needs)) {
            for program in row.programs {
                self.attach_missing(program, cgroup, &links)?;
            }
        }
        for row in rows(GroupScope::Global).filter(|row| (row.wanted_by)(&needs)) {
            self.attach_global(row.name)?;
        }
        Ok(())
    }

    fn attach_missing(
        &self,
        program: &ProgramSpec,
        cgroup: BorrowedFd<'_>,
        links: &Path,
    ) -> Result<(), DatapathError> {
        let link = links.join(program.name);
        if cgroup_link_state(&link) == LinkState::Attached {
            return Ok(());
        }
        pin_directory::remove_link(&link).map_err(at("remove", &link))?;
        program.attach(&self.program(program.name), Some(cgroup), &link)
    }

    /// Attaches the programs of a group for the whole machine, where the set has them and they are not attached yet.
    ///
    /// # Errors
    /// [`DatapathError`] when a program cannot be attached; a group that enforces nothing is skipped then.
    pub fn attach_global(&self, group: GroupName) -> Result<(), DatapathError> {
        let row = group.row();
        match self.try_attach_global(row) {
            Err(error) if !row.enforces => {
                let group = group.as_str();
                tracing::warn!(error = ?error, group, "programs that only report are not attached");
                Ok(())
            }
            done => done,
        }
    }

    fn try_attach_global(&self, row: &ProgramGroup) -> Result<(), DatapathError> {
        if !self.has(row.name) {
            return Ok(());
        }
        let links = global_links(&self.directory, row);
        pin_directory::make(&links)?;
        for program in row.programs {
            let (pin, link) = (self.program(program.name), links.join(program.name));
            if pin.exists() && !link.exists() {
                program.attach(&pin, None, &link)?;
            }
        }
        Ok(())
    }

    /// Attaches the groups for the whole machine that some cgroup needs, and detaches the others.
    ///
    /// # Errors
    /// [`DatapathError`] when a program cannot be attached or detached.
    pub fn update_global(&self) -> Result<(), DatapathError> {
        let loaded = || rows(GroupScope::Global).filter(|row| self.has(row.name));
        let needs = self.needs(loaded)?;
        for row in loaded() {
            if (row.wanted_by)(&needs) {
                self.attach_global(row.name)?;
            } else {
                release_global(&self.directory, row)?;
            }
        }
        Ok(())
    }

    /// Detaches all programs from a cgroup, and those for the whole machine that no other cgroup needs.
    ///
    /// # Errors
    /// [`DatapathError`] when a link cannot be removed.
    pub fn detach(&self, cgroup: u64) -> Result<(), DatapathError> {
        self.tasks.remove(cgroup).map_err(scope_error("write"))?;
        let attached = || rows(GroupScope::Global).filter(|row| global_links(&self.directory, row).exists());
        let needs = self.needs(attached)?;
        for row in attached().filter(|row| !(row.wanted_by)(&needs)) {
            release_global(&self.directory, row)?;
        }
        detach_from(&self.directory, cgroup)
    }

    /// What all cgroups together need of some groups.
    fn needs<R: Iterator<Item = &'static ProgramGroup>>(
        &self,
        groups: impl Fn() -> R,
    ) -> Result<ScopeNeeds, DatapathError> {
        let groups: Vec<&ProgramGroup> = groups().collect();
        let is_enough = |needs: &ScopeNeeds| groups.iter().all(|row| (row.wanted_by)(needs));
        self.tasks.needs(is_enough).map_err(scope_error("read"))
    }

    /// Detaches a group from one cgroup.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when a link cannot be removed.
    pub fn detach_group(&self, cgroup: u64, group: GroupName) -> Result<(), DatapathError> {
        let links = cgroup_links(&self.directory, cgroup);
        group.row().programs.iter().try_for_each(|program| {
            let link = links.join(program.name);
            pin_directory::remove_link(&link).map_err(at("remove", &link))
        })
    }

    /// Removes the scopes of all cgroups, and detaches what runs for the whole machine: for a set that no cgroup uses.
    pub(super) fn forget_cgroups(&self) -> Result<(), DatapathError> {
        self.tasks.clear().map_err(scope_error("write"))?;
        self.update_global()
    }

    /// States of the links of a group, by program; empty where the set has no programs of the group. `cgroup` does not
    /// matter for a group that runs for the whole machine.
    pub fn link_states(&self, group: GroupName, cgroup: u64) -> Vec<(&'static str, LinkState)> {
        let row = group.row();
        let programs = row.programs.iter();
        let programs = programs.filter(|program| self.program(program.name).exists());
        let state = |program: &'static ProgramSpec| match row.scope {
            GroupScope::Cgroup => {
                cgroup_link_state(&cgroup_links(&self.directory, cgroup).join(program.name))
            }
            GroupScope::Global => global_link_state(&global_links(&self.directory, row).join(program.name)),
        };
        programs.map(|program| (program.name, state(program))).collect()
    }
}

fn scope_error(step: &'static str) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Scope { step, source }
}

fn cgroup_links(directory: &Path, cgroup: u64) -> PathBuf {
    directory.join("links").join(cgroup.to_string())
}

fn global_links(directory: &Path, row: &ProgramGroup) -> PathBuf {
    directory.join("links").join(row.name.as_str())
}

/// Ids of the cgroups that have links in a set.
pub(super) fn cgroups_of(directory: &Path) -> Result<Vec<u64>, DatapathError> {
    let names = pin_directory::names(&directory.join("links"))?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Detaches the programs of a set from a cgroup, the anchor last.
pub(super) fn detach_from(directory: &Path, cgroup: u64) -> Result<(), DatapathError> {
    let links = cgroup_links(directory, cgroup);
    let programs = rows(GroupScope::Cgroup).rev().flat_map(|row| row.programs);
    for program in programs.chain([&ANCHOR]) {
        let link = links.join(program.name);
        pin_directory::remove_link(&link).map_err(at("remove", &link))?;
    }
    pin_directory::remove_directory(&links)
}

/// Detaches a group while no cgroup needs it. Where its programs could not be attached again, or not be detached safely, they
/// stay attached, and find no scope.
fn release_global(directory: &Path, row: &ProgramGroup) -> Result<(), DatapathError> {
    let is_tracing = row.programs.iter().any(|program| program.attach.needs_types());
    if !global_links(directory, row).exists() || is_tracing && !tracing_programs_reattach() {
        return Ok(());
    }
    if must_stay(directory, row) {
        return Ok(());
    }
    remove_global_links(directory, row)
}

/// Whether the programs of a group must stay attached for now. Detaching a program while ftrace is off leaves marks at its
/// function; ftrace takes them for an error later, and stops until the next boot (`ftrace_shutdown`, kernel/trace/ftrace.c;
/// seen on Linux 6.12).
pub(super) fn must_stay(directory: &Path, row: &ProgramGroup) -> bool {
    let links = global_links(directory, row);
    let is_traced = row.canary(|program| links.join(program.name).exists()).is_some();
    is_traced && Stop::of_ftrace() == Some(Stop::FtraceOff)
}

/// Detaches a group of a set.
pub(super) fn remove_global_links(directory: &Path, row: &ProgramGroup) -> Result<(), DatapathError> {
    let links = global_links(directory, row);
    for program in row.programs {
        let link = links.join(program.name);
        pin_directory::remove_link(&link).map_err(at("remove", &link))?;
    }
    pin_directory::remove_directory(&links)
}

fn cgroup_link_state(pin: &Path) -> LinkState {
    let Ok(link) = syscall::open_pin(pin) else {
        return LinkState::Missing;
    };
    match syscall::cgroup_of_link(link.as_fd()) {
        Ok(0) => LinkState::Detached,
        Ok(_) => LinkState::Attached,
        Err(_) => LinkState::Missing,
    }
}

fn global_link_state(pin: &Path) -> LinkState {
    match syscall::open_pin(pin) {
        Ok(_) => LinkState::Attached,
        Err(_) => LinkState::Missing,
    }
}
