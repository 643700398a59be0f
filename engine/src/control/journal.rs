//! The journal: `/run/tidegate/policies/<name>.json`, a record each, replaced whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use engine_common::limits::MAX_POLICIES;

use super::{error::ControlError, record::Record};
use crate::datapath::{Slot, TableError};

/// Environment variable that names another folder for the journal.
pub const RUN_VARIABLE: &str = "TIDEGATE_RUN";

/// Where the journal is: gone after a reboot, as the pins are.
const FOLDER: &str = "/run/tidegate";

/// The folder, made if need be, 0700.
pub(super) fn folder() -> Result<PathBuf, ControlError> {
    let folder = std::env::var_os(RUN_VARIABLE).map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
    make(&folder)?;
    Ok(folder)
}

fn make(folder: &Path) -> Result<(), ControlError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at("make", folder)(error)),
        _ => {}
    }
    // Somebody else's folder could be anything.
    let metadata = fs::symlink_metadata(folder).map_err(at("look at", folder))?;
    let foreign = !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw();
    if foreign || metadata.mode() & 0o022 != 0 {
        let error = io::Error::other("it is not a folder of ours that nobody else can write to");
        return Err(at("use", folder)(error));
    }
    Ok(())
}

fn at(step: &'static str, path: &Path) -> impl Fn(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Journal {
        step,
        path: path.clone(),
        source,
    }
}

/// Whether a policy can be called that: its record is a file of that name.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=63).contains(&name.len()) && name.chars().all(is_plain)
}

/// The journal.
pub(super) struct Journal {
    policies: PathBuf,
    detached: PathBuf,
    cursor: PathBuf,
}

impl Journal {
    pub(super) fn open() -> Result<Journal, ControlError> {
        let folder = folder()?;
        let journal = Journal {
            policies: folder.join("policies"),
            detached: folder.join("detached"),
            cursor: folder.join("next-slot"),
        };
        journal.make()?;
        Ok(journal)
    }

    fn make(&self) -> Result<(), ControlError> {
        make(&self.policies)?;
        make(&self.detached)
    }

    /// All records, by name.
    pub(super) fn records(&self) -> Result<Vec<Record>, ControlError> {
        read_all(&self.policies)
    }

    /// Whether it has no records, readable or not.
    pub(super) fn is_empty(&self) -> Result<bool, ControlError> {
        let mut entries = fs::read_dir(&self.policies).map_err(at("read", &self.policies))?;
        Ok(entries.next().is_none())
    }

    /// Records of policies that stand no more, for events of them that are still to be read.
    pub(super) fn detached(&self) -> Result<Vec<Record>, ControlError> {
        read_all(&self.detached)
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Record>, ControlError> {
        if !is_name(name) {
            return Err(ControlError::Name(name.to_owned()));
        }
        read(&self.file(name))
    }

    /// Replaces a record, or makes it: whoever reads sees the old one or the new one.
    pub(super) fn write(&self, record: &Record) -> Result<(), ControlError> {
        write(&self.file(&record.name), record)
    }

    /// Moves the record of a policy that stands no more out of the way.
    pub(super) fn retire(&self, record: &Record) -> Result<(), ControlError> {
        write(&self.detached.join(format!("{}.json", record.slot)), record)?;
        self.remove(&record.name)
    }

    /// Removes a record.
    pub(super) fn remove(&self, name: &str) -> Result<(), ControlError> {
        let file = self.file(name);
        gone_is_fine(fs::remove_file(&file)).map_err(at("remove", &file))
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> Result<(), ControlError> {
        for folder in [&self.policies, &self.detached] {
            gone_is_fine(fs::remove_dir_all(folder)).map_err(at("remove", folder))?;
        }
        let told = self.cursor.with_file_name("losses-told");
        for file in [&self.cursor, &told] {
            gone_is_fine(fs::remove_file(file)).map_err(at("remove", file))?;
        }
        Ok(())
    }

    /// Slots that no record has, and nothing else by `is_free`. They are given out round and round, so that events of a policy that
    /// was taken away are not soon taken for those of another.
    pub(super) fn free_slots(
        &self,
        wanted: usize,
        is_free: impl Fn(Slot) -> bool,
    ) -> Result<Vec<Slot>, ControlError> {
        let taken: Vec<u32> = self.records()?.iter().map(|record| record.slot).collect();
        let text = fs::read_to_string(&self.cursor).unwrap_or_default();
        let first = text.trim().parse::<u32>().unwrap_or(0);
        let all = (0..MAX_POLICIES).map(|i| first.wrapping_add(i) % MAX_POLICIES);
        let free: Vec<Slot> = all
            .filter(|slot| !taken.contains(slot))
            .map(Slot)
            .filter(|slot| is_free(*slot))
            .take(wanted)
            .collect();
        match free.last() {
            Some(last) if free.len() == wanted => {
                // Best done, but nothing depends on it.
                let _ = fs::write(&self.cursor, (last.0 + 1).to_string());
                Ok(free)
            }
            _ if wanted == 0 => Ok(free),
            _ => Err(TableError::Full.into()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.policies.join(format!("{name}.json"))
    }
}

fn read_all(folder: &Path) -> Result<Vec<Record>, ControlError> {
    let entries = fs::read_dir(folder).map_err(at("read", folder))?;
    let mut records = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            records.extend(read(&path)?);
        }
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

fn read(path: &Path) -> Result<Option<Record>, ControlError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("read", path)(error)),
    };
    let record = serde_json::from_slice(&text).map_err(|source| ControlError::Record {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(record))
}

fn write(path: &Path, record: &Record) -> Result<(), ControlError> {
    let mut text = serde_json::to_vec_pretty(record).map_err(|source| ControlError::Record {
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
    let written = open.and_then(|mut file: File| file.write_all(&text));
    written.map_err(at("write", &draft))?;
    fs::rename(&draft, path).map_err(at("replace", path))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
