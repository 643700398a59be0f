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

use super::{
    attachment::AttachError,
    links::LinkState,
    pins,
    program::LSM,
    standing::{StandingError, StandingGate, at},
    syscall,
};

/// Where the kernel lists its active security modules (securityfs).
const ACTIVE: &str = "/sys/kernel/security/lsm";

/// Why LSM programs would never run here, in words; `None` where they do.
///
/// A kernel loads and attaches them also when `bpf` is not among the active modules, and then never calls them
/// (security/bpf/hooks.c registers its hooks only if it is): so the list is read, and one program tried.
pub fn lsm_obstacle() -> Option<String> {
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

impl StandingGate {
    /// Whether the gate has LSM programs: they run on this kernel.
    pub fn has_lsm(&self) -> bool {
        self.programs().join(LSM[0].0).exists()
    }

    /// Attaches those LSM programs that are not attached yet.
    pub(super) fn attach_lsm(&self) -> Result<(), AttachError> {
        if !self.has_lsm() {
            return Ok(());
        }
        let links = lsm_links(&self.folder);
        pins::make(&links)?;
        for (name, _) in LSM {
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
        let links = lsm_links(&self.folder);
        let state = |name: &str| match syscall::open_pin(&links.join(name)) {
            Ok(_) => LinkState::Attached,
            Err(_) => LinkState::Missing,
        };
        LSM.iter().map(|(name, _)| (*name, state(name))).collect()
    }

    fn programs(&self) -> PathBuf {
        self.folder.join("programs")
    }
}

fn lsm_links(folder: &Path) -> PathBuf {
    folder.join("links").join("lsm")
}

/// Takes the LSM programs of a gate off, for as long as nobody needs them.
pub(super) fn rest(folder: &Path) -> Result<(), StandingError> {
    if can_attach_again() {
        detach(folder)
    } else {
        Ok(())
    }
}

/// Before Linux 5.14 (commit f3a95075549e) a loaded program of this kind attaches once in its life: there it stays,
/// finds that no depth is in use, and lets everything pass. Told by a helper that came a little later (5.18).
pub(super) fn can_attach_again() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

/// Takes the LSM programs of a gate away for good.
pub(super) fn detach(folder: &Path) -> Result<(), StandingError> {
    remove_links(&lsm_links(folder))
}

/// Removes a folder of links, and so detaches what they hold.
pub(super) fn remove_links(links: &Path) -> Result<(), StandingError> {
    let entries = match fs::read_dir(links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at("read", links))?,
    };
    for entry in entries.flatten() {
        let path = entry.path();
        pins::gone_is_fine(fs::remove_file(&path)).map_err(at("remove", &path))?;
    }
    pins::gone_is_fine(fs::remove_dir(links)).map_err(at("remove", links))
}
