//! The programs that tell who leaves a cgroup: global, and attached only while some cgroup carries a policy. Nothing
//! is enforced by them: where they cannot be had, policies stand all the same.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{
    attachment::AttachError,
    btf::Btf,
    features::{DISABLE_VARIABLE, Offsets, is_taken_away},
    links::LinkState,
    lsm,
    pinned::{DatapathError, PinnedDatapath},
    pins,
    program::{Kind, MOVES},
    syscall,
};

/// Why such programs would not run here, in words; `None` where they do. Asked of the kernel by loading one at each
/// function.
pub fn migration_unavailable_reason() -> Option<String> {
    if is_taken_away("moves") {
        return Some(format!("{DISABLE_VARIABLE} takes them away"));
    }
    let btf = match Btf::of_running_kernel() {
        Ok(btf) => btf,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = Offsets::default().add_migration(&btf) {
        return Some(error.to_string());
    }
    MOVES
        .iter()
        .filter_map(|(_, kind)| match kind {
            Kind::Function(name) => Some(*name),
            _ => None,
        })
        .find_map(|name| {
            let Some(id) = btf.function_id(name) else {
                return Some(format!("the kernel has no function {name}"));
            };
            let refused = syscall::try_fentry_program(id).err()?;
            Some(format!("the kernel refuses programs at {name}: {refused}"))
        })
}

impl PinnedDatapath {
    /// Whether the gate has these programs.
    pub fn has_migration(&self) -> bool {
        MOVES.iter().all(|(name, _)| self.program(name).exists())
    }

    /// Attaches those that are not attached yet.
    ///
    /// # Errors
    /// [`AttachError`]: then moves are not reported.
    pub fn attach_migration(&self) -> Result<(), AttachError> {
        if !self.has_migration() {
            return Ok(());
        }
        let links = migration_links(&self.folder);
        pins::make(&links)?;
        for (name, _) in MOVES {
            if links.join(name).exists() {
                continue;
            }
            let refused = |source: io::Error| AttachError::Global {
                program: name,
                source,
            };
            let program = syscall::open_pin(&self.program(name)).map_err(refused)?;
            lsm::attach(program.as_fd(), name, &links)?;
        }
        Ok(())
    }

    /// How each is attached; empty where the gate has none.
    pub fn migration_states(&self) -> Vec<(&'static str, LinkState)> {
        if !self.has_migration() {
            return Vec::new();
        }
        let links = migration_links(&self.folder);
        let state = |name: &str| match syscall::open_pin(&links.join(name)) {
            Ok(_) => LinkState::Attached,
            Err(_) => LinkState::Missing,
        };
        MOVES.iter().map(|(name, _)| (*name, state(name))).collect()
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.join("programs").join(name)
    }
}

fn migration_links(folder: &Path) -> PathBuf {
    folder.join("links").join("moves")
}

/// Takes them off, for as long as nobody needs them; where they could not be attached again they stay, and find
/// nothing to tell.
pub(super) fn rest(folder: &Path) -> Result<(), DatapathError> {
    if lsm::can_attach_again() {
        detach(folder)
    } else {
        Ok(())
    }
}

/// Takes them away for good.
pub(super) fn detach(folder: &Path) -> Result<(), DatapathError> {
    lsm::remove_links(&migration_links(folder))
}
