//! Attempts added up over the versions of a policy.

use std::collections::BTreeMap;

use engine_common::{Action, Mode};
use serde::{Deserialize, Serialize};

use super::record::Version;

/// Attempts by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Allowed silently.
    pub allowed: u64,
    /// Let through and reported.
    pub audited: u64,
    /// Denied by a block.
    pub blocked: u64,
    /// Denied by a kill.
    pub killed: u64,
    /// Let through in audit mode; enforce mode would have blocked.
    pub would_block: u64,
    /// Let through in audit mode; enforce mode would have killed.
    pub would_kill: u64,
    /// Could not be evaluated: denied in enforce mode.
    pub faults: u64,
    /// Attempts that each rule decided, by its name.
    pub rules: BTreeMap<String, u64>,
    /// Attempts that the default decided.
    pub default: u64,
}

impl Totals {
    /// Adds the counters of the image of a version: one for each rule in order, then the default, then faults.
    pub(super) fn add(&mut self, version: &Version, counters: &[u64]) {
        let count = |i: usize| counters.get(i).copied().unwrap_or(0);
        for (i, rule) in version.rules.iter().enumerate() {
            self.decided(rule.action, version.mode, count(i));
            // Most rules of a long list never match: they are left out.
            if count(i) > 0 {
                *self.rules.entry(rule.name.clone()).or_default() += count(i);
            }
        }
        let rules = version.rules.len();
        self.decided(version.default, version.mode, count(rules));
        self.default += count(rules);
        self.faults += count(rules + 1);
    }

    fn decided(&mut self, action: Action, mode: Mode, attempts: u64) {
        let total = match (action, mode) {
            (Action::Allow, _) => &mut self.allowed,
            (Action::Audit, _) => &mut self.audited,
            (Action::Block, Mode::Enforce) => &mut self.blocked,
            (Action::Kill, Mode::Enforce) => &mut self.killed,
            (Action::Block, Mode::Audit) => &mut self.would_block,
            (Action::Kill, Mode::Audit) => &mut self.would_kill,
        };
        *total += attempts;
    }

    /// All attempts that the policy evaluated.
    pub fn attempts(&self) -> u64 {
        let denied = self.blocked + self.killed + self.would_block + self.would_kill;
        self.allowed + self.audited + denied + self.faults
    }
}
