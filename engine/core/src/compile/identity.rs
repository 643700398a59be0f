//! Kernel identities of the executables and unix sockets that a policy names by path.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use engine_common::{ExecutableId, UnixSocketId};

use crate::policy::{Policy, UnixName, UnixSockets};

/// The file behind each path of a policy. `datapath` looks them up, so that compiling needs no I/O.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    executables: BTreeMap<PathBuf, ExecutableId>,
    sockets: BTreeMap<PathBuf, Vec<UnixSocketId>>,
}

impl Identities {
    /// Synthetic identities, one for each path, for commands that do not access the file system
    /// (check, explain, dump). They use device 0, which no real file has.
    pub fn synthetic(policy: &Policy) -> Identities {
        let numbered = paths_of(policy).into_iter().zip(1..);
        let executables = numbered.map(|(path, inode)| (path.to_owned(), ExecutableId { device: 0, inode }));
        let sockets = socket_paths_of(policy).into_iter();
        let sockets = sockets.map(|path| (path.to_owned(), vec![synthetic_path_id(path)]));
        Identities {
            executables: executables.collect(),
            sockets: sockets.collect(),
        }
    }

    /// The id that [`Identities::synthetic`] gives to a socket, whether or not a policy names it.
    pub fn synthetic_socket(name: &UnixName) -> UnixSocketId {
        match name {
            UnixName::Abstract(name) => UnixSocketId::of_abstract(name),
            UnixName::Path(path) => synthetic_path_id(path),
        }
    }

    /// Sets the identity of an executable.
    pub fn insert(&mut self, path: PathBuf, id: ExecutableId) {
        self.executables.insert(path, id);
    }

    /// Sets the ids of the socket at a path. A path has several ids if several mounts can lead to it.
    pub fn insert_socket(&mut self, path: PathBuf, ids: Vec<UnixSocketId>) {
        self.sockets.insert(path, ids);
    }

    /// The identity of the executable at a path.
    pub fn executable(&self, path: &Path) -> Option<ExecutableId> {
        self.executables.get(path).copied()
    }

    /// The ids of a unix socket; `None` if its path was not looked up.
    pub fn socket(&self, name: &UnixName) -> Option<Vec<UnixSocketId>> {
        match name {
            UnixName::Abstract(name) => Some(vec![UnixSocketId::of_abstract(name)]),
            UnixName::Path(path) => self.sockets.get(path).cloned(),
        }
    }
}

fn synthetic_path_id(path: &Path) -> UnixSocketId {
    UnixSocketId::in_file_system(SYNTHETIC_DEVICE, components(path))
}

/// Device id of synthetic socket ids; no file system has it.
const SYNTHETIC_DEVICE: u64 = u32::MAX as u64;

/// The components of a path in reverse order, without the root.
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

/// The paths of all executables that a policy names.
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
