//! The desired state: what is to be attached, with the text of each policy, in files that survive a reboot
//! (`policies/<name>.json` in the state directory). The journal in the run directory says what is live in this boot; every
//! change is made there first, and then recorded here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use engine_common::{Mode, image::Revision};
use serde::{Deserialize, Serialize};

use super::{
    Control,
    attached_image::compile_attached,
    error::ControlError,
    json_file::{self, Durability, at, make_directory, sync_directory},
    record::{Actor, Record, mode_word},
};
use crate::{
    compile::{Image, diff::PolicyDiff},
    datapath::Identified,
    policy::{Policy, PolicyDefinition},
};

/// Version of the format of [`PolicyState`]. A file with another version is refused.
pub const STATE_VERSION: u32 = 1;

/// A policy in the desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyState {
    /// Version of the format: [`STATE_VERSION`].
    pub version: u32,
    /// Name it is attached under.
    pub name: String,
    /// Its text, with what it refers to.
    #[serde(flatten)]
    pub definition: PolicyDefinition,
    /// Path of the policy file.
    pub source: String,
    /// What wants it attached.
    pub origin: Origin,
    /// Its mode. It may differ from the mode in the text.
    #[serde(with = "mode_word")]
    pub mode: Mode,
    /// Paths of the cgroups it is attached to, below the root of the hierarchy.
    pub attachments: Vec<String>,
    /// Who put this version live.
    pub by: Actor,
    /// When, in UTC (RFC 3339).
    pub since: String,
}

/// What wants a policy attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A command: `attach` or `apply`.
    Cli,
}

impl Origin {
    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Origin::Cli => "cli",
        }
    }
}

/// A policy compiled again from its text.
pub struct Recompiled {
    /// The policy, with the name and the mode it is attached with.
    pub policy: Policy,
    /// Its image.
    pub image: Image,
    /// Open files, held while the image is in use: meanwhile no other file gets their inode numbers.
    _identified: Identified,
}

/// A live policy beside the same policy compiled again from its text.
pub struct LivePolicy {
    /// The desired state.
    pub state: PolicyState,
    /// The policy, loaded from the text.
    pub policy: Policy,
    /// The changes from the live image to the one that the text compiles to now; empty if they are equal.
    pub diff: PolicyDiff,
}

impl PolicyState {
    /// The desired state of a live policy.
    pub(super) fn of(record: &Record) -> PolicyState {
        PolicyState {
            version: STATE_VERSION,
            name: record.name.clone(),
            definition: record.live.definition.clone(),
            source: record.live.source.clone(),
            origin: Origin::Cli,
            mode: record.live.mode,
            attachments: record.attachments.iter().map(|one| one.path.clone()).collect(),
            by: record.live.by.clone(),
            since: record.live.since.clone(),
        }
    }

    /// Compiles the policy again, as `attach` does. The image differs from the live one if an address file, an executable
    /// that it names, or the name servers (`@resolvers`) have changed since, or if this version compiles differently.
    ///
    /// # Errors
    /// [`ControlError::Reload`] when the text is no longer a valid policy: an address file is missing, or this version of
    /// tidegate does not accept it; [`ControlError::Identify`] when an executable is missing.
    pub fn recompile(&self, generation: u64) -> Result<Recompiled, ControlError> {
        let loaded = self.definition.load(&self.source);
        let mut policy = loaded.policy.ok_or_else(|| ControlError::Reload {
            name: self.name.clone(),
            reason: loaded
                .diagnostics
                .first()
                .map_or_else(String::new, |diagnostic| diagnostic.message.clone()),
        })?;
        policy.name.clone_from(&self.name);
        policy.mode = self.mode;
        let revision = Revision {
            generation,
            mode: self.mode,
        };
        let (image, identified) = compile_attached(&policy, revision)?;
        Ok(Recompiled {
            policy,
            image,
            _identified: identified,
        })
    }
}

impl Control {
    /// The desired state of an attached policy.
    ///
    /// # Errors
    /// [`ControlError::NotAttached`], or when its record cannot be read.
    pub fn policy_state(&self, name: &str) -> Result<PolicyState, ControlError> {
        Ok(PolicyState::of(&self.record(name)?))
    }

