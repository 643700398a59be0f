//! Identities of the files that a policy names: executables, and unix sockets by their paths.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use engine_common::{ExecutableId, UnixSocketId};

use crate::policy::{Policy, UnixName, UnixSockets};

/// Which file each path of a policy is. Looked up by whoever knows the machine (`datapath`), so
/// that compiling stays pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    executables: BTreeMap<PathBuf, ExecutableId>,
    sockets: BTreeMap<PathBuf, Vec<UnixSocketId>>,
}

impl Identities {
    /// Made-up identities, one a path: for work that needs no machine (check, explain, dump).
    /// Device 0 is no real file's.
    pub fn synthetic(policy: &Policy) -> Identities {
        let numbered = paths_of(policy).into_iter().zip(1..);
        let executables = numbered.map(|(path, inode)| (path.to_owned(), ExecutableId { device: 0, inode }));
        let sockets = socket_paths_of(policy).into_iter();
        let sockets = sockets.map(|path| (path.to_owned(), vec![made_up_place(path)]));
        Identities {
            executables: executables.collect(),
            sockets: sockets.collect(),
        }
    }

    /// The place that a name has among [`Identities::synthetic`], whether the policy names it or not.
    pub fn synthetic_place(name: &UnixName) -> UnixSocketId {
        match name {
            UnixName::Abstract(name) => UnixSocketId::of_abstract(name),
            UnixName::Path(path) => made_up_place(path),
        }
    }

    /// Records the identity of an executable.
    pub fn insert(&mut self, path: PathBuf, id: ExecutableId) {
        self.executables.insert(path, id);
    }

    /// Records where the socket of a path is: in each of these places it may be.
    pub fn insert_socket(&mut self, path: PathBuf, places: Vec<UnixSocketId>) {
        self.sockets.insert(path, places);
    }

    /// The identity of an executable's path.
    pub fn executable(&self, path: &Path) -> Option<ExecutableId> {
        self.executables.get(path).copied()
    }

    /// The places of a unix socket; `None` where its path was not looked up.
    pub fn socket(&self, name: &UnixName) -> Option<Vec<UnixSocketId>> {
        match name {
            UnixName::Abstract(name) => Some(vec![UnixSocketId::of_abstract(name)]),
            UnixName::Path(path) => self.sockets.get(path).cloned(),
        }
    }
}

fn made_up_place(path: &Path) -> UnixSocketId {
    UnixSocketId::in_file_system(MADE_UP_DEVICE, components(path))
}

/// A device for made-up places: no file system has the greatest number.
const MADE_UP_DEVICE: u64 = u32::MAX as u64;

/// The components of a path, the last one first.
pub(crate) fn components(path: &Path) -> impl Iterator<Item = &[u8]> {
    use std::os::unix::ffi::OsStrExt;
    path.components().rev().filter_map(|component| match component {
        std::path::Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    })
}

impl FromIterator<(PathBuf, ExecutableId)> for Identities {
    fn from_iter<I: IntoIterator<Item = (PathBuf, ExecutableId)>>(identities: I) -> Identities {
        Identities {
            executables: identities.into_iter().collect(),
            sockets: BTreeMap::new(),
        }
    }
}

/// All executables that a policy names.
pub fn paths_of(policy: &Policy) -> BTreeSet<&Path> {
    let named = policy
        .rules
        .iter()
        .filter_map(|rule| rule.subject.binaries.as_ref());
    named.flatten().map(|binary| binary.path.as_path()).collect()
}

/// The paths of all unix sockets that a policy names.
pub fn socket_paths_of(policy: &Policy) -> BTreeSet<&Path> {
    let named = policy.rules.iter().filter_map(|rule| match &rule.unix {
        Some(UnixSockets::Only(names)) => Some(names),
        _ => None,
    });
    let paths = named.flatten().filter_map(|name| match name {
        UnixName::Path(path) => Some(path.as_path()),
        UnixName::Abstract(_) => None,
    });
    paths.collect()
}
