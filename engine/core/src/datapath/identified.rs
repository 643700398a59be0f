//! Identities of the files that policies name.

use std::os::fd::OwnedFd;

use super::{
    executable::{IdentifyError, identify},
    unix_socket_id,
};
use crate::{
    compile::{Identities, paths_of, socket_paths_of},
    policy::Policy,
};

/// Files identified, and executables held open so that their inode numbers cannot be given to other
/// files for as long as this lives.
#[derive(Debug, Default)]
pub struct Identified {
    /// The identities.
    pub identities: Identities,
    held: Vec<OwnedFd>,
}

impl Identified {
    /// Identifies all files that these policies name, following symbolic links.
    ///
    /// # Errors
    /// [`IdentifyError`] about the first that fails.
    pub fn of<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Result<Identified, IdentifyError> {
        let mut identified = Identified::default();
        for policy in policies {
            for path in paths_of(policy) {
                let (id, fd) = identify(path)?;
                identified.identities.insert(path.to_owned(), id);
                identified.held.push(fd);
            }
            for path in socket_paths_of(policy) {
                let places = unix_socket_id::ids_of(path)?;
                identified.identities.insert_socket(path.to_owned(), places);
            }
        }
        Ok(identified)
    }
}
