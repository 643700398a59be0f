//! The number of samples.

use crate::call::Call;

/// Many samples, or few with `--quick`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Samples {
    pub(crate) quick: bool,
}

impl Samples {
    /// How often sockets are created, and pairs of batches for each.
    pub(crate) const fn rounds(self, call: Call) -> (usize, usize) {
        match (call, self.quick) {
            (Call::TcpConnect, false) => (20, 32),
            (Call::TcpConnect, true) => (5, 24),
            (_, false) => (10, 300),
            (_, true) => (4, 100),
        }
    }

    /// How often a policy is attached and detached, and pairs of batches for each.
    pub(crate) const fn toggles(self, call: Call) -> (usize, usize) {
        match (call, self.quick) {
            (Call::TcpConnect, false) => (24, 24),
            (Call::TcpConnect, true) => (6, 16),
            (_, false) => (40, 60),
            (_, true) => (8, 40),
        }
    }

    /// `many`, or `few` with `--quick`.
    pub(crate) const fn times(self, many: usize, few: usize) -> usize {
        if self.quick { few } else { many }
    }
}
