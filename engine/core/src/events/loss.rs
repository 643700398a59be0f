//! Records that did not fit into the ring buffer.

use jiff::Timestamp;
use serde::Serialize;

/// Lost records, reported between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Number of records.
    pub records: u64,
    /// Why they were lost.
    pub cause: LossCause,
    /// Time of the first record after the loss.
    pub time: Timestamp,
}

/// Why records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossCause {
    /// The ring buffer was full: records came faster than they were read.
    RingFull,
}

/// Tracks the counter of lost records in the headers of records.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossWatch {
    seen: u64,
}

impl LossWatch {
    /// A watch that does not report the first `seen` lost records.
    pub fn starting_at(seen: u64) -> LossWatch {
        LossWatch { seen }
    }

    /// The loss that a counter reveals, if any: that of a record, with its wall time, or that of the ring itself after
    /// the last record. To be called in the order of the records.
    ///
    /// Two CPUs may write their records in another order than they read the counter, so that it
    /// can decrease: only what exceeds the greatest value is new.
    pub fn advance(&mut self, counter: u64, time: Timestamp) -> Option<Lost> {
        let records = counter.checked_sub(self.seen).filter(|&lost| lost > 0)?;
        self.seen = counter;
        Some(Lost {
            records,
            cause: LossCause::RingFull,
            time,
        })
    }

    /// Records lost so far.
    pub fn lost(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_reported_once() {
        let time = Timestamp::UNIX_EPOCH;
        let mut watch = LossWatch::default();
        let lost: Vec<u64> = [0, 3, 3, 2, 4, 10, 10]
            .into_iter()
            .filter_map(|counter| watch.advance(counter, time))
            .map(|lost| lost.records)
            .collect();
        assert_eq!(lost, [3, 1, 6]);
        assert_eq!(watch.lost(), 10);
    }
}
