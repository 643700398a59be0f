//! The privileges that a run needs, checked before anything is created.

use std::path::PathBuf;

use nix::{
    fcntl::AtFlags,
    unistd::{AccessFlags, faccessat},
};

use super::{Capability, CapabilitySet, TargetUser};
use crate::{cgroup::Hierarchy, hint::Hint};

/// The privileges needed to run a command with its isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredPrivileges {
    /// The command gets its private mount namespace.
    pub isolation: bool,
    /// The command runs as another user.
    pub change_of_user: bool,
}

impl RequiredPrivileges {
    /// For a command that runs as `user`.
    pub fn new(user: &TargetUser, isolation: bool) -> RequiredPrivileges {
        RequiredPrivileges {
            isolation,
            change_of_user: user.changes(),
        }
    }

    /// Checks the effective capabilities of this thread, and that its cgroup is writable.
    ///
    /// # Errors
    /// When a capability or the write access is missing.
    pub fn check(self, hierarchy: &Hierarchy) -> Result<(), MissingPrivilege> {
        let missing = self.missing(CapabilitySet::effective().unwrap_or_default());
        let own = hierarchy.own_cgroup();
        let writable = faccessat(nix::fcntl::AT_FDCWD, &own, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok();
        if missing.is_empty() && writable {
            return Ok(());
        }
        Err(MissingPrivilege {
            capabilities: missing,
            unwritable: (!writable).then_some(own),
        })
    }

    /// The capabilities that are not in `held`.
    fn missing(self, held: CapabilitySet) -> Vec<Capability> {
        // Since Linux 5.8 the three together allow this; CAP_SYS_ADMIN alone still does.
        let mut needed = if self.isolation || held.contains(Capability::SYS_ADMIN) {
            vec![Capability::SYS_ADMIN]
        } else {
            vec![Capability::BPF, Capability::NET_ADMIN, Capability::PERFMON]
        };
        if self.change_of_user {
            needed.extend([Capability::SETUID, Capability::SETGID]);
        }
        needed.retain(|&one| !held.contains(one));
        needed
    }
}

/// This process lacks privileges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tidegate exec needs root (missing {})", self.description())]
pub struct MissingPrivilege {
    capabilities: Vec<Capability>,
    unwritable: Option<PathBuf>,
}

impl Hint for MissingPrivilege {
    fn hint(&self) -> Option<String> {
        Some("run it with sudo".to_owned())
    }
}

impl MissingPrivilege {
    /// The capabilities that are missing.
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    fn description(&self) -> String {
        let mut names: Vec<String> = self.capabilities.iter().map(Capability::to_string).collect();
        names.extend(
            self.unwritable
                .iter()
                .map(|path| format!("write access to {}", path.display())),
        );
        match names.as_slice() {
            [one] => one.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
            [] => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CapabilitySet {
        text.parse().unwrap()
    }

    #[test]
    fn sys_admin_includes_the_newer_capabilities() {
        let plain = RequiredPrivileges {
            isolation: false,
            change_of_user: false,
        };
        assert!(plain.missing(set("sys_admin")).is_empty());
        assert!(plain.missing(set("bpf,net_admin,perfmon")).is_empty());
        assert_eq!(
            plain.missing(set("net_admin")),
            [Capability::BPF, Capability::PERFMON]
        );
    }

    #[test]
    fn the_error_names_everything_that_is_missing() {
        let required = RequiredPrivileges {
            isolation: true,
            change_of_user: true,
        };
        let error = MissingPrivilege {
            capabilities: required.missing(set("setuid,bpf")),
            unwritable: Some("/sys/fs/cgroup/x".into()),
        };
        assert_eq!(
            error.to_string(),
            "tidegate exec needs root (missing CAP_SYS_ADMIN, CAP_SETGID and write access to \
             /sys/fs/cgroup/x)"
        );
    }
}
