//! Taking policies away from cgroups.

use std::path::PathBuf;

use super::{
    Standing,
    error::ControlError,
    journal::{self, Journal},
    lock::{Holder, Lock},
    record::{Attachment, Pending, Record},
    scope,
};
use crate::{
    cgroup::CgroupHandle,
    datapath::{PinnedDatapath, Slot},
};

/// A place that a policy is to be taken away from.
#[derive(Debug)]
pub enum Place {
    /// A cgroup that exists.
    Cgroup(CgroupHandle),
    /// One that was removed, by the path it had.
    Gone(PathBuf),
}

impl Place {
    fn is(&self, there: &Attachment) -> bool {
        match self {
            Place::Cgroup(located) => located.id() == there.cgroup,
            Place::Gone(path) => *path == *there.path,
        }
    }

    fn path(&self) -> String {
        match self {
            Place::Cgroup(located) => located.path().display().to_string(),
            Place::Gone(path) => path.display().to_string(),
        }
    }
}

/// What was taken away.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Detached {
    /// The policy.
    pub policy: String,
    /// The cgroups it stood on.
    pub cgroups: Vec<String>,
    /// Whether it stands elsewhere still.
    pub stands_elsewhere: bool,
}

impl Standing {
    /// Takes a policy away: from one place, or from all.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn detach(&mut self, name: &str, only: Option<&Place>) -> Result<Detached, ControlError> {
        let (mut record, detached) = self.take_off(name, only)?;
        self.forget(&mut record)?;
        Ok(detached)
    }

    /// Takes a policy off its cgroups. Its record is still to be written.
    fn take_off(&self, name: &str, only: Option<&Place>) -> Result<(Record, Detached), ControlError> {
        let mut record = self.record(name)?;
        let chosen: Vec<_> = record
            .attachments
            .iter()
            .filter(|there| only.is_none_or(|only| only.is(there)))
            .cloned()
            .collect();
        if let (Some(only), []) = (only, chosen.as_slice()) {
            return Err(ControlError::NotThere {
                name: name.to_owned(),
                cgroup: only.path(),
            });
        }
        let cgroups: Vec<u64> = chosen.iter().map(|there| there.cgroup).collect();
        record.pending = Some(Pending::Detach(cgroups.clone()));
        self.journal.write(&record)?;
        record.pending = None;
        self.leave(&mut record, &cgroups)?;
        let detached = Detached {
            policy: record.name.clone(),
            cgroups: chosen.into_iter().map(|there| there.path).collect(),
            stands_elsewhere: !record.attachments.is_empty(),
        };
        Ok((record, detached))
    }

    /// All that is left to do, whatever of it is done already.
    pub(super) fn finish_detach(&self, record: &mut Record, cgroups: &[u64]) -> Result<(), ControlError> {
        self.leave(record, cgroups)?;
        self.forget(record)
    }

    /// The flips, and the links that nobody needs any more.
    fn leave(&self, record: &mut Record, cgroups: &[u64]) -> Result<(), ControlError> {
        let slot = Slot(record.slot);
        for &cgroup in cgroups {
            let now = self.scope_of(cgroup, "")?;
            if let Some(now) = now.filter(|now| scope::has(now, slot)) {
                self.write_scope(&scope::without(&now, slot), "")?;
            }
            let left = self.scope_of(cgroup, "")?;
            if left.is_none_or(|left| scope::is_empty(&left)) {
                self.gate.detach(cgroup)?;
            } else {
                self.update_egress_filter(cgroup, "")?;
            }
        }
        self.settle_global(&record.name)?;
        record
            .attachments
            .retain(|there| !cgroups.contains(&there.cgroup));
        Ok(())
    }

    /// Writes the record of a policy that stands elsewhere still; slot and record of another are given up.
    fn forget(&self, record: &mut Record) -> Result<(), ControlError> {
        if !record.attachments.is_empty() {
            return self.journal.write(record);
        }
        self.gate.clear(Slot(record.slot))?;
        self.journal.retire(record)
    }

    /// Takes everything away: policies, programs, tables, events that nobody read, and the journal.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn detach_all(self) -> Result<Vec<Detached>, ControlError> {
        let mut detached = Vec::new();
        for record in self.journal.records()? {
            // Its slot goes with the table: to empty it alone takes the kernel some milliseconds.
            let (record, one) = self.take_off(&record.name, None)?;
            self.journal.remove(&record.name)?;
            detached.push(one);
        }
        PinnedDatapath::remove()?;
        self.journal.clear()?;
        Ok(detached)
    }

    /// Takes everything away, also what cannot be opened: pins or records may be damaged or lost. Whether
    /// there was anything.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn start_over(wait: impl FnOnce(&Holder)) -> Result<bool, ControlError> {
        let _lock = Lock::take(&journal::folder()?, wait)?;
        let journal = Journal::open()?;
        let was_there = PinnedDatapath::remove()? || !journal.is_empty()?;
        journal.clear()?;
        Ok(was_there)
    }
}
