//! Attaching policies to cgroups.

use std::collections::{HashMap, HashSet};

use engine_common::{Mode, limits::MAX_STACKED, scope::Scope};

use super::{
    Control,
    compiled::Compiled,
    error::ControlError,
    journal::is_name,
    record::{Attachment, PendingOperation, RECORD_VERSION, Record, mode_word},
    scope,
    totals::Totals,
};
use crate::{
    cgroup::CgroupHandle,
    compile::Image,
    datapath::{GroupName, Slot},
    host::Unmet,
    policy::{Policy, PolicyDefinition},
};

/// A policy to be attached to a cgroup.
pub struct AttachRequest {
    /// The policy.
    pub policy: Policy,
    /// Name to attach it under, unique.
    pub name: String,
    /// The mode requested on the command line; `None` for that of the policy.
    pub mode: Option<Mode>,
    /// Path of the policy file.
    pub source: String,
    /// What it was loaded from.
    pub definition: PolicyDefinition,
    /// The cgroup.
    pub cgroup: CgroupHandle,
}

/// A policy that is attached.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AttachOutcome {
    /// Name it is attached under.
    pub policy: String,
    /// Path of the cgroup.
    pub cgroup: String,
    /// Generation that is live.
    pub generation: u64,
    /// Its mode.
    #[serde(serialize_with = "mode_word::serialize")]
    pub mode: Mode,
    /// Whether it was attached there before.
    pub already: bool,
    /// Its requirements that this kernel does not meet.
    pub partial: Vec<Unmet>,
}

/// One request while it is counts out.
struct Step {
    record: Record,
    attachment: Attachment,
    level: Option<u32>,
    cgroup: CgroupHandle,
    /// `None` where the policy is live already.
    image: Option<Image>,
    already: bool,
    /// Whether this command has activated it.
    activated: bool,
}

impl Control {
    /// Attaches policies, each atomically on its whole cgroup. When this fails, those that were attached by then are
    /// detached again, and programs that were loaded for it are removed.
    ///
    /// # Errors
    /// [`ControlError`] when a request is refused, or the kernel refuses a write.
    pub fn attach(
        &mut self,
        requests: Vec<AttachRequest>,
        best_effort: bool,
    ) -> Result<Vec<AttachOutcome>, ControlError> {
        let attached = self.try_attach(requests, best_effort);
        if attached.is_err()
            && let Err(second) = self.remove_unused()
        {
            // The first error is the one to report.
            tracing::warn!(error = ?second, "programs that no policy uses stay loaded");
        }
        attached
    }

    fn try_attach(
        &mut self,
        requests: Vec<AttachRequest>,
        best_effort: bool,
    ) -> Result<Vec<AttachOutcome>, ControlError> {
        let mut steps = self.plan(requests, best_effort)?;
        let done = self.carry_out(&mut steps);
        if let Err(error) = done {
            // The first error is the one to report.
            if let Err(second) = self.undo(&mut steps).and_then(|()| self.recover()) {
                tracing::warn!(error = ?second, "the next command tries again to undo what was not finished");
            }
            return Err(error);
        }
        Ok(steps
            .into_iter()
            .map(|step| AttachOutcome {
                policy: step.record.name,
                cgroup: step.attachment.path,
                generation: step.record.live.generation,
                mode: step.record.live.mode,
                already: step.already,
                partial: step.record.live.partial,
            })
            .collect())
    }

    /// Checks everything before anything is changed.
    fn plan(&self, requests: Vec<AttachRequest>, best_effort: bool) -> Result<Vec<Step>, ControlError> {
        let mut records: HashMap<String, Record> = HashMap::new();
        for record in self.journal.records()? {
            records.insert(record.name.clone(), record);
        }
        self.state.prepare()?;
        self.repair_state()?;
        let mut names = HashSet::new();
        for one in &requests {
            if !is_name(&one.name) {
                return Err(ControlError::Name(one.name.clone()));
            }
            match self.state.read(&one.name) {
                Ok(_) | Err(ControlError::Record { .. }) => {}
                Err(error) => return Err(error),
            }
            if !names.insert(one.name.clone()) {
                return Err(ControlError::Twice {
                    name: one.name.clone(),
                });
            }
        }
        let new = requests
            .iter()
            .filter(|one| !records.contains_key(&one.name))
            .count();
        // A policy whose record was lost keeps its slot.
        let is_free = |slot| matches!(self.datapath.live(slot), Ok(None));
        let mut slots = self.journal.free_slots(new, is_free)?.into_iter();
        let mut counts: HashMap<u64, usize> = HashMap::new();
        let mut steps = Vec::with_capacity(requests.len());
        for one in requests {
            let path = one.cgroup.path().display().to_string();
            let attachment = Attachment {
                path: path.clone(),
                cgroup: one.cgroup.id(),
                by: self.invocation.actor.clone(),
                since: self.invocation.time(),
            };
            let (record, image) = match records.remove(&one.name) {
                Some(record) => {
                    let compiled =
                        self.compile(&one.policy, &one.source, &one.definition, record.live.generation)?;
                    self.check_same(&record, &compiled)?;
                    if one.mode.is_some_and(|mode| mode != record.live.mode) {
                        return Err(ControlError::OtherMode {
                            name: record.name,
                            live: record.live.mode,
                        });
                    }
                    (record, None)
                }
                None => {
                    let compiled = self
                        .compile(&one.policy, &one.source, &one.definition, 1)?
                        .accepted(&one.name, best_effort)?;
                    let record = Record {
                        version: RECORD_VERSION,
                        name: one.name.clone(),
                        slot: slots.next().map_or(0, |slot| slot.0),
                        live: compiled.version,
                        previous_versions: Vec::new(),
                        superseded: Totals::default(),
                        attachments: Vec::new(),
                        pending: None,
                    };
                    (record, Some(compiled.image))
                }
            };
            let already = record
                .attachments
                .iter()
                .any(|existing| existing.cgroup == attachment.cgroup);
            if !already {
                let count = match counts.get(&attachment.cgroup) {
                    Some(&count) => count,
                    None => self
                        .scope_of(attachment.cgroup, &path)?
                        .map_or(0, |scope| scope::count(&scope)),
                };
                if count >= MAX_STACKED {
                    return Err(ControlError::Stacked { cgroup: path });
                }
                counts.insert(attachment.cgroup, count + 1);
            }
            steps.push(Step {
                record,
                attachment,
                level: one.cgroup.level(),
                cgroup: one.cgroup,
                image,
                already,
                activated: false,
            });
        }
        Ok(steps)
    }

