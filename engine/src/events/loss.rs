//! Records that did not fit into the ring.

use jiff::Timestamp;

/// A hole in the stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Number of records lost.
    pub lost: u64,
    /// When it was noticed: the time of the first record after the hole.
    pub time: Timestamp,
}

/// Follows the counter of lost records that every record carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossWatch {
    seen: u64,
}

impl LossWatch {
    /// A watch that knows of so many already.
    pub fn starting_at(seen: u64) -> LossWatch {
        LossWatch { seen }
    }

    /// The gap before an event, if there is one. To be called for every one, in order, with the number of records
    /// lost that it carries, and its wall time.
    pub fn before(&mut self, lost_by_then: u64, time: Timestamp) -> Option<Gap> {
        self.advance(lost_by_then, time)
    }

    /// The gap after the last event, by the ring's own counter.
    pub fn at_end(&mut self, lost_in_all: u64, time: Timestamp) -> Option<Gap> {
        self.advance(lost_in_all, time)
    }

    /// Records lost so far.
    pub fn lost(&self) -> u64 {
        self.seen
    }

    /// Two processors may write their records in another order than they read the counter, so it
    /// can go back by a few: only what is above the greatest seen is new.
    fn advance(&mut self, counter: u64, time: Timestamp) -> Option<Gap> {
        let lost = counter.checked_sub(self.seen).filter(|&lost| lost > 0)?;
        self.seen = counter;
        Some(Gap { lost, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_told_once() {
        let time = Timestamp::UNIX_EPOCH;
        let mut watch = LossWatch::default();
        let lost: Vec<u64> = [0, 3, 3, 2, 4]
            .into_iter()
            .filter_map(|counter| watch.advance(counter, time))
            .map(|gap| gap.lost)
            .collect();
        assert_eq!(lost, [3, 1]);
        assert_eq!(watch.at_end(10, time), Some(Gap { lost: 6, time }));
        assert_eq!(watch.at_end(10, time), None);
        assert_eq!(watch.lost(), 10);
    }
}
