//! Completes or reverts what a command that died left pending.

use super::{
    Control,
    error::ControlError,
    record::{PendingOperation, Record},
    scope,
};
use crate::datapath::Slot;

impl Control {
    /// Looks in the kernel for the write of every pending operation: one that was made is recorded as done, one that was not
    /// is forgotten. Then detaches programs from cgroups that no record names.
    pub(super) fn recover(&mut self) -> Result<(), ControlError> {
        let mut records = self.journal.records()?;
        if records.iter().any(|record| record.pending.is_some()) {
            self.resync_scopes()?;
        }
        for record in records.iter_mut() {
            if let Some(pending) = record.pending.take() {
                self.complete(record, pending)?;
            }
        }
        self.sweep_links()
    }

    /// A command may have died between the two writes of a scope. The scope by socket is the reference; the scope by task
    /// follows it.
    fn resync_scopes(&self) -> Result<(), ControlError> {
        for cgroup in self.datapath.cgroups()? {
            if let Some(scope) = self.scope_of(cgroup, "")?.filter(|scope| scope.cgroup != 0) {
                self.write_scope(&scope, "")?;
            }
        }
        Ok(())
    }

    /// Completes or reverts a pending operation, and writes the record. `record.pending` has been taken.
    pub(super) fn complete(
        &self,
        record: &mut Record,
        pending: PendingOperation,
    ) -> Result<(), ControlError> {
        let slot = Slot(record.slot);
        match pending {
            PendingOperation::Attach(attachment) => {
                let made = self.scope_of(attachment.cgroup, &attachment.path)?;
                if made.is_some_and(|scope| scope::has(&scope, slot)) {
                    record.attachments.push(attachment.clone());
                }
                self.update_egress_filter(attachment.cgroup, &attachment.path)?;
                if record.attachments.is_empty() {
                    self.datapath.clear(slot)?;
                    return self.journal.remove(&record.name);
                }
            }
            PendingOperation::Apply(version) => {
                let live = self
                    .datapath
                    .live(slot)?
                    .map(|live| live.revision())
                    .transpose()?;
                if live.is_some_and(|revision| revision.generation == version.generation) {
                    self.take_over_counters(record)?;
                    record.advance(*version);
                    self.write_modes(record)?;
                }
                for attachment in &record.attachments {
                    self.update_egress_filter(attachment.cgroup, &attachment.path)?;
                }
                self.journal.write(record)?;
                self.datapath.forget_superseded(slot)?;
                return Ok(());
            }
            PendingOperation::Detach(cgroups) => {
                let mut untouched = true;
                for &cgroup in &cgroups {
                    let scope = self.scope_of(cgroup, "")?;
                    untouched &= scope.is_some_and(|scope| scope::has(&scope, slot));
                }
                if !untouched {
                    return self.finish_detach(record, &cgroups);
                }
            }
        }
        self.journal.write(record)
    }

    /// Adds the counters of the superseded version, which its pin has kept.
    pub(super) fn take_over_counters(&self, record: &mut Record) -> Result<(), ControlError> {
        if let Some(image) = self.datapath.superseded(Slot(record.slot)) {
            record.superseded.add(&record.live, &image.counters()?);
        }
        Ok(())
    }

    /// Writes the mode of the policy into the scopes: it applies when the image is missing.
    pub(super) fn write_modes(&self, record: &Record) -> Result<(), ControlError> {
        let slot = Slot(record.slot);
        let hooks = record.live.hooks_of(self.datapath.hooks());
        for attachment in &record.attachments {
            let Some(now) = self.scope_of(attachment.cgroup, &attachment.path)? else {
                continue;
            };
            if let Some(changed) = scope::with(&now, slot, record.live.mode, hooks)
                && scope::has(&now, slot)
                && changed != now
            {
                self.write_scope(&changed, &attachment.path)?;
            }
        }
        self.update_global(&record.name)
    }

    /// Attaches the programs for the whole machine that some policy needs, and detaches the others.
    pub(super) fn update_global(&self, policy: &str) -> Result<(), ControlError> {
        self.datapath
            .update_global()
            .map_err(|source| ControlError::Attach {
                cgroup: policy.to_owned(),
                source: Box::new(source),
            })
    }

    /// Detaches programs from cgroups whose scope names no policy: a command died before it could activate one, or detach
    /// them.
    fn sweep_links(&self) -> Result<(), ControlError> {
        let known: Vec<u64> = self
            .journal
            .records()?
            .iter()
            .flat_map(|record| record.attachments.iter().map(|attachment| attachment.cgroup))
            .collect();
        for cgroup in self.datapath.cgroups()? {
            if known.contains(&cgroup) {
                continue;
            }
            let scope = self.scope_of(cgroup, "")?;
            if scope.is_none_or(|scope| scope.cgroup == 0 || scope::is_empty(&scope)) {
                self.datapath.detach(cgroup)?;
            }
        }
        Ok(())
    }

    pub(super) fn scope_of(
        &self,
        cgroup: u64,
        path: &str,
    ) -> Result<Option<engine_common::scope::Scope>, ControlError> {
        self.datapath.scope(cgroup).map_err(|source| ControlError::Scope {
            step: "read",
            cgroup: describe(cgroup, path),
            source,
        })
    }

    pub(super) fn write_scope(
        &self,
        scope: &engine_common::scope::Scope,
        path: &str,
    ) -> Result<(), ControlError> {
        self.datapath
            .write_scope(scope)
            .map_err(|source| ControlError::Scope {
                step: "write",
                cgroup: describe(scope.cgroup, path),
                source,
            })
    }
}

/// The path of a cgroup, or its id where the path is not known.
fn describe(cgroup: u64, path: &str) -> String {
    match path {
        "" => cgroup.to_string(),
        path => path.to_owned(),
    }
}
