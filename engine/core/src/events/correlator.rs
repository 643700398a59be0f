//! Correlates events with the local addresses of their connections, which the kernel reports shortly after the
//! attempt in a record of its own. Order is kept: items behind a pending event wait, too.

use std::collections::VecDeque;

use engine_common::record::READER_PERIOD_MS;
use jiff::Timestamp;

use super::{event::Event, local_address::LocalAddress, migration::CgroupMigration};

/// Nanoseconds after which an event is no longer pending, once all records that the kernel wrote in that time were
/// read: a connect that fails before its SYN is sent gets no local address.
const TIMEOUT_NS: u64 = READER_PERIOD_MS * 1_000_000;

/// Most items that are queued.
const MAX_QUEUED: usize = 1024;

/// An item of the stream, with the wall time that it was read with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An attempt.
    Attempt(Box<Event>, Timestamp),
    /// A task was migrated out of a cgroup.
    CgroupMigration(Box<CgroupMigration>, Timestamp),
}

impl Item {
    fn event(&self) -> Option<&Event> {
        match self {
            Item::Attempt(event, _) => Some(event),
            Item::CgroupMigration(..) => None,
        }
    }

    fn event_mut(&mut self) -> Option<&mut Event> {
        match self {
            Item::Attempt(event, _) => Some(event),
            Item::CgroupMigration(..) => None,
        }
    }

    fn is_pending(&self) -> bool {
        self.event()
            .is_some_and(|event| event.local_address_key.is_some())
    }

    fn ktime_ns(&self) -> u64 {
        match self {
            Item::Attempt(event, _) => event.ktime_ns,
            Item::CgroupMigration(migration, _) => migration.ktime_ns,
        }
    }

    /// Records lost before this one, see [`Event::lost`].
    pub(super) fn lost(&self) -> u64 {
        match self {
            Item::Attempt(event, _) => event.lost,
            Item::CgroupMigration(migration, _) => migration.lost,
        }
    }

    /// The wall time.
    pub(super) fn time(&self) -> Timestamp {
        match self {
            Item::Attempt(_, time) | Item::CgroupMigration(_, time) => *time,
        }
    }
}

/// The queue of items, in the order of their records.
#[derive(Debug, Default)]
pub struct Correlator {
    queue: VecDeque<Item>,
}

impl Correlator {
    /// Adds an event. It is pending if it has a [`local_address_key`](Event::local_address_key).
    pub fn add_attempt(&mut self, event: Box<Event>, time: Timestamp) {
        self.advance(event.ktime_ns);
        if let Some(key) = event.local_address_key {
            // For one attempt each policy on each cgroup reports once, and its thread does nothing else
            // meanwhile. Another attempt with the same socket means that the previous one has failed.
            let has_key = |queued: &Event| queued.local_address_key == Some(key);
            let same_policy = |queued: &Event| (queued.scope, queued.slot) == (event.scope, event.slot);
            let is_other_attempt = |queued: &Event| same_policy(queued) || queued.tid != event.tid;
            let mut queued = self.queue.iter().filter_map(Item::event);
            if queued.any(|queued| has_key(queued) && is_other_attempt(queued)) {
                self.queue
                    .iter_mut()
                    .filter_map(Item::event_mut)
                    .filter(|queued| queued.local_address_key == Some(key))
                    .for_each(|queued| queued.local_address_key = None);
            }
        }
        self.push(Item::Attempt(event, time));
    }

    /// Adds a migration. It is never pending, but keeps its position.
    pub fn add_migration(&mut self, migration: Box<CgroupMigration>, time: Timestamp) {
        self.advance(migration.ktime_ns);
        self.push(Item::CgroupMigration(migration, time));
    }

    fn push(&mut self, item: Item) {
        self.queue.push_back(item);
        if self.queue.len() > MAX_QUEUED
            && let Some(first) = self.queue.front_mut().and_then(Item::event_mut)
        {
            first.local_address_key = None;
        }
    }

    /// Adds a local address to the events with its key, which are then no longer pending. It is ignored if there are
    /// none.
    pub fn add_local_address(&mut self, local: &LocalAddress) {
        for event in self.queue.iter_mut().filter_map(Item::event_mut) {
            if event.local_address_key == Some(local.key) {
                event.local_address = Some(local.address);
                event.local_address_key = None;
            }
        }
        self.advance(local.ktime_ns);
    }

    /// All records that the kernel wrote until `ktime_ns` (CLOCK_BOOTTIME) were read.
    pub fn advance(&mut self, ktime_ns: u64) {
        for item in &mut self.queue {
            if ktime_ns.saturating_sub(item.ktime_ns()) < TIMEOUT_NS {
                break;
            }
            if let Some(event) = item.event_mut() {
                event.local_address_key = None;
            }
        }
    }

    /// No more records will come: nothing is pending any more.
    pub fn end(&mut self) {
        let events = self.queue.iter_mut().filter_map(Item::event_mut);
        events.for_each(|event| event.local_address_key = None);
    }

    /// Removes the first item, unless it is pending.
    pub fn take_ready(&mut self) -> Option<Item> {
        match self.queue.front() {
            Some(first) if !first.is_pending() => self.queue.pop_front(),
            _ => None,
        }
    }

    /// Whether no item is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::events::test_records;

    const START: u64 = 1_000_000_000;

    fn event(port: u16, after_ns: u64, key: Option<u64>) -> Box<Event> {
        let mut event = test_records::event(|record| {
            record.port = port;
            record.header.ktime_ns = START + after_ns;
        });
        event.local_address_key = key;
        Box::new(event)
    }

