//! The event pipeline: from the bytes of the ring buffer to the items that reports print.
//!
//! ```text
//! bytes -decode-> Record -Correlator-> Item -LossWatch, Names-> StreamItem
//!                   \-> LateKill, at once
//! ```
//!
//! It has no thread: its user calls [`Pipeline::read`] when the ring is readable, and takes the items that are ready.

use std::collections::VecDeque;

use engine_common::Outcome;
use jiff::Timestamp;

use super::{
    clock::{Clock, ClockSource, SystemClocks},
    correlator::{Correlator, Item},
    decode::{Record, decode},
    event::Event,
    loss::{LossWatch, Lost},
    migration::NamedMigration,
    names::{NamedEvent, Names},
};

/// Nanoseconds between two updates of the clock within a batch of records.
const CLOCK_UPDATE_NS: u64 = 1_000_000_000;

/// An item of the stream.
#[derive(Clone, Debug)]
pub enum StreamItem<'a> {
    /// An attempt.
    Attempt(NamedEvent<'a>),
    /// A task was migrated out of a cgroup with policies.
    CgroupMigration(NamedMigration<'a>),
    /// Records were lost before the next item.
    Lost(Lost),
}

/// A process that user space has to kill: the hook denied its attempt, but could not send the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateKill {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Id of the cgroup that the policy is attached to; the process is in it or in a descendant.
    pub scope: u64,
    /// Time of the attempt, nanoseconds of CLOCK_BOOTTIME. The pid of an old attempt may have been reused.
    pub ktime_ns: u64,
}

/// Records that were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Records that could not be decoded: they have another ABI version or an undefined value.
    pub undecodable: u64,
    /// Records of a kind that this binary does not know.
    pub unknown_kind: u64,
}

/// The pipeline, with the names that `N` resolves.
#[derive(Debug)]
pub struct Pipeline<N, S = SystemClocks> {
    names: N,
    clock: Clock<S>,
    correlator: Correlator,
    losses: LossWatch,
    /// Counter of the ring itself and time, after the last record.
    end: Option<(u64, Timestamp)>,
    late_kills: VecDeque<LateKill>,
    /// The item that the caller of [`Pipeline::next_item`] has.
    current: Option<Item>,
    /// The next item, whose loss was returned.
    after_loss: Option<Item>,
    skipped: Skipped,
    /// Time of a record from which on the clock is updated again.
    next_clock_update: u64,
}

impl<N: Names, S: ClockSource> Pipeline<N, S> {
    /// A pipeline that reports records lost after the first `lost` ones of the ring.
    pub fn new(names: N, clock: Clock<S>, lost: u64) -> Pipeline<N, S> {
        Pipeline {
            names,
            clock,
            correlator: Correlator::default(),
            losses: LossWatch::starting_at(lost),
            end: None,
            late_kills: VecDeque::new(),
            current: None,
            after_loss: None,
            skipped: Skipped::default(),
            next_clock_update: 0,
        }
    }

    /// Names for the ids in events.
    pub fn names(&self) -> &N {
        &self.names
    }

    /// The same, to add some.
    pub fn names_mut(&mut self) -> &mut N {
        &mut self.names
    }

    /// The clock that gives events their time.
    pub fn clock(&self) -> &Clock<S> {
        &self.clock
    }

    /// Reads one record. `take` hands the next record to its argument; it returns whether there was one. Returns the
    /// same: if not, the pipeline has all records that the kernel wrote.
    pub fn read(&mut self, take: impl FnOnce(&mut dyn FnMut(&[u8])) -> bool) -> bool {
        let mut decoded = None;
        if !take(&mut |bytes| decoded = Some(decode(bytes))) {
            self.update_clock();
            match self.clock.ktime_ns() {
                Ok(now) => self.correlator.advance(now),
                // Without a clock nothing can time out.
                Err(_) => self.correlator.end(),
            }
            return false;
        }
        match decoded {
            Some(Ok(Record::Attempt(event))) => self.add_attempt(event),
            Some(Ok(Record::CgroupMigration(migration))) => {
                let time = self.wall(migration.ktime_ns);
                self.correlator.add_migration(migration, time);
            }
            Some(Ok(Record::LocalAddress(local))) => self.correlator.add_local_address(&local),
            Some(Ok(Record::Unknown { kind })) => {
                tracing::debug!(kind, "skipped a record of an unknown kind");
                self.skipped.unknown_kind += 1;
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot decode a record");
                self.skipped.undecodable += 1;
            }
            None => {}
        }
        true
    }

    fn add_attempt(&mut self, event: Box<Event>) {
        if event.outcome == Outcome::KillPending {
            self.names.learn(&event);
            self.late_kills.push_back(LateKill {
                pid: event.pid,
                scope: event.scope,
                ktime_ns: event.ktime_ns,
            });
        }
        if (event.local_address_key.is_some() || !self.correlator.is_empty())
            && let Some(id) = event.executable
        {
            // Looked up while the process lives; the result is cached.
            let _ = self.names.executable(event.pid, id);
        }
        let time = self.wall(event.ktime_ns);
        self.correlator.add_attempt(event, time);
    }

    /// Wall time of a record. The clock is updated at the end of each batch of records, and once a second within a long
    /// one.
    fn wall(&mut self, ktime_ns: u64) -> Timestamp {
        if ktime_ns >= self.next_clock_update {
            self.update_clock();
            self.next_clock_update = ktime_ns.saturating_add(CLOCK_UPDATE_NS);
        }
        self.clock.wall(ktime_ns)
    }

    fn update_clock(&mut self) {
        if let Err(error) = self.clock.update() {
            tracing::debug!(%error, "cannot read the clock; the offset to wall time stays as it is");
        }
    }

    /// The next process to kill. To be called after each [`Pipeline::read`]: a kill does not wait until its event is
    /// ready.
    pub fn next_late_kill(&mut self) -> Option<LateKill> {
        self.late_kills.pop_front()
    }

    /// The next item that is ready, in the order of the records.
    pub fn next_item(&mut self) -> Option<StreamItem<'_>> {
        let item = match self.after_loss.take() {
            Some(item) => item,
            None => match self.correlator.take_ready() {
                Some(item) => {
                    if let Some(lost) = self.losses.advance(item.lost(), item.time()) {
                        self.after_loss = Some(item);
                        return Some(StreamItem::Lost(lost));
                    }
                    item
                }
                None => {
                    let (lost, time) = self.end.take()?;
                    return self.losses.advance(lost, time).map(StreamItem::Lost);
                }
            },
        };
        match &item {
            Item::Attempt(event, _) => self.names.learn(event),
            Item::CgroupMigration(migration, _) => self.names.learn_migration(migration),
        }
        Some(match self.current.insert(item) {
            Item::Attempt(event, time) => StreamItem::Attempt(NamedEvent::new(event, *time, &self.names)),
            Item::CgroupMigration(migration, time) => {
                StreamItem::CgroupMigration(NamedMigration::new(migration, *time, &self.names))
            }
        })
    }

    /// No more records will be read: nothing is pending any more. `lost` is the ring's own counter of lost
    /// records; a loss after the last record is reported as the last item, with the time of this call.
    pub fn end(&mut self, lost: u64) {
        self.correlator.end();
        self.end = Some((lost, self.clock.now()));
    }

    /// Whether an event waits for its local address.
    pub fn is_pending(&self) -> bool {
        !self.correlator.is_empty()
    }

    /// Records lost so far, as reported by the items returned.
    pub fn lost(&self) -> u64 {
        self.losses.lost()
    }

    /// Records that were skipped so far.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
