//! Putting policies on cgroups.

use std::collections::{HashMap, HashSet};

use engine_common::{Mode, limits::MAX_STACKED, scope::Scope};

use super::{
    Standing,
    compiled::Compiled,
    error::ControlError,
    journal::is_name,
    record::{Actor, Attachment, Pending, Record, now},
    scope,
    totals::Totals,
    unmet::Loaded,
};
use crate::{cgroup::CgroupHandle, compile::Image, datapath::Slot, policy::Policy};

/// A policy that is to stand on a cgroup.
pub struct Wanted {
    /// The policy.
    pub policy: Policy,
    /// Name it is to stand under.
    pub name: String,
    /// The mode that was asked for beside the policy, if one was.
    pub mode: Option<Mode>,
    /// The file it came from.
    pub source: String,
    /// Where.
    pub cgroup: CgroupHandle,
}

/// What became of a [`Wanted`].
#[derive(Clone, Debug, serde::Serialize)]
pub struct Attached {
    /// Name it stands under.
    pub policy: String,
    /// The cgroup.
    pub cgroup: String,
    /// Version that is live.
    pub generation: u64,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// Whether it stood there already.
    pub already: bool,
    /// What this kernel cannot do of it.
    pub partial: Vec<String>,
}

/// A policy on its way.
struct Step {
    record: Record,
    attachment: Attachment,
    level: Option<u32>,
    cgroup: CgroupHandle,
    /// `None` where it is live already.
    image: Option<Image>,
    already: bool,
    /// Whether it was put there by this command.
    flipped: bool,
}

