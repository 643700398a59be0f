//! Names for the numbers in events.

use super::{Standing, error::ControlError, record::Record};

/// Names of some generations of a policy in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotNames {
    /// The slot.
    pub slot: u32,
    /// First and last generation that have these names.
    pub generations: (u64, u64),
    /// Name of the policy.
    pub policy: String,
    /// Names of its rules.
    pub rules: Vec<String>,
    /// The file it came from.
    pub source: String,
}

impl Standing {
    /// Names of everything that events still to be read may speak of: policies that stand, in all versions
    /// that are remembered, and those that were taken away last.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn slot_names(&self) -> Result<Vec<SlotNames>, ControlError> {
        let mut names = Vec::new();
        // A policy that stands comes last: where a slot was used again, its events are the likelier ones.
        for record in self.journal.detached()?.iter().chain(&self.journal.records()?) {
            names.extend(of_record(record));
        }
        Ok(names)
    }

    /// Paths of the cgroups that carry policies, by id.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn cgroup_names(&self) -> Result<Vec<(u64, String)>, ControlError> {
        let records = self.journal.records()?;
        let attachments = records.into_iter().flat_map(|record| record.attachments);
        Ok(attachments.map(|there| (there.cgroup, there.path)).collect())
    }
}

fn of_record(record: &Record) -> impl Iterator<Item = SlotNames> {
    let live = &record.live;
    let earlier = record
        .earlier
        .iter()
        .map(|span| (span.first, span.last, span.rules.clone()));
    let rules = live.rules.iter().map(|rule| rule.name.clone()).collect();
    earlier
        .chain([(live.generation, live.generation, rules)])
        .map(|(first, last, rules)| SlotNames {
            slot: record.slot,
            generations: (first, last),
            policy: record.name.clone(),
            rules,
            source: live.source.clone(),
        })
}