    /// A policy that is attached under the name already must be this one.
    fn check_same(&self, record: &Record, compiled: &Compiled) -> Result<(), ControlError> {
        let different = || ControlError::Different {
            name: record.name.clone(),
        };
        let live = self
            .datapath
            .live(Slot(record.slot))?
            .ok_or_else(different)?
            .image()?;
        let names = |version: &super::Version| -> Vec<String> {
            version.rules.iter().map(|rule| rule.name.clone()).collect()
        };
        if record.live.hooks() != compiled.version.hooks() {
            return Err(different());
        }
        let (old, new) = (names(&record.live), names(&compiled.version));
        // The live mode counts: it may have been set since.
        let requested = compiled.image.clone().with_revision(live.header().revision());
        if super::apply::diff_of(&live, &old, &requested, &new).is_empty() {
            Ok(())
        } else {
            Err(different())
        }
    }

    fn carry_out(&self, steps: &mut [Step]) -> Result<(), ControlError> {
        for step in steps.iter_mut().filter(|step| !step.already) {
            step.record.pending = Some(PendingOperation::Attach(step.attachment.clone()));
            self.journal.write(&step.record)?;
        }
        let images: Vec<(Slot, &Image)> = steps
            .iter()
            .filter_map(|step| step.image.as_ref().map(|image| (Slot(step.record.slot), image)))
            .collect();
        self.datapath.put(&images)?;
        // Where a policy is attached already, links that were removed are restored.
        for step in steps.iter_mut() {
            let path = &step.attachment.path;
            let strict = step.record.live.strict && self.datapath.has(GroupName::EgressFilter);
            let empty = scope::empty(step.attachment.cgroup, step.level, strict);
            let hooks = step.record.live.hooks_of(self.datapath.hooks());
            let attached = self.datapath.prepare(step.cgroup.fd(), &empty, hooks);
            attached.map_err(|source| ControlError::Attach {
                cgroup: path.clone(),
                source: Box::new(source),
            })?;
            let now = self.scope_of(step.attachment.cgroup, path)?.unwrap_or(empty);
            let slot = Slot(step.record.slot);
            let stacked = || ControlError::Stacked { cgroup: path.clone() };
            let mut with = scope::with(&now, slot, step.record.live.mode, hooks).ok_or_else(stacked)?;
            // A scope outlives its links: the flags of policies that are gone do not count.
            let strict = empty.flags | if scope::is_empty(&now) { 0 } else { now.flags };
            with.flags = with.flags & !Scope::STRICT | strict & Scope::STRICT;
            if with != now {
                self.write_scope(&with, path)?;
            }
            if step.already {
                continue;
            }
            step.record.pending = None;
            self.forget_removed_cgroup(&mut step.record, &step.attachment)?;
            step.record.attachments.push(step.attachment.clone());
            step.activated = true;
            self.journal.write(&step.record)?;
        }
        self.state.write(steps.iter().map(|step| &step.record))
    }

    /// Detaches what was attached before another step failed; recovery removes the records of the others.
    fn undo(&self, steps: &mut [Step]) -> Result<(), ControlError> {
        for step in steps.iter_mut().filter(|step| step.activated) {
            let cgroups = vec![step.attachment.cgroup];
            step.record.pending = Some(PendingOperation::Detach(cgroups.clone()));
            self.journal.write(&step.record)?;
            step.record.pending = None;
            self.finish_detach(&mut step.record, &cgroups)?;
        }
        Ok(())
    }

    /// A cgroup that had this path before was removed: its attachment is forgotten, unless sockets that were created in it
    /// are still under the policy.
    fn forget_removed_cgroup(
        &self,
        record: &mut Record,
        attachment: &Attachment,
    ) -> Result<(), ControlError> {
        let mut kept = Vec::new();
        for existing in record.attachments.drain(..) {
            if existing.path != attachment.path || self.scope_of(existing.cgroup, &existing.path)?.is_some() {
                kept.push(existing);
            } else {
                self.datapath.detach(existing.cgroup)?;
            }
        }
        record.attachments = kept;
        Ok(())
    }
}
