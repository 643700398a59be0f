//! Names for the slots, rules and cgroups in events.

use super::{Control, error::ControlError, record::Record};

/// Names of some generations of a policy in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotNames {
    /// The slot.
    pub slot: u32,
    /// First and last generation with these names.
    pub generations: (u64, u64),
    /// Name of the policy.
    pub policy: String,
    /// Names of its rules.
    pub rules: Vec<String>,
    /// Path of the policy file.
    pub source: String,
}

impl Control {
    /// Names of all policies that unread events may refer to: attached policies, with their previous versions, and those that
    /// were detached last.
    ///
    /// # Errors
    /// [`ControlError::Journal`] or [`ControlError::Record`] when a record cannot be read.
    pub fn slot_names(&self) -> Result<Vec<SlotNames>, ControlError> {
        let mut names = Vec::new();
        // Attached policies come last: where a slot was used again, its events are the likelier ones.
        for record in self.journal.detached()?.iter().chain(&self.journal.records()?) {
            names.extend(of_record(record));
        }
        Ok(names)
    }

    /// Ids and paths of the cgroups that have policies.
    ///
    /// # Errors
    /// [`ControlError::Journal`] or [`ControlError::Record`] when a record cannot be read.
    pub fn cgroup_names(&self) -> Result<Vec<(u64, String)>, ControlError> {
        let records = self.journal.records()?;
        let attachments = records.into_iter().flat_map(|record| record.attachments);
        Ok(attachments
            .map(|attachment| (attachment.cgroup, attachment.path))
            .collect())
    }
}

fn of_record(record: &Record) -> impl Iterator<Item = SlotNames> {
    let live = &record.live;
    let previous = record
        .previous_versions
        .iter()
        .map(|span| (span.first, span.last, span.rules.clone()));
    let rules = live.rules.iter().map(|rule| rule.name.clone()).collect();
    previous
        .chain([(live.generation, live.generation, rules)])
        .map(|(first, last, rules)| SlotNames {
            slot: record.slot,
            generations: (first, last),
            policy: record.name.clone(),
            rules,
            source: live.source.clone(),
        })
}
