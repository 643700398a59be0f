//! Detaching policies from cgroups.

use std::path::PathBuf;

use super::{
    Control, Invocation,
    desired_state::StateDirectory,
    error::ControlError,
    journal::Journal,
    lock::{Holder, Lock},
    record::{Attachment, PendingOperation, Record},
    scope,
};
use crate::{
    cgroup::CgroupHandle,
    datapath::{PinnedDatapath, Slot},
};

/// The cgroup that a policy is to be detached from.
#[derive(Debug)]
pub enum DetachTarget {
    /// A cgroup that exists.
    Cgroup(CgroupHandle),
    /// One that was removed, by the path it had.
    Removed(PathBuf),
}

impl DetachTarget {
    fn is(&self, attachment: &Attachment) -> bool {
        match self {
            DetachTarget::Cgroup(located) => located.id() == attachment.cgroup,
            DetachTarget::Removed(path) => *path == *attachment.path,
        }
    }

    fn path(&self) -> String {
        match self {
            DetachTarget::Cgroup(located) => located.path().display().to_string(),
            DetachTarget::Removed(path) => path.display().to_string(),
        }
    }
}

/// A policy that was detached.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DetachOutcome {
    /// The policy.
    pub policy: String,
    /// Paths of the cgroups it was detached from.
    pub cgroups: Vec<String>,
    /// Whether it is still attached to other cgroups.
    pub still_attached: bool,
}

impl Control {
    /// Detaches a policy from one cgroup, or from all.
    ///
    /// # Errors
    /// [`ControlError::NotAttached`], [`ControlError::NotAttachedToCgroup`], or when a write fails.
    pub fn detach(&mut self, name: &str, only: Option<&DetachTarget>) -> Result<DetachOutcome, ControlError> {
        let (mut record, detached) = self.deactivate_in(name, only)?;
        self.forget(&mut record)?;
        Ok(detached)
    }

    /// Detaches a policy from its cgroups, or one of them. The caller writes the record.
    fn deactivate_in(
        &self,
        name: &str,
        only: Option<&DetachTarget>,
    ) -> Result<(Record, DetachOutcome), ControlError> {
        let mut record = self.record(name)?;
        let chosen: Vec<_> = record
            .attachments
            .iter()
            .filter(|attachment| only.is_none_or(|only| only.is(attachment)))
            .cloned()
            .collect();
        if let (Some(only), []) = (only, chosen.as_slice()) {
            return Err(ControlError::NotAttachedToCgroup {
                name: name.to_owned(),
                cgroup: only.path(),
            });
        }
        let cgroups: Vec<u64> = chosen.iter().map(|attachment| attachment.cgroup).collect();
        record.pending = Some(PendingOperation::Detach(cgroups.clone()));
        self.journal.write(&record)?;
        record.pending = None;
        self.deactivate(&mut record, &cgroups)?;
        let detached = DetachOutcome {
            policy: record.name.clone(),
            cgroups: chosen.into_iter().map(|attachment| attachment.path).collect(),
            still_attached: !record.attachments.is_empty(),
        };
        Ok((record, detached))
    }

    /// Completes a detach, whatever of it is done already.
    pub(super) fn finish_detach(&self, record: &mut Record, cgroups: &[u64]) -> Result<(), ControlError> {
        self.deactivate(record, cgroups)?;
        self.forget(record)
    }

    /// Deactivates the policy in the scopes, and detaches programs that no policy needs any more.
    fn deactivate(&self, record: &mut Record, cgroups: &[u64]) -> Result<(), ControlError> {
        let slot = Slot(record.slot);
        for &cgroup in cgroups {
            let now = self.scope_of(cgroup, "")?;
            if let Some(now) = now.filter(|now| scope::has(now, slot)) {
                self.write_scope(&scope::without(&now, slot), "")?;
            }
            let left = self.scope_of(cgroup, "")?;
            if left.is_none_or(|left| scope::is_empty(&left)) {
                self.datapath.detach(cgroup)?;
            } else {
                self.update_egress_filter(cgroup, "")?;
            }
        }
        self.update_global(&record.name)?;
        record
            .attachments
            .retain(|attachment| !cgroups.contains(&attachment.cgroup));
        Ok(())
    }

    /// Writes the record of a policy that is still attached to other cgroups; otherwise releases its slot and records.
    fn forget(&self, record: &mut Record) -> Result<(), ControlError> {
        if !record.attachments.is_empty() {
            self.journal.write(record)?;
            return self.state.write(std::iter::once(&*record));
        }
        // While the journal has the operation, the next command repeats a removal that did not take place.
        self.state.remove(&record.name)?;
        self.datapath.clear(Slot(record.slot))?;
        self.journal.move_to_detached(record)
    }

    /// Removes everything: policies, programs, maps, unread events, the journal, and the desired state.
    ///
    /// # Errors
    /// [`ControlError`] when something cannot be read or removed.
    pub fn detach_all(self) -> Result<Vec<DetachOutcome>, ControlError> {
        let mut detached = Vec::new();
        for record in self.journal.records()? {
            // Its slot goes with the map: emptying a single slot takes the kernel some milliseconds.
            let (record, one) = self.deactivate_in(&record.name, None)?;
            self.state.unlink(&record.name)?;
            self.journal.remove(&record.name)?;
            detached.push(one);
        }
        let instance = &self.invocation.instance;
        PinnedDatapath::remove(instance)?;
        self.journal.clear()?;
        self.state.clear()?;
        PinnedDatapath::remove_leftovers(instance)?;
        Ok(detached)
    }

    /// Removes everything, also what cannot be opened because pins or records are damaged or lost. Returns whether there
    /// was anything.
    ///
    /// # Errors
    /// [`ControlError`] when something cannot be removed.
    pub fn remove_everything(
        invocation: &Invocation,
        wait: impl FnOnce(&Holder),
    ) -> Result<bool, ControlError> {
        let instance = &invocation.instance;
        let state = StateDirectory::at(&instance.state_dir);
        if !instance.run_dir.exists() {
            let existed = PinnedDatapath::remove(instance)? | state.clear()?;
            PinnedDatapath::remove_leftovers(instance)?;
            return Ok(existed);
        }
        let _lock = Lock::take(invocation, wait)?;
        let journal = Journal::open(&instance.run_dir)?;
        let existed = PinnedDatapath::remove(instance)? || !journal.is_empty()?;
        journal.clear()?;
        let existed = state.clear()? || existed;
        PinnedDatapath::remove_leftovers(instance)?;
        Ok(existed)
    }
}