    /// Compiles an attached policy again from its text, and compares the result with the image in the kernel.
    ///
    /// # Errors
    /// [`ControlError::NotAttached`]; those of [`PolicyState::recompile`]; others when the image cannot be read.
    pub fn live_policy(&self, name: &str) -> Result<LivePolicy, ControlError> {
        let record = self.record(name)?;
        let state = PolicyState::of(&record);
        let Recompiled { policy, image, .. } = state.recompile(record.live.generation)?;
        let live = self.live_image(&record)?;
        let old: Vec<String> = record.live.rules.into_iter().map(|rule| rule.name).collect();
        let new: Vec<String> = policy.rules.iter().map(|rule| rule.name.clone()).collect();
        let diff = super::apply::diff_of(&live, &old, &image, &new);
        Ok(LivePolicy { state, policy, diff })
    }

    /// Writes the desired state of live policies where it differs: a command died between a change and its record here.
    pub(super) fn repair_state(&self) -> Result<(), ControlError> {
        self.state.write(self.journal.records()?.iter())
    }
}

/// The files of the desired state.
pub(super) struct StateDirectory {
    directory: PathBuf,
    policies: PathBuf,
}

impl StateDirectory {
    /// The files in a state directory, which is created when the first one is written.
    pub(super) fn at(directory: &Path) -> StateDirectory {
        StateDirectory {
            directory: directory.to_owned(),
            policies: directory.join("policies"),
        }
    }

    /// Creates the directories if need be.
    pub(super) fn prepare(&self) -> Result<(), ControlError> {
        let is_new = !self.policies.exists();
        make_directory(&self.directory)?;
        make_directory(&self.policies)?;
        if is_new {
            sync_directory(&self.directory)?;
            if let Some(parent) = self.directory.parent() {
                sync_directory(parent)?;
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<PolicyState>, ControlError> {
        json_file::read(&self.file(name), STATE_VERSION)
    }

    /// Writes the desired state of live policies. A file that has it already is not written; one of an unknown version is
    /// not replaced.
    pub(super) fn write<'r>(&self, records: impl Iterator<Item = &'r Record>) -> Result<(), ControlError> {
        let mut is_written = false;
        for record in records {
            let state = PolicyState::of(record);
            // A policy whose record was not completed is attached to no cgroup yet.
            if state.attachments.is_empty() {
                continue;
            }
            match self.read(&record.name) {
                Ok(Some(found)) if found == state => continue,
                // The journal has all that a damaged file should have.
                Ok(_) | Err(ControlError::Record { .. }) => {}
                Err(error) => return Err(error),
            }
            if !is_written {
                self.prepare()?;
            }
            json_file::replace(&self.file(&record.name), &state, Durability::Disk)?;
            is_written = true;
        }
        match is_written {
            true => sync_directory(&self.policies),
            false => Ok(()),
        }
    }

    /// Removes a policy, whatever its file contains.
    pub(super) fn remove(&self, name: &str) -> Result<(), ControlError> {
        match self.unlink(name)? {
            true => sync_directory(&self.policies),
            false => Ok(()),
        }
    }

    /// The same without a flush, for many policies: [`StateDirectory::clear`] flushes the directory. Whether there was one.
    pub(super) fn unlink(&self, name: &str) -> Result<bool, ControlError> {
        json_file::remove(&self.file(name))
    }

    /// Removes all policies, and drafts that a command left behind; whether there were any. The directories stay.
    pub(super) fn clear(&self) -> Result<bool, ControlError> {
        let entries = match fs::read_dir(&self.policies) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(at("read", &self.policies))?,
        };
        let mut existed = false;
        for entry in entries.flatten() {
            let path = entry.path();
            let extension = path.extension().unwrap_or_default();
            if extension == "json" || extension == "draft" {
                json_file::remove(&path)?;
                existed = true;
            }
        }
        sync_directory(&self.policies)?;
        Ok(existed)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.policies.join(format!("{name}.json"))
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
