//! Where the cgroup of a command is created: below the cgroup of tidegate, or in a scope of systemd.
//!
//! systemd owns the cgroups of its units ("single-writer rule", systemd.io/CGROUP_DELEGATION), and a user owns those
//! below `user@UID.service`: a command that runs as this user could move itself out of a cgroup there, by way of a
//! process outside of its mount namespace. Both are solved by a transient scope with `Delegate=yes` in the nearest
//! slice, which root owns. But a command that leaves the unit of its caller also leaves what holds there. So it does
//! not leave a system service (its limits, `systemctl stop`, its log), nor cgroups with BPF programs, such as those
//! of attached policies or of `IPAddressDeny=`.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use crate::cgroup::Hierarchy;

/// Exists while systemd is the init process (sd_booted(3)).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// The slice of scopes whose caller is in no slice, as of systemd-run.
const SYSTEM_SLICE: &str = "system.slice";

/// What creates the cgroup of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupManager {
    /// systemd for a caller in a session or in cgroups of a user, if systemd runs; otherwise tidegate itself.
    #[default]
    Auto,
    /// systemd: a transient scope.
    Systemd,
    /// Tidegate itself, below its own cgroup.
    Cgroupfs,
}

/// Where the cgroup is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Below the cgroup of this process.
    BelowOwn,
    /// In a new transient scope of systemd.
    Scope(Slice),
}

/// A slice of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its path in the hierarchy: `/user.slice/user-1000.slice`.
    path: PathBuf,
}

impl Slice {
    /// The name of the unit, which is that of the directory.
    pub fn unit(&self) -> &str {
        self.path
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or(SYSTEM_SLICE)
    }

    /// The path in the hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// systemd cannot create the cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// There is no systemd, or not in this cgroup namespace.
    #[error("systemd is not the init process here, or this process is in a cgroup namespace")]
    NoSystemd,
    /// Built without the feature.
    #[error("this tidegate was built without the feature `systemd`")]
    NotBuilt,
    /// The caller's cgroup is not one of systemd.
    #[error("the cgroup of this process, {}, does not belong to a unit of systemd", .0.display())]
    NoUnit(PathBuf),
    /// BPF programs would no longer apply to the command.
    #[error(
        "the cgroup {} has BPF programs (an attached policy, or settings such as IPAddressDeny=), \
         which would not apply to a command in a scope outside of it", .0.display()
    )]
    Programs(PathBuf),
    /// A cgroup between the slice and that of this process cannot be examined.
    #[error("cannot examine the cgroup {}: {source}", cgroup.display())]
    Examine {
        /// Its directory.
        cgroup: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// What a cgroup path says about systemd's units.
#[derive(Debug, PartialEq, Eq)]
enum Caller {
    /// In a session, another scope, or the unit of a user's manager.
    ScopeOrUser(Slice),
    /// In a system service, or directly in a slice.
    Service(Slice),
    /// In a cgroup that systemd did not create.
    NoUnit,
}

impl Caller {
    fn of(own: &Path) -> Caller {
        let mut slice = PathBuf::from("/");
        let mut unit = None;
        for component in own.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let name = name.to_str().unwrap_or_default();
            if !name.ends_with(".slice") {
                unit = Some(name);
                break;
            }
            slice.push(name);
        }
        if slice == Path::new("/") {
            slice.push(SYSTEM_SLICE);
        }
        let slice = Slice { path: slice };
        match unit {
            Some(unit) if unit.ends_with(".scope") => Caller::ScopeOrUser(slice),
            Some(unit) if unit.starts_with("user@") && unit.ends_with(".service") => {
                Caller::ScopeOrUser(slice)
            }
            Some(unit) if unit.ends_with(".service") => Caller::Service(slice),
            None => Caller::Service(slice),
            Some(_) => Caller::NoUnit,
        }
    }
}

