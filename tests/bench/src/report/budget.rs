//! Performance budgets.

use std::fmt;

/// An upper limit of a measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Budget {
    /// Ratio of the times with and without the policy.
    Ratio(f64),
    /// No measurable overhead: at most one percent, because equal medians differ too.
    Nothing,
    /// Nanoseconds added per call.
    AddedNs(f64),
    /// Milliseconds.
    Milliseconds(f64),
    /// Milliseconds, and KiB of kernel memory.
    TimeAndMemory(f64, f64),
    /// Events that were neither read nor counted as lost.
    Uncounted(u64),
}

/// A budget and whether it is met. It does not affect the exit code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BudgetResult {
    pub(crate) budget: Budget,
    pub(crate) met: bool,
}

impl Budget {
    /// Compares it with a measured value; for [`Budget::TimeAndMemory`] that is the time.
    pub(crate) fn check(self, measured: f64) -> BudgetResult {
        let most = match self {
            Budget::Ratio(most)
            | Budget::AddedNs(most)
            | Budget::Milliseconds(most)
            | Budget::TimeAndMemory(most, _) => most,
            Budget::Nothing => 1.01,
            Budget::Uncounted(most) => most as f64,
        };
        BudgetResult {
            budget: self,
            met: measured <= most,
        }
    }
}

impl BudgetResult {
    pub(crate) const fn verdict(self) -> &'static str {
        if self.met { "met" } else { "MISSED" }
    }

    /// Adds a second condition.
    pub(crate) const fn and(self, condition: bool) -> BudgetResult {
        BudgetResult {
            budget: self.budget,
            met: self.met && condition,
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Ratio(most) => write!(f, "ratio <= {most}"),
            Budget::Nothing => f.write_str("ratio 1.00"),
            Budget::AddedNs(most) => write!(f, "<= {most} ns added"),
            Budget::Milliseconds(most) => write!(f, "< {most} ms"),
            Budget::TimeAndMemory(ms, kib) if *kib < 1024.0 => write!(f, "< {ms} ms, <= {kib} KiB"),
            Budget::TimeAndMemory(ms, kib) => write!(f, "< {ms} ms, <= {} MiB", kib / 1024.0),
            Budget::Uncounted(most) => write!(f, "{most} not counted"),
        }
    }
}
