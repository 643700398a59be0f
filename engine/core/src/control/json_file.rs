//! Files with one JSON document each, in directories of root: read whole, replaced atomically.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::ControlError;
use crate::policy::{MAX_POLICY_BYTES, MAX_SUBSTITUTED_BYTES};

/// Maximum size of a file in bytes. It has at most two versions of a policy, each with its text and the values of its
/// variables; JSON writes a control character as six bytes.
const MAX_BYTES: u64 = 2 * 6 * (MAX_POLICY_BYTES + MAX_SUBSTITUTED_BYTES as u64) + (16 << 20);

/// Whether a file must survive a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// It is about the running kernel, and useless after a reboot.
    UntilReboot,
    /// It is on the disk when [`replace`] returns, and its name is once [`sync_directory`] was called.
    Disk,
}

/// Creates a directory, 0700, if need be. One that exists must belong to this user and not be writable by others.
pub(super) fn make_directory(directory: &Path) -> Result<(), ControlError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(at("create", directory)(error));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(directory).map_err(at("read the owner of", directory))?;
    let foreign = !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw();
    if foreign || metadata.mode() & 0o022 != 0 {
        let error =
            io::Error::other("it belongs to another user, others can write to it, or it is not a directory");
        return Err(at("use", directory)(error));
    }
    Ok(())
}

/// Flushes the names of a directory to the disk.
pub(super) fn sync_directory(directory: &Path) -> Result<(), ControlError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(at("sync", directory))
}

pub(super) fn at(step: &'static str, path: &Path) -> impl Fn(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Journal {
        step,
        path: path.clone(),
        source,
    }
}

/// Reads a document whose key `version` must be `supported`; `None` if there is no file.
pub(super) fn read<T: DeserializeOwned>(path: &Path, supported: u32) -> Result<Option<T>, ControlError> {
    #[derive(Deserialize)]
    struct Format {
        version: u64,
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("read", path)(error)),
        Ok(_) if bytes.len() as u64 > MAX_BYTES => {
            let error = io::Error::other(format!("it has more than {MAX_BYTES} bytes"));
            return Err(at("read", path)(error));
        }
        Ok(_) => {}
    }
    let invalid = |source| ControlError::Record {
        path: path.to_owned(),
        source,
    };
    // The other keys depend on the version.
    let Format { version } = serde_json::from_slice(&bytes).map_err(invalid)?;
    if version != u64::from(supported) {
        return Err(ControlError::RecordVersion {
            path: path.to_owned(),
            found: version,
            supported,
        });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(invalid)
}

/// Replaces a file, or creates it, atomically: a reader finds the old document or the new one.
pub(super) fn replace(
    path: &Path,
    document: &impl Serialize,
    durability: Durability,
) -> Result<(), ControlError> {
    let mut text = serde_json::to_vec_pretty(document).map_err(|source| ControlError::Record {
        path: path.to_owned(),
        source,
    })?;
    text.push(b'\n');
    let draft = path.with_extension("draft");
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft);
    let written = open.and_then(|mut file: File| {
        file.write_all(&text)?;
        match durability {
            Durability::UntilReboot => Ok(()),
            Durability::Disk => file.sync_all(),
        }
    });
    written.map_err(at("write", &draft))?;
    fs::rename(&draft, path).map_err(at("replace", path))
}

/// Removes a file; whether there was one.
pub(super) fn remove(path: &Path) -> Result<bool, ControlError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("remove", path)(error)),
    }
}
