//! The links of a pinned gate: a folder a cgroup.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use engine_common::scope::{HookSet, Scope};

use super::{
    attachment::{AttachError, attach_pinned},
    lsm, migration,
    pinned::{DatapathError, PinnedDatapath, at},
    pins::{self, PinsError},
    program::{self, ANCHOR, ENFORCING, FLOOR, PinnedPrograms},
    syscall, tracer,
};

/// How a hook of a cgroup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Attached and pinned.
    Attached,
    /// Pinned, but detached: the cgroup is gone, or somebody did it by force.
    Detached,
    /// There is no pin.
    Missing,
}

impl PinnedDatapath {
    /// Ids of the cgroups that have links.
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub fn cgroups(&self) -> Result<Vec<u64>, DatapathError> {
        cgroups_of(&self.folder)
    }

    /// Attaches whatever program of ours is not attached to the cgroup yet, the one that judges packets where
    /// `empty` is strict. `empty` is the scope of this cgroup without a policy: until another is written,
    /// everything passes. `hooks` are those that its policies are for.
    ///
    /// # Errors
    /// [`AttachError`], or [`PinsError`] in it. What was attached stays; it lets everything pass.
    pub fn prepare(&self, cgroup: BorrowedFd<'_>, empty: &Scope, hooks: HookSet) -> Result<(), AttachError> {
        let links = self.links(empty.cgroup);
        pins::make(&links)?;
        let mut programs = PinnedPrograms(self.folder.join("programs"));
        let mut lacks = |program: (&'static str, program::Kind)| {
            if link_state(&links.join(program.0)) == LinkState::Attached {
                return Ok(());
            }
            pins::remove_link(&links.join(program.0))
                .map_err(|source| PinsError::io("remove", &links.join(program.0))(source))?;
            attach_pinned(&mut programs, cgroup, program, &links).map(drop)
        };
        lacks(ANCHOR)?;
        let scope = self.scope(empty.cgroup).map_err(AttachError::Scope)?;
        if scope.is_none_or(|scope| scope.cgroup == 0) {
            self.write_scope(empty).map_err(AttachError::Scope)?;
        }
        if hooks.contains(HookSet::CGROUP) {
            ENFORCING.into_iter().try_for_each(&mut lacks)?;
        }
        if empty.is_strict() {
            lacks(FLOOR)?;
        }
        if hooks.contains(HookSet::TRACER) {
            self.attach_tracer()?;
        }
        if hooks.contains(HookSet::LSM) {
            self.attach_lsm()?;
        }
        if hooks.contains(HookSet::UNIX) {
            self.attach_unix()?;
        }
        Ok(())
    }

    /// Takes the program that judges packets away from a cgroup.
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub fn detach_egress_filter(&self, cgroup: u64) -> Result<(), DatapathError> {
        let path = self.links(cgroup).join(FLOOR.0);
        pins::remove_link(&path).map_err(at("remove", &path))
    }

    /// Whether packets can be judged, as strict policies want: the kernel took the program.
    pub fn has_egress_filter(&self) -> bool {
        self.folder.join("programs").join(FLOOR.0).exists()
    }

    /// How each hook of a cgroup is, by the name of its program; that of packets where it is `strict`.
    pub fn link_states(&self, cgroup: u64, strict: bool) -> Vec<(&'static str, LinkState)> {
        let links = self.links(cgroup);
        ENFORCING
            .iter()
            .chain(strict.then_some(&FLOOR))
            .map(|(name, _)| (*name, link_state(&links.join(name))))
            .collect()
    }

    /// Takes our programs away from a cgroup, those that decide first.
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub fn detach(&self, cgroup: u64) -> Result<(), DatapathError> {
        let tables = self.folder.join("maps");
        self.tasks.remove(cgroup).map_err(at("write", &tables))?;
        let left = self.tasks.hooks().map_err(at("read", &tables))?;
        if !left.contains(HookSet::LSM) {
            lsm::rest(&self.folder)?;
        } else if !left.contains(HookSet::UNIX) {
            lsm::rest_unix(&self.folder)?;
        }
        if !left.contains(HookSet::TRACER) {
            tracer::detach(&self.folder)?;
        }
        if self.tasks.is_empty().map_err(at("read", &tables))? {
            migration::rest(&self.folder)?;
        }
        detach_from(&self.folder, cgroup)
    }

    /// Takes away what runs for the whole machine, where nothing stands on any cgroup: those that it was
    /// attached for are gone, and others may have removed their links.
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub(super) fn forget_cgroups(&self) -> Result<(), DatapathError> {
        let tables = self.folder.join("maps");
        self.tasks.clear().map_err(at("write", &tables))?;
        lsm::rest(&self.folder)?;
        tracer::detach(&self.folder)
    }

    fn links(&self, cgroup: u64) -> PathBuf {
        links_in(&self.folder, cgroup)
    }
}

fn links_in(folder: &Path, cgroup: u64) -> PathBuf {
    folder.join("links").join(cgroup.to_string())
}

pub(super) fn cgroups_of(folder: &Path) -> Result<Vec<u64>, DatapathError> {
    let links = folder.join("links");
    let entries = match fs::read_dir(&links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at("read", &links))?,
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut ids: Vec<u64> = names
        .filter_map(|name| name.to_str().and_then(|name| name.parse().ok()))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

pub(super) fn detach_from(folder: &Path, cgroup: u64) -> Result<(), DatapathError> {
    let links = links_in(folder, cgroup);
    for (name, _) in [FLOOR].into_iter().chain(ENFORCING).chain([ANCHOR]) {
        let path = links.join(name);
        pins::remove_link(&path).map_err(at("remove", &path))?;
    }
    pins::gone_is_fine(fs::remove_dir(&links)).map_err(at("remove", &links))
}

fn link_state(pin: &Path) -> LinkState {
    let Ok(link) = syscall::open_pin(pin) else {
        return LinkState::Missing;
    };
    match syscall::cgroup_of_link(link.as_fd()) {
        Ok(0) => LinkState::Detached,
        Ok(_) => LinkState::Attached,
        Err(_) => LinkState::Missing,
    }
}
