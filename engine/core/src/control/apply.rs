//! Putting another version of a policy live.

use engine_common::{Mode, image::Revision};

use super::{
    Control,
    error::ControlError,
    record::{PendingOperation, Record, Version, mode_word},
};
use crate::{
    compile::{
        Image,
        diff::{NamedImage, PolicyDiff, diff},
    },
    datapath::Slot,
    host::Unmet,
    policy::{Policy, PolicyDefinition},
};

/// What a new version would change.
#[derive(Debug)]
pub struct Change {
    /// The policy.
    pub name: String,
    /// The generation that is live.
    pub old_generation: u64,
    /// The generation of the new version.
    pub new_generation: u64,
    /// The differences; empty where there are none.
    pub diff: PolicyDiff,
    /// The requirements of the new version that this kernel does not meet.
    pub partial: Vec<Unmet>,
    record: Record,
    image: Image,
    version: Version,
}

/// A version that was put live.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ApplyOutcome {
    /// The policy.
    pub policy: String,
    /// Its generation.
    pub generation: u64,
    /// Its mode.
    #[serde(serialize_with = "mode_word::serialize")]
    pub mode: Mode,
    /// Its requirements that this kernel does not meet.
    pub partial: Vec<Unmet>,
}

pub(super) fn diff_of(old: &Image, old_rules: &[String], new: &Image, new_rules: &[String]) -> PolicyDiff {
    diff(
        &NamedImage {
            image: old,
            rules: old_rules,
        },
        &NamedImage {
            image: new,
            rules: new_rules,
        },
    )
}

fn names(version: &Version) -> Vec<String> {
    version.rules.iter().map(|rule| rule.name.clone()).collect()
}

impl Control {
    /// Compares `policy` with the one that is attached as `name`. Changes nothing.
    ///
    /// # Errors
    /// [`ControlError::NotAttached`], or when the new version is refused.
    pub fn change(
        &self,
        name: &str,
        policy: &Policy,
        source: &str,
        definition: &PolicyDefinition,
        best_effort: bool,
    ) -> Result<Change, ControlError> {
        let record = self.record(name)?;
        let generation = record.live.generation + 1;
        let compiled = self
            .compile(policy, source, definition, generation)?
            .accepted(name, best_effort)?;
        if compiled.version.hooks() != record.live.hooks() {
            return Err(ControlError::OtherHooks {
                name: name.to_owned(),
            });
        }
        let live = self.live_image(&record)?;
        let diff = diff_of(
            &live,
            &names(&record.live),
            &compiled.image,
            &names(&compiled.version),
        );
        Ok(Change {
            name: name.to_owned(),
            old_generation: record.live.generation,
            new_generation: generation,
            diff,
            partial: compiled.version.partial.clone(),
            record,
            image: compiled.image,
            version: compiled.version,
        })
    }

    /// Puts the new version live by one atomic swap of the image: each decision is made by the old version or by the new
    /// one.
    ///
    /// # Errors
    /// [`ControlError`] when the kernel or the journal refuses a write; the old version then stays live.
    pub fn apply(&mut self, change: Change) -> Result<ApplyOutcome, ControlError> {
        self.swap(change.record, change.version, &change.image)
    }

    /// Sets the mode of a policy, as another version of it.
    ///
    /// # Errors
    /// [`ControlError::NotAttached`], or when the mode is refused.
    pub fn set_mode(
        &mut self,
        name: &str,
        mode: Mode,
        best_effort: bool,
    ) -> Result<ApplyOutcome, ControlError> {
        let record = self.record(name)?;
        let mut version = record.live.clone();
        if version.mode == mode {
            return Ok(applied(&record));
        }
        if !version.hooks().supports_mode(mode) {
            return Err(ControlError::OnlyReports {
                name: name.to_owned(),
            });
        }
        version.generation += 1;
        version.mode = mode;
        version.by = self.invocation.actor.clone();
        version.since = self.invocation.time();
        version.partial = self.unmet(&version);
        if !version.partial.is_empty() && !best_effort {
            return Err(ControlError::Partial {
                name: name.to_owned(),
                unmet: version.partial,
            });
        }
        let revision = Revision {
            generation: version.generation,
            mode,
        };
        let image = self
            .live_image(&record)?
            .with_revision(revision)
            .with_counters_cleared();
        self.swap(record, version, &image)
    }

    pub(super) fn live_image(&self, record: &Record) -> Result<Image, ControlError> {
        let slot = Slot(record.slot);
        let live = self.datapath.live(slot)?;
        let live = live.ok_or(crate::datapath::TableError::Empty { slot })?;
        Ok(live.image()?)
    }

    fn swap(
        &self,
        mut record: Record,
        version: Version,
        image: &Image,
    ) -> Result<ApplyOutcome, ControlError> {
        let slot = Slot(record.slot);
        self.repair_state()?;
        record.pending = Some(PendingOperation::Apply(Box::new(version)));
        self.journal.write(&record)?;
        // What the new version needs is attached before it is live; what it no longer needs is detached afterwards.
        let swapped = self
            .prepare_egress_filter(&record, image)
            .and_then(|()| self.prepare_unix(&record, image))
            .and_then(|()| Ok(self.datapath.keep_superseded(slot)?))
            .and_then(|()| Ok(self.datapath.put(&[(slot, image)])?));
        // The kernel shows which version is live, whatever went wrong.
        if let Some(pending) = record.pending.take() {
            self.complete(&mut record, pending)?;
        }
        swapped?;
        self.state.write(std::iter::once(&record))?;
        Ok(applied(&record))
    }
}

fn applied(record: &Record) -> ApplyOutcome {
    ApplyOutcome {
        policy: record.name.clone(),
        generation: record.live.generation,
        mode: record.live.mode,
        partial: record.live.partial.clone(),
    }
}
