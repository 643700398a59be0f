//! Where the calls of one batch after the other go.

use anyhow::{Result, ensure};

use crate::{address::Address, call::Batch, row::Row};

/// The targets of one batch after the other, and how the calls are to end.
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

    /// The next batch's.
    pub(crate) fn next(&mut self) -> &'a [Address] {
        if self.at + self.calls > self.targets.len() {
            self.at = 0;
        }
        self.at += self.calls;
        &self.targets[self.at - self.calls..self.at]
    }

    /// A row must measure what it says.
    pub(crate) fn check(&self, (baseline, with_policy): (Batch, Batch)) -> Result<()> {
        ensure!(
            (baseline.refused, with_policy.refused) == (0, self.refused),
            "of {} calls {} were refused without a gate and {} with it; {} should be",
            self.calls,
            baseline.refused,
            with_policy.refused,
            self.refused
        );
        Ok(())
    }
}
