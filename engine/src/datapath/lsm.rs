//! The LSM programs of a gate: global, and attached only while some cgroup carries a policy.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use engine_common::scope::HookSet;

use super::{
    attachment::AttachError,
    links::LinkState,
    pinned::{DatapathError, PinnedDatapath, at},
    pins,
    program::{LSM, UNIX},
    syscall,
};

/// Where the kernel lists its active security modules (securityfs).
const ACTIVE: &str = "/sys/kernel/security/lsm";

/// Why LSM programs would never run here, in words; `None` where they do.
///
/// A kernel loads and attaches them also when `bpf` is not among the active modules, and then never calls them
/// (security/bpf/hooks.c registers its hooks only if it is): so the list is read, and one program tried.
pub fn lsm_unavailable_reason() -> Option<String> {
    let active = match fs::read_to_string(ACTIVE) {
        Ok(active) => active,
        Err(error) => {
            return Some(format!(
                "the list of active security modules cannot be read ({ACTIVE}: {error}); mount securityfs: \
                 `mount -t securityfs securityfs /sys/kernel/security`"
            ));
        }
    };
    if !active.trim().split(',').any(|name| name == "bpf") {
        return Some(format!(
            "`bpf` is not among the active security modules ({}); boot with `lsm={},bpf`",
            active.trim(),
            active.trim()
        ));
    }
    match syscall::try_lsm_program() {
        Ok(()) => None,
        Err(error) => Some(format!("the kernel refuses LSM programs: {error}")),
    }
}

/// Attaches a loaded LSM program, or one at a function of the kernel, by a link that is pinned in a folder.
pub(super) fn attach(program: BorrowedFd<'_>, name: &'static str, folder: &Path) -> Result<(), AttachError> {
    let global = |source| AttachError::Global {
        program: name,
        source,
    };
    let link = syscall::open_tracing_link(program).map_err(global)?;
    syscall::pin(link.as_fd(), &folder.join(name)).map_err(global)
}

impl PinnedDatapath {
    /// Whether the gate has LSM programs: they run on this kernel.
    pub fn has_lsm(&self) -> bool {
        self.programs().join(LSM[0].0).exists()
    }

    /// Whether it has those that see unix sockets.
    pub fn has_unix(&self) -> bool {
        self.programs().join(UNIX[0].0).exists()
    }

    /// Attaches those LSM programs that are not attached yet.
    pub(super) fn attach_lsm(&self) -> Result<(), AttachError> {
        if !self.has_lsm() {
            return Ok(());
        }
        self.attach_lacking(&LSM)
    }

    /// Attaches those that see unix sockets.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach_unix(&self) -> Result<(), AttachError> {
        if !self.has_unix() {
            return Ok(());
        }
        self.attach_lacking(&UNIX)
    }

    /// Has those that see unix sockets attached where some policy names such sockets, and takes them away where none
    /// does.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn settle_unix(&self) -> Result<(), AttachError> {
        let hooks = self.tasks.hooks().map_err(AttachError::Scope)?;
        if hooks.contains(HookSet::UNIX) {
            return self.attach_unix();
        }
        rest_unix(&self.folder).map_err(|source| AttachError::Detach(Box::new(source)))
    }

    fn attach_lacking(&self, programs: &[(&'static str, &'static str)]) -> Result<(), AttachError> {
        let links = lsm_links(&self.folder);
        pins::make(&links)?;
        for &(name, _) in programs {
            if links.join(name).exists() {
                continue;
            }
            let program =
                syscall::open_pin(&self.programs().join(name)).map_err(|source| AttachError::Global {
                    program: name,
                    source,
                })?;
            attach(program.as_fd(), name, &links)?;
        }
        Ok(())
    }

    /// How each LSM program is attached; empty where the gate has none.
    pub fn lsm_states(&self) -> Vec<(&'static str, LinkState)> {
        if !self.has_lsm() {
            return Vec::new();
        }
        LSM.iter()
            .map(|(name, _)| (*name, self.lsm_state(name)))
            .collect()
    }

    fn lsm_state(&self, name: &str) -> LinkState {
        match syscall::open_pin(&lsm_links(&self.folder).join(name)) {
            Ok(_) => LinkState::Attached,
            Err(_) => LinkState::Missing,
        }
    }

    /// How each of those that see unix sockets is attached; empty where the gate has none.
    pub fn unix_states(&self) -> Vec<(&'static str, LinkState)> {
        if !self.has_unix() {
            return Vec::new();
        }
        UNIX.iter()
            .map(|(name, _)| (*name, self.lsm_state(name)))
            .collect()
    }

    fn programs(&self) -> PathBuf {
        self.folder.join("programs")
    }
}

fn lsm_links(folder: &Path) -> PathBuf {
    folder.join("links").join("lsm")
}

/// Takes the LSM programs of a gate off, for as long as nobody needs them.
pub(super) fn rest(folder: &Path) -> Result<(), DatapathError> {
    if can_attach_again() {
        detach(folder)
    } else {
        Ok(())
    }
}

/// Takes those that see unix sockets off, for as long as nobody needs them.
pub(super) fn rest_unix(folder: &Path) -> Result<(), DatapathError> {
    if !can_attach_again() {
        return Ok(());
    }
    for (name, _) in UNIX {
        let path = lsm_links(folder).join(name);
        pins::remove_link(&path).map_err(at("remove", &path))?;
    }
    Ok(())
}

/// Before Linux 5.14 (commit f3a95075549e) a loaded program of this kind attaches once in its life: there it stays,
/// finds that no depth is in use, and lets everything pass. Told by a helper that came a little later (5.18).
pub(super) fn can_attach_again() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

/// Takes the LSM programs of a gate away for good.
pub(super) fn detach(folder: &Path) -> Result<(), DatapathError> {
    remove_links(&lsm_links(folder))
}

/// Removes a folder of links, and so detaches what they hold.
pub(super) fn remove_links(links: &Path) -> Result<(), DatapathError> {
    let entries = match fs::read_dir(links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at("read", links))?,
    };
    for entry in entries.flatten() {
        let path = entry.path();
        pins::remove_link(&path).map_err(at("remove", &path))?;
    }
    pins::gone_is_fine(fs::remove_dir(links)).map_err(at("remove", links))
}