impl Standing {
    /// Attaches policies. Each stands from one moment on, on its whole cgroup; when this fails, those that
    /// stand by then are taken away again.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn attach(&mut self, wanted: Vec<Wanted>, best_effort: bool) -> Result<Vec<Attached>, ControlError> {
        let mut steps = self.plan(wanted, best_effort)?;
        let done = self.carry_out(&mut steps);
        if let Err(error) = done {
            // The first error is the one to tell.
            if let Err(second) = self.undo(&mut steps).and_then(|()| self.recover()) {
                tracing::warn!(%second, "the next command tries again to undo what was not finished");
            }
            return Err(error);
        }
        Ok(steps
            .into_iter()
            .map(|step| Attached {
                policy: step.record.name,
                cgroup: step.attachment.path,
                generation: step.record.live.generation,
                mode: step.record.live.mode.as_str(),
                already: step.already,
                partial: step.record.live.partial,
            })
            .collect())
    }

    /// Everything that can be wrong is found here, before anything is changed.
    fn plan(&self, wanted: Vec<Wanted>, best_effort: bool) -> Result<Vec<Step>, ControlError> {
        let mut records: HashMap<String, Record> = HashMap::new();
        for record in self.journal.records()? {
            records.insert(record.name.clone(), record);
        }
        let mut names = HashSet::new();
        for one in &wanted {
            if !is_name(&one.name) {
                return Err(ControlError::Name(one.name.clone()));
            }
            if !names.insert(one.name.clone()) {
                return Err(ControlError::Twice {
                    name: one.name.clone(),
                });
            }
        }
        let new = wanted
            .iter()
            .filter(|one| !records.contains_key(&one.name))
            .count();
        // What stands without a record, since that was lost, keeps its slot.
        let is_free = |slot| matches!(self.gate.live(slot), Ok(None));
        let mut slots = self.journal.free_slots(new, is_free)?.into_iter();
        let loaded = Loaded::in_gate(&self.gate);
        let mut carried: HashMap<u64, usize> = HashMap::new();
        let mut steps = Vec::with_capacity(wanted.len());
        for one in wanted {
            let path = one.cgroup.path().display().to_string();
            let attachment = Attachment {
                path: path.clone(),
                cgroup: one.cgroup.id(),
                by: Actor::current(),
                since: now(),
            };
            let (record, image) = match records.remove(&one.name) {
                Some(record) => {
                    let compiled = Compiled::of(&one.policy, &one.source, record.live.generation, loaded)?;
                    self.same(&record, &compiled)?;
                    if one.mode.is_some_and(|mode| mode != record.live.mode) {
                        return Err(ControlError::OtherMode {
                            name: record.name,
                            live: record.live.mode.as_str(),
                        });
                    }
                    (record, None)
                }
                None => {
                    let compiled = Compiled::of(&one.policy, &one.source, 1, loaded)?
                        .accepted(&one.name, best_effort)?;
                    let record = Record {
                        name: one.name.clone(),
                        slot: slots.next().map_or(0, |slot| slot.0),
                        live: compiled.version,
                        earlier: Vec::new(),
                        retired: Totals::default(),
                        attachments: Vec::new(),
                        pending: None,
                    };
                    (record, Some(compiled.image))
                }
            };
            let already = record
                .attachments
                .iter()
                .any(|there| there.cgroup == attachment.cgroup);
            if !already {
                let there = match carried.get(&attachment.cgroup) {
                    Some(&count) => count,
                    None => self
                        .scope_of(attachment.cgroup, &path)?
                        .map_or(0, |there| scope::count(&there)),
                };
                if there >= MAX_STACKED {
                    return Err(ControlError::Stacked { cgroup: path });
                }
                carried.insert(attachment.cgroup, there + 1);
            }
            steps.push(Step {
                record,
                attachment,
                level: one.cgroup.level(),
                cgroup: one.cgroup,
                image,
                already,
                flipped: false,
            });
        }
        Ok(steps)
    }

    /// A policy that stands under the name already must be this one.
    fn same(&self, record: &Record, compiled: &Compiled) -> Result<(), ControlError> {
        let different = || ControlError::Different {
            name: record.name.clone(),
        };
        let live = self
            .gate
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
        // The mode is the live one's: it may have been set since.
        let wanted = compiled.image.clone().with_revision(live.header().revision());
        if super::apply::diff_of(&live, &old, &wanted, &new).is_empty() {
            Ok(())
        } else {
            Err(different())
        }
    }

    fn carry_out(&self, steps: &mut [Step]) -> Result<(), ControlError> {
        for step in steps.iter_mut().filter(|step| !step.already) {
            step.record.pending = Some(Pending::Attach(step.attachment.clone()));
            self.journal.write(&step.record)?;
        }
        let images: Vec<(Slot, &Image)> = steps
            .iter()
            .filter_map(|step| step.image.as_ref().map(|image| (Slot(step.record.slot), image)))
            .collect();
        self.gate.put(&images)?;
        // One that stands there already is put back where something of it was taken away.
        for step in steps.iter_mut() {
            let path = &step.attachment.path;
            let strict = step.record.live.strict && self.gate.has_egress_filter();
            let empty = scope::empty(step.attachment.cgroup, step.level, strict);
            let hooks = step.record.live.hooks_of(self.gate.hooks());
            let attached = self.gate.prepare(step.cgroup.fd(), &empty, hooks);
            attached.map_err(|source| ControlError::Attach {
                cgroup: path.clone(),
                source: Box::new(source),
            })?;
            if let Err(error) = self.gate.attach_migration() {
                // Nothing is enforced by it, and `status` tells.
                tracing::warn!(error = ?error, "who leaves the cgroup will not be reported");
            }
            let now = self.scope_of(step.attachment.cgroup, path)?.unwrap_or(empty);
            let slot = Slot(step.record.slot);
            let stacked = || ControlError::Stacked { cgroup: path.clone() };
            let mut with = scope::with(&now, slot, step.record.live.mode, hooks).ok_or_else(stacked)?;
            // A scope outlives its links: what it said of policies that are gone is nothing to go by.
            let strict = empty.flags | if scope::is_empty(&now) { 0 } else { now.flags };
            with.flags = with.flags & !Scope::STRICT | strict & Scope::STRICT;
            if with != now {
                self.write_scope(&with, path)?;
            }
            if step.already {
                continue;
            }
            step.record.pending = None;
            self.forget_earlier(&mut step.record, &step.attachment)?;
            step.record.attachments.push(step.attachment.clone());
            step.flipped = true;
            self.journal.write(&step.record)?;
        }
        Ok(())
    }

    /// Takes away what was put there before another step failed; what was not is forgotten by recovery.
    fn undo(&self, steps: &mut [Step]) -> Result<(), ControlError> {
        for step in steps.iter_mut().filter(|step| step.flipped) {
            let cgroups = vec![step.attachment.cgroup];
            step.record.pending = Some(Pending::Detach(cgroups.clone()));
            self.journal.write(&step.record)?;
            step.record.pending = None;
            self.finish_detach(&mut step.record, &cgroups)?;
        }
        Ok(())
    }

    /// A cgroup of that path which was there before this one is gone: it is forgotten, unless sockets
    /// that were made in it are still held to the policy.
    fn forget_earlier(&self, record: &mut Record, attachment: &Attachment) -> Result<(), ControlError> {
        let mut kept = Vec::new();
        for there in record.attachments.drain(..) {
            if there.path != attachment.path || self.scope_of(there.cgroup, &there.path)?.is_some() {
                kept.push(there);
            } else {
                self.gate.detach(there.cgroup)?;
            }
        }
        record.attachments = kept;
        Ok(())
    }
}
