//! Undoes or finishes what a command that died left half done.

use super::{
    Standing,
    error::ControlError,
    record::{Pending, Record},
    scope,
};
use crate::datapath::Slot;

impl Standing {
    /// Asks the kernel about every intention in the journal: a flip that was made is written down as
    /// done, one that was not is forgotten. Then takes away what no record knows.
    pub(super) fn recover(&mut self) -> Result<(), ControlError> {
        let mut records = self.journal.records()?;
        if records.iter().any(|record| record.pending.is_some()) {
            self.level_scopes()?;
        }
        for record in records.iter_mut() {
            if let Some(pending) = record.pending.take() {
                self.settle(record, pending)?;
            }
        }
        self.sweep_links()
    }

    /// A command may have died between the two writes of a scope: what programs find by the task follows what they find
    /// by the socket, which is the truth.
    fn level_scopes(&self) -> Result<(), ControlError> {
        for cgroup in self.gate.cgroups()? {
            if let Some(scope) = self.scope_of(cgroup, "")?.filter(|scope| scope.cgroup != 0) {
                self.write_scope(&scope, "")?;
            }
        }
        Ok(())
    }

    /// Settles an intention, and writes what came of it. `record.pending` has been taken.
    pub(super) fn settle(&self, record: &mut Record, pending: Pending) -> Result<(), ControlError> {
        let slot = Slot(record.slot);
        match pending {
            Pending::Attach(attachment) => {
                let made = self.scope_of(attachment.cgroup, &attachment.path)?;
                if made.is_some_and(|scope| scope::has(&scope, slot)) {
                    record.attachments.push(attachment.clone());
                }
                self.update_egress_filter(attachment.cgroup, &attachment.path)?;
                if record.attachments.is_empty() {
                    self.gate.clear(slot)?;
                    return self.journal.remove(&record.name);
                }
            }
            Pending::Apply(version) => {
                let live = self.gate.live(slot)?.map(|live| live.life()).transpose()?;
                if live.is_some_and(|life| life.generation == version.generation) {
                    self.take_over_counters(record)?;
                    record.advance(*version);
                    self.write_modes(record)?;
                }
                for there in &record.attachments {
                    self.update_egress_filter(there.cgroup, &there.path)?;
                }
                self.journal.write(record)?;
                self.gate.forget_retired(slot)?;
                return Ok(());
            }
            Pending::Detach(cgroups) => {
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

    /// Adds the counters of the version that is no longer live, which its pin has kept.
    pub(super) fn take_over_counters(&self, record: &mut Record) -> Result<(), ControlError> {
        if let Some(retired) = self.gate.retired(Slot(record.slot)) {
            record.retired.add(&record.live, &retired.counters()?);
        }
        Ok(())
    }

    /// Says in the scopes what mode the policy has: a missing image is judged by that.
    pub(super) fn write_modes(&self, record: &Record) -> Result<(), ControlError> {
        let slot = Slot(record.slot);
        let hooks = record.live.hooks_of(self.gate.hooks());
        for attachment in &record.attachments {
            let Some(now) = self.scope_of(attachment.cgroup, &attachment.path)? else {
                continue;
            };
            if let Some(wanted) = scope::with(&now, slot, record.live.mode, hooks)
                && scope::has(&now, slot)
                && wanted != now
            {
                self.write_scope(&wanted, &attachment.path)?;
            }
        }
        self.settle_global(&record.name)
    }

    /// What runs for the whole machine is attached where some policy reports what it lets through, or names unix
    /// sockets, and not where none does.
    pub(super) fn settle_global(&self, policy: &str) -> Result<(), ControlError> {
        let settled = self.gate.update_tracer().and_then(|()| self.gate.settle_unix());
        settled.map_err(|source| ControlError::Attach {
            cgroup: policy.to_owned(),
            source: Box::new(source),
        })
    }

    /// Links on cgroups whose scope names no policy let everything pass: a command died before it
    /// could use or remove them.
    fn sweep_links(&self) -> Result<(), ControlError> {
        let known: Vec<u64> = self
            .journal
            .records()?
            .iter()
            .flat_map(|record| record.attachments.iter().map(|attachment| attachment.cgroup))
            .collect();
        for cgroup in self.gate.cgroups()? {
            if known.contains(&cgroup) {
                continue;
            }
            let scope = self.scope_of(cgroup, "")?;
            if scope.is_none_or(|scope| scope.cgroup == 0 || scope::is_empty(&scope)) {
                self.gate.detach(cgroup)?;
            }
        }
        Ok(())
    }

    pub(super) fn scope_of(
        &self,
        cgroup: u64,
        path: &str,
    ) -> Result<Option<engine_common::scope::Scope>, ControlError> {
        self.gate.scope(cgroup).map_err(|source| ControlError::Scope {
            step: "read",
            cgroup: called(cgroup, path),
            source,
        })
    }

    pub(super) fn write_scope(
        &self,
        scope: &engine_common::scope::Scope,
        path: &str,
    ) -> Result<(), ControlError> {
        self.gate
            .write_scope(scope)
            .map_err(|source| ControlError::Scope {
                step: "write",
                cgroup: called(scope.cgroup, path),
                source,
            })
    }
}

/// A cgroup by its path, or by its id where that is all there is.
fn called(cgroup: u64, path: &str) -> String {
    match path {
        "" => cgroup.to_string(),
        path => path.to_owned(),
    }
}
