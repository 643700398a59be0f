//! What this process must be allowed to do, found out before anything is begun.

use std::path::PathBuf;

use nix::{
    fcntl::AtFlags,
    unistd::{AccessFlags, faccessat},
};

use super::{Capability, CapabilitySet, TargetUser};
use crate::cgroup::Hierarchy;

/// What is going to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The command gets its private mount namespace.
    pub isolation: bool,
    /// The command runs as another user.
    pub change_of_user: bool,
}

impl Needs {
    /// For a command run as `user`.
    pub fn of(user: &TargetUser, isolation: bool) -> Needs {
        Needs {
            isolation,
            change_of_user: user.changes(),
        }
    }

    /// Whether this process may do all of it below its own cgroup.
    ///
    /// # Errors
    /// With one sentence on what is missing and how to get it.
    pub fn check(self, hierarchy: &Hierarchy) -> Result<(), Unmet> {
        let missing = self.missing(CapabilitySet::effective().unwrap_or_default());
        let own = hierarchy.own_cgroup();
        let writable = faccessat(nix::fcntl::AT_FDCWD, &own, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok();
        if missing.is_empty() && writable {
            return Ok(());
        }
        Err(Unmet {
            missing,
            unwritable: (!writable).then_some(own),
        })
    }

    /// The capabilities that are not in `held`.
    fn missing(self, held: CapabilitySet) -> Vec<Capability> {
        // Since Linux 5.8 the three stand for what SYS_ADMIN alone allowed before, and still does.
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

/// This process may not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tidegate exec needs root, here {}: run it with sudo", self.lacking())]
pub struct Unmet {
    missing: Vec<Capability>,
    unwritable: Option<PathBuf>,
}

impl Unmet {
    /// The capabilities that are missing.
    pub fn capabilities(&self) -> &[Capability] {
        &self.missing
    }

    fn lacking(&self) -> String {
        let mut names: Vec<String> = self.missing.iter().map(Capability::to_string).collect();
        names.extend(
            self.unwritable
                .iter()
                .map(|path| format!("write access to {}", path.display())),
        );
        match names.as_slice() {
            [one] => format!("for {one}"),
            [first @ .., last] => format!("for {} and {last}", first.join(", ")),
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
    fn the_old_capability_stands_for_the_new_ones() {
        let plain = Needs {
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
    fn one_sentence_names_what_is_missing() {
        let needs = Needs {
            isolation: true,
            change_of_user: true,
        };
        let unmet = Unmet {
            missing: needs.missing(set("setuid,bpf")),
            unwritable: Some("/sys/fs/cgroup/x".into()),
        };
        assert_eq!(
            unmet.to_string(),
            "tidegate exec needs root, here for CAP_SYS_ADMIN, CAP_SETGID and write access to \
             /sys/fs/cgroup/x: run it with sudo"
        );
    }
}
