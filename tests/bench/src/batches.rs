//! The destinations of consecutive batches.

use anyhow::{Result, ensure};

use crate::{address::Address, call::Batch, row::Row};

/// The destinations of consecutive batches, and how many calls must be refused.
pub(crate) struct Batches<'a> {
    targets: &'a [Address],
    calls: usize,
    at: usize,
    refused: usize,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(row: &Row, targets: &'a [Address]) -> Batches<'a> {
        let calls = row.call.batch();
        Batches {
            targets,
            calls,
            at: 0,
            refused: if row.refused { calls } else { 0 },
        }
    }

    /// The destinations of the next batch; the list is repeated.
    pub(crate) fn next(&mut self) -> &'a [Address] {
        if self.at + self.calls > self.targets.len() {
            self.at = 0;
        }
        self.at += self.calls;
        &self.targets[self.at - self.calls..self.at]
    }

    /// Fails if the calls of a pair did not have the expected results.
    pub(crate) fn check(&self, (baseline, with_policy): (Batch, Batch)) -> Result<()> {
        ensure!(
            (baseline.refused, with_policy.refused) == (0, self.refused),
            "of {} calls, {} were refused without a policy and {} with it; expected {}",
            self.calls,
            baseline.refused,
            with_policy.refused,
            self.refused
        );
        Ok(())
    }
}
