//! The journal: `policies/<name>.json` in the run directory, one record each, replaced atomically.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use engine_common::limits::MAX_POLICIES;

use super::{
    error::ControlError,
    json_file::{self, Durability, at, make_directory},
    lock::{LOCK, LOSSES_REPORTED},
    record::{RECORD_VERSION, Record},
};
use crate::datapath::{Slot, TableError};

/// Whether a policy can have this name: its record is a file of that name.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=63).contains(&name.len()) && name.chars().all(is_plain)
}

/// The journal.
pub(super) struct Journal {
    directory: PathBuf,
    policies: PathBuf,
    detached: PathBuf,
    cursor: PathBuf,
}

impl Journal {
    /// Opens the journal in a run directory, which is created if need be.
    pub(super) fn open(directory: &Path) -> Result<Journal, ControlError> {
        let journal = Journal {
            directory: directory.to_owned(),
            policies: directory.join("policies"),
            detached: directory.join("detached"),
            cursor: directory.join("next-slot"),
        };
        make_directory(directory)?;
        make_directory(&journal.policies)?;
        make_directory(&journal.detached)?;
        Ok(journal)
    }

    /// All records, by name.
    pub(super) fn records(&self) -> Result<Vec<Record>, ControlError> {
        read_all(&self.policies)
    }

    /// Whether it has no records, valid or not.
    pub(super) fn is_empty(&self) -> Result<bool, ControlError> {
        let mut entries = fs::read_dir(&self.policies).map_err(at("read", &self.policies))?;
        Ok(entries.next().is_none())
    }

    /// Records of policies that were detached, for their events that are still to be read.
    pub(super) fn detached(&self) -> Result<Vec<Record>, ControlError> {
        read_all(&self.detached)
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Record>, ControlError> {
        if !is_name(name) {
            return Err(ControlError::Name(name.to_owned()));
        }
        read(&self.file(name))
    }

    /// Replaces a record, or creates it, atomically: a reader sees the old one or the new one.
    pub(super) fn write(&self, record: &Record) -> Result<(), ControlError> {
        write(&self.file(&record.name), record)
    }

    /// Keeps the record of a policy that was detached for the names in its events.
    pub(super) fn move_to_detached(&self, record: &Record) -> Result<(), ControlError> {
        write(&self.detached.join(format!("{}.json", record.slot)), record)?;
        self.remove(&record.name)
    }

    /// Removes a record.
    pub(super) fn remove(&self, name: &str) -> Result<(), ControlError> {
        let file = self.file(name);
        ignore_missing(fs::remove_file(&file)).map_err(at("remove", &file))
    }

    /// Removes everything but the locks.
    pub(super) fn clear(&self) -> Result<(), ControlError> {
        for directory in [&self.policies, &self.detached] {
            ignore_missing(fs::remove_dir_all(directory)).map_err(at("remove", directory))?;
        }
        for file in [&self.cursor, &self.directory.join(LOSSES_REPORTED)] {
            ignore_missing(fs::remove_file(file)).map_err(at("remove", file))?;
        }
        Ok(())
    }

    /// Removes everything and the run directory too; the caller holds the lock.
    pub(super) fn remove_directory(&self) -> Result<(), ControlError> {
        self.clear()?;
        let lock = self.directory.join(LOCK);
        ignore_missing(fs::remove_file(&lock)).map_err(at("remove", &lock))?;
        // Fails while it has other files: a reader's lock.
        let _ = fs::remove_dir(&self.directory);
        Ok(())
    }

    /// Slots that no record has and that are free by `is_free`. They are handed out in turn, so that events of a detached
    /// policy are not soon mistaken for those of another one.
    pub(super) fn free_slots(
        &self,
        count: usize,
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
            .take(count)
            .collect();
        match free.last() {
            Some(last) if free.len() == count => {
                // Only the order of slots depends on it.
                let _ = fs::write(&self.cursor, (last.0 + 1).to_string());
                Ok(free)
            }
            _ if count == 0 => Ok(free),
            _ => Err(TableError::Full.into()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.policies.join(format!("{name}.json"))
    }
}

fn read_all(directory: &Path) -> Result<Vec<Record>, ControlError> {
    let entries = fs::read_dir(directory).map_err(at("read", directory))?;
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
    json_file::read(path, RECORD_VERSION)
}

fn write(path: &Path, record: &Record) -> Result<(), ControlError> {
    json_file::replace(path, record, Durability::UntilReboot)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
