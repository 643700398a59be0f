//! Putting another version of a policy live.

use engine_common::{Mode, image::Revision};

use super::{
    Standing,
    compiled::Compiled,
    error::ControlError,
    record::{Actor, Pending, Record, Version, now},
    unmet::{Loaded, unmet},
};
use crate::{
    compile::{
        Image,
        diff::{NamedImage, PolicyDiff, diff},
    },
    datapath::Slot,
    policy::Policy,
};

/// What a new version changes.
#[derive(Debug)]
pub struct Change {
    /// The policy.
    pub name: String,
    /// The version that is live.
    pub old_generation: u64,
    /// The version to come.
    pub new_generation: u64,
    /// What differs; empty where nothing does.
    pub diff: PolicyDiff,
    /// What this kernel cannot do of the new version.
    pub partial: Vec<String>,
    record: Record,
    image: Image,
    version: Version,
}

/// A version that was put live.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Applied {
    /// The policy.
    pub policy: String,
    /// Its version.
    pub generation: u64,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// What this kernel cannot do of it.
    pub partial: Vec<String>,
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

impl Standing {
    /// What `policy` would change of the one that stands under `name`. Nothing is changed yet.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn change(
        &self,
        name: &str,
        policy: &Policy,
        source: &str,
        best_effort: bool,
    ) -> Result<Change, ControlError> {
        let record = self.record(name)?;
        let generation = record.live.generation + 1;
        let compiled = Compiled::of(policy, source, generation, Loaded::in_gate(&self.gate))?
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

    /// Puts the new version live, by one flip of the image: a decision is taken by the old version or by
    /// the new one, never by none and never by a mixture.
    ///
    /// # Errors
    /// [`ControlError`]; the old version then stays live.
    pub fn apply(&mut self, change: Change) -> Result<Applied, ControlError> {
        self.flip(change.record, change.version, &change.image)
    }

    /// Sets the mode of a policy, as another version of it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn set_mode(&mut self, name: &str, mode: Mode, best_effort: bool) -> Result<Applied, ControlError> {
        let record = self.record(name)?;
        let mut version = record.live.clone();
        if version.mode == mode {
            return Ok(applied(&record));
        }
        if !version.hooks().supports_mode(mode) {
            return Err(ControlError::OnlyWatches {
                name: name.to_owned(),
            });
        }
        version.generation += 1;
        version.mode = mode;
        version.by = Actor::current();
        version.since = now();
        version.partial = unmet(&version, Loaded::in_gate(&self.gate));
        if !version.partial.is_empty() && !best_effort {
            return Err(ControlError::Partial {
                name: name.to_owned(),
                reasons: version.partial,
            });
        }
        let life = Revision {
            generation: version.generation,
            mode,
        };
        let image = self
            .live_image(&record)?
            .with_revision(life)
            .with_counters_cleared();
        self.flip(record, version, &image)
    }

    fn live_image(&self, record: &Record) -> Result<Image, ControlError> {
        let slot = Slot(record.slot);
        let live = self.gate.live(slot)?;
        let live = live.ok_or(crate::datapath::TableError::Empty { slot })?;
        Ok(live.image()?)
    }

    fn flip(&self, mut record: Record, version: Version, image: &Image) -> Result<Applied, ControlError> {
        let slot = Slot(record.slot);
        record.pending = Some(Pending::Apply(Box::new(version)));
        self.journal.write(&record)?;
        // What a strict version needs is there before it is; what it no longer needs goes when it is live.
        let flipped = self
            .remember_strict_user(&record, image)
            .and_then(|()| self.prepare_unix(&record, image))
            .and_then(|()| Ok(self.gate.retire(slot)?))
            .and_then(|()| Ok(self.gate.put(&[(slot, image)])?));
        // The kernel says which version is live, whatever went wrong.
        if let Some(pending) = record.pending.take() {
            self.settle(&mut record, pending)?;
        }
        flipped?;
        Ok(applied(&record))
    }
}

fn applied(record: &Record) -> Applied {
    Applied {
        policy: record.name.clone(),
        generation: record.live.generation,
        mode: record.live.mode.as_str(),
        partial: record.live.partial.clone(),
    }
}