impl Placement {
    /// Chooses the place for a command of this process. `has_programs` says whether BPF programs are attached to a cgroup
    /// itself, not to an ancestor.
    ///
    /// # Errors
    /// When systemd is demanded and cannot be used, or would take the command out of programs of its caller.
    pub fn choose(
        manager: CgroupManager,
        hierarchy: &Hierarchy,
        has_programs: impl Fn(BorrowedFd<'_>) -> io::Result<bool>,
    ) -> Result<Placement, PlacementError> {
        if manager == CgroupManager::Cgroupfs {
            return Ok(Placement::BelowOwn);
        }
        let chosen = scope(manager, hierarchy, has_programs);
        match (manager, chosen) {
            (CgroupManager::Systemd, chosen) => chosen,
            (_, Ok(placement)) => Ok(placement),
            (_, Err(error)) => {
                tracing::debug!(%error, "the command's cgroup is created below that of tidegate");
                Ok(Placement::BelowOwn)
            }
        }
    }
}

fn scope(
    manager: CgroupManager,
    hierarchy: &Hierarchy,
    has_programs: impl Fn(BorrowedFd<'_>) -> io::Result<bool>,
) -> Result<Placement, PlacementError> {
    if !Path::new(SYSTEMD_RUNS).is_dir() || !hierarchy.shows_real_root() {
        return Err(PlacementError::NoSystemd);
    }
    if cfg!(not(feature = "systemd")) {
        return Err(PlacementError::NotBuilt);
    }
    let own = hierarchy.own_cgroup();
    let own_path = hierarchy.hierarchy_path(&own);
    let (slice, leaves_service) = match Caller::of(&own_path) {
        Caller::ScopeOrUser(slice) => (slice, false),
        Caller::Service(slice) => (slice, true),
        Caller::NoUnit => return Err(PlacementError::NoUnit(own_path)),
    };
    let mut is_users = false;
    for directory in own.ancestors() {
        let path = hierarchy.hierarchy_path(directory);
        if path == *slice.path() || path == Path::new("/") {
            break;
        }
        let failed = |source| PlacementError::Examine {
            cgroup: directory.to_owned(),
            source,
        };
        let opened = File::open(directory).map_err(failed)?;
        if has_programs(opened.as_fd()).map_err(failed)? {
            return Err(PlacementError::Programs(path));
        }
        is_users |= fs::metadata(directory).map_err(failed)?.uid() != 0;
    }
    // A service of root that is not delegated to a user keeps its command.
    if manager == CgroupManager::Auto && leaves_service && !is_users {
        return Ok(Placement::BelowOwn);
    }
    Ok(Placement::Scope(slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(path: &str) -> Slice {
        Slice { path: path.into() }
    }

    #[test]
    fn sessions_and_users_get_the_slice_above_them() {
        for (own, expected) in [
            (
                "/user.slice/user-1000.slice/session-3.scope",
                "/user.slice/user-1000.slice",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-1.scope",
                "/user.slice/user-1000.slice",
            ),
            ("/init.scope", "/system.slice"),
            ("/machine.slice/libpod-1.scope/container", "/machine.slice"),
        ] {
            assert_eq!(
                Caller::of(Path::new(own)),
                Caller::ScopeOrUser(slice(expected)),
                "{own}"
            );
        }
    }

    #[test]
    fn services_are_not_left_and_other_cgroups_are_not_units() {
        for own in [
            "/system.slice/shop.service",
            "/system.slice/shop.service/sub",
            "/system.slice",
        ] {
            assert_eq!(
                Caller::of(Path::new(own)),
                Caller::Service(slice("/system.slice")),
                "{own}"
            );
        }
        assert_eq!(
            Caller::of(Path::new("/")),
            Caller::Service(slice("/system.slice"))
        );
        for own in ["/docker/abc", "/test", "/system.slice/x"] {
            assert_eq!(Caller::of(Path::new(own)), Caller::NoUnit, "{own}");
        }
    }

    #[test]
    fn the_unit_of_a_slice_is_its_last_component() {
        assert_eq!(slice("/user.slice/user-1000.slice").unit(), "user-1000.slice");
    }
}
