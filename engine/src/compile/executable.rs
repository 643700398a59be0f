//! Identities of the executables that a policy names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use engine_common::ExecutableId;

use crate::policy::Policy;

/// Which file each path of a policy is. Looked up by whoever knows the machine (`datapath`), so
/// that compiling stays pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executables {
    by_path: BTreeMap<PathBuf, ExecutableId>,
}

impl Executables {
    /// Made-up identities, one a path: for work that needs no machine (check, explain, dump).
    /// Device 0 is no real file's.
    pub fn synthetic(policy: &Policy) -> Executables {
        let numbered = paths_of(policy).into_iter().zip(1..);
        Executables {
            by_path: numbered
                .map(|(path, inode)| (path.to_owned(), ExecutableId { device: 0, inode }))
                .collect(),
        }
    }

    /// Records an identity.
    pub fn insert(&mut self, path: PathBuf, id: ExecutableId) {
        self.by_path.insert(path, id);
    }

    /// The identity of a path.
    pub fn get(&self, path: &Path) -> Option<ExecutableId> {
        self.by_path.get(path).copied()
    }
}

impl FromIterator<(PathBuf, ExecutableId)> for Executables {
    fn from_iter<I: IntoIterator<Item = (PathBuf, ExecutableId)>>(identities: I) -> Executables {
        Executables {
            by_path: identities.into_iter().collect(),
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