    fn local(key: u64, port: u16) -> LocalAddress {
        LocalAddress {
            ktime_ns: START,
            key,
            address: SocketAddr::from(([192, 0, 2, 1], port)),
        }
    }

    fn add(correlator: &mut Correlator, event: Box<Event>) {
        correlator.add_attempt(event, Timestamp::UNIX_EPOCH);
    }

    /// Destination port and local port of every ready item; zero and `None` for a migration.
    fn ready(correlator: &mut Correlator) -> Vec<(u16, Option<u16>)> {
        let mut ready = Vec::new();
        while let Some(next) = correlator.take_ready() {
            let Item::Attempt(event, _) = next else {
                ready.push((0, None));
                continue;
            };
            let crate::events::Target::Destination { port, .. } = event.target else {
                panic!("{event:?}");
            };
            ready.push((port, event.local_address.map(|local| local.port())));
        }
        ready
    }

    #[test]
    fn events_that_are_not_pending_are_ready_at_once() {
        let mut correlator = Correlator::default();
        add(&mut correlator, event(1, 0, None));
        assert_eq!(ready(&mut correlator), [(1, None)]);
        assert!(correlator.is_empty());
    }

    #[test]
    fn a_local_address_is_added_to_its_event_and_order_is_kept() {
        let mut correlator = Correlator::default();
        add(&mut correlator, event(1, 0, Some(11)));
        add(&mut correlator, event(2, 1, Some(12)));
        add(&mut correlator, event(3, 2, None));
        correlator.add_local_address(&local(99, 9999));
        assert_eq!(ready(&mut correlator), []);
        correlator.add_local_address(&local(12, 2012));
        assert_eq!(ready(&mut correlator), []);
        assert!(!correlator.is_empty());
        correlator.add_local_address(&local(11, 2011));
        assert_eq!(
            ready(&mut correlator),
            [(1, Some(2011)), (2, Some(2012)), (3, None)]
        );
    }

    #[test]
    fn a_local_address_is_added_to_the_events_of_all_policies() {
        let mut correlator = Correlator::default();
        for slot in 0..3 {
            let mut one = event(1, slot, Some(11));
            one.slot = Some(slot as u32);
            add(&mut correlator, one);
        }
        correlator.add_local_address(&local(11, 2011));
        assert_eq!(ready(&mut correlator), [(1, Some(2011)); 3]);
    }

    #[test]
    fn another_attempt_of_the_socket_means_that_the_first_has_failed() {
        let mut correlator = Correlator::default();
        add(&mut correlator, event(1, 0, Some(11)));
        add(&mut correlator, event(2, 1, Some(11)));
        assert_eq!(ready(&mut correlator), [(1, None)]);
        correlator.add_local_address(&local(11, 2011));
        assert_eq!(ready(&mut correlator), [(2, Some(2011))]);
        // The same by another thread, under another policy.
        add(&mut correlator, event(3, 2, Some(12)));
        let mut other = event(4, 3, Some(12));
        (other.tid, other.slot) = (other.tid + 1, Some(5));
        add(&mut correlator, other);
        correlator.add_local_address(&local(12, 2012));
        assert_eq!(ready(&mut correlator), [(3, None), (4, Some(2012))]);
    }

    #[test]
    fn pending_events_time_out() {
        let mut correlator = Correlator::default();
        add(&mut correlator, event(1, 0, Some(11)));
        add(&mut correlator, event(2, 1, Some(12)));
        correlator.advance(START + TIMEOUT_NS - 1);
        assert_eq!(ready(&mut correlator), []);
        correlator.advance(START + TIMEOUT_NS);
        assert_eq!(ready(&mut correlator), [(1, None)]);
        // A later record advances the time.
        add(&mut correlator, event(3, 1 + TIMEOUT_NS, None));
        assert_eq!(ready(&mut correlator), [(2, None), (3, None)]);
        add(&mut correlator, event(4, 2 + TIMEOUT_NS, Some(13)));
        correlator.end();
        assert_eq!(ready(&mut correlator), [(4, None)]);
        // Too late.
        correlator.add_local_address(&local(13, 2013));
        assert!(correlator.is_empty());
    }

    #[test]
    fn migrations_keep_their_position() {
        let mut correlator = Correlator::default();
        let migrate = |correlator: &mut Correlator, after_ns| {
            let migration = test_records::migration(|record| record.header.ktime_ns = START + after_ns);
            correlator.add_migration(Box::new(migration), Timestamp::UNIX_EPOCH);
        };
        migrate(&mut correlator, 0);
        assert_eq!(ready(&mut correlator), [(0, None)]);
        add(&mut correlator, event(1, 1, Some(11)));
        migrate(&mut correlator, 2);
        add(&mut correlator, event(2, 3, None));
        assert_eq!(ready(&mut correlator), []);
        correlator.add_local_address(&local(11, 2011));
        assert_eq!(ready(&mut correlator), [(1, Some(2011)), (0, None), (2, None)]);
        // It advances the time.
        add(&mut correlator, event(3, 4, Some(12)));
        migrate(&mut correlator, 4 + TIMEOUT_NS);
        assert_eq!(ready(&mut correlator), [(3, None), (0, None)]);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut correlator = Correlator::default();
        for key in 0..=MAX_QUEUED as u64 {
            add(&mut correlator, event(1, 0, Some(key + 1)));
        }
        assert_eq!(ready(&mut correlator), [(1, None)]);
        assert_eq!(correlator.queue.len(), MAX_QUEUED);
    }
}
