//! Brings events and the sources of their connections together: the kernel tells a source a moment after the
//! attempt, in a record of its own. Order is kept: what comes behind an event that waits waits too.

use std::{collections::VecDeque, net::SocketAddr};

use engine_common::event::READER_PERIOD_MS;

use super::{event::Event, migration::CgroupMigration};

/// Nanoseconds after which an event waits no longer, once all that the kernel wrote in them was read: a connect
/// that fails before its SYN leaves gets no source.
const PATIENCE_NS: u64 = READER_PERIOD_MS * 1_000_000;

/// Most events that are held.
const MAX_HELD: usize = 1024;

/// Where a connection sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// The key that its events have in `awaits`.
    pub key: u64,
    /// Address and port.
    pub address: SocketAddr,
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// An attempt.
    Event(Box<Event>),
    /// That a task has left a cgroup. It waits for nothing itself.
    CgroupMigration(Box<CgroupMigration>),
}

impl Told {
    fn event(&self) -> Option<&Event> {
        match self {
            Told::Event(event) => Some(event),
            Told::CgroupMigration(_) => None,
        }
    }

    fn event_mut(&mut self) -> Option<&mut Event> {
        match self {
            Told::Event(event) => Some(event),
            Told::CgroupMigration(_) => None,
        }
    }

    fn awaits(&self) -> Option<u64> {
        self.event()?.awaits
    }

    fn monotonic_ns(&self) -> u64 {
        match self {
            Told::Event(event) => event.monotonic_ns,
            Told::CgroupMigration(migration) => migration.monotonic_ns,
        }
    }
}

/// Events on their way, in their order.
#[derive(Debug, Default)]
pub struct Correlator {
    held: VecDeque<Told>,
}

impl Correlator {
    /// Takes an event in.
    pub fn event(&mut self, event: Box<Event>) {
        self.passed(event.monotonic_ns);
        if let Some(key) = event.awaits {
            // Of one attempt each policy on each cgroup says something once, and its thread does nothing else
            // meanwhile. Another attempt of the socket means that the one before has failed.
            let of_key = |held: &Event| held.awaits == Some(key);
            let same = |held: &Event| (held.scope, held.slot) == (event.scope, event.slot);
            let is_other = |held: &Event| same(held) || held.tid != event.tid;
            let mut held = self.held.iter().filter_map(Told::event);
            if held.any(|held| of_key(held) && is_other(held)) {
                self.held
                    .iter_mut()
                    .filter_map(Told::event_mut)
                    .filter(|held| held.awaits == Some(key))
                    .for_each(|held| held.awaits = None);
            }
        }
        self.hold(Told::Event(event));
    }

    /// Takes a migration in: it is told in its place.
    pub fn migration(&mut self, migration: Box<CgroupMigration>) {
        self.passed(migration.monotonic_ns);
        self.hold(Told::CgroupMigration(migration));
    }

    fn hold(&mut self, told: Told) {
        self.held.push_back(told);
        if self.held.len() > MAX_HELD
            && let Some(first) = self.held.front_mut().and_then(Told::event_mut)
        {
            first.awaits = None;
        }
    }

    /// Takes a source in; one that no event waits for is nothing to anybody.
    pub fn source(&mut self, source: &Source) {
        for held in self.held.iter_mut().filter_map(Told::event_mut) {
            if held.awaits == Some(source.key) {
                held.source = Some(source.address);
                held.awaits = None;
            }
        }
        self.passed(source.monotonic_ns);
    }

    /// Everything that the kernel wrote until this time (CLOCK_MONOTONIC, nanoseconds) was read.
    pub fn passed(&mut self, now_ns: u64) {
        for held in &mut self.held {
            if now_ns.saturating_sub(held.monotonic_ns()) < PATIENCE_NS {
                break;
            }
            if let Some(event) = held.event_mut() {
                event.awaits = None;
            }
        }
    }

    /// Nothing more will come.
    pub fn ended(&mut self) {
        let events = self.held.iter_mut().filter_map(Told::event_mut);
        events.for_each(|held| held.awaits = None);
    }

    /// The next that waits for nothing, in the order in which they came.
    pub fn take_ready(&mut self) -> Option<Told> {
        match self.held.front() {
            Some(first) if first.awaits().is_none() => self.held.pop_front(),
            _ => None,
        }
    }

    /// Whether an event is held.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::sample;

    const START: u64 = 1_000_000_000;

    fn event(port: u16, after_ns: u64, awaits: Option<u64>) -> Box<Event> {
        let mut event = sample::event(|record| {
            record.port = port;
            record.monotonic_ns = START + after_ns;
        });
        event.awaits = awaits;
        Box::new(event)
    }

    fn source(key: u64, port: u16) -> Source {
        Source {
            monotonic_ns: START,
            key,
            address: SocketAddr::from(([192, 0, 2, 1], port)),
        }
    }

    /// Destination port and source port of everything that comes out; noughts for a migration.
    fn told(join: &mut Correlator) -> Vec<(u16, Option<u16>)> {
        let mut told = Vec::new();
        while let Some(next) = join.take_ready() {
            let Told::Event(event) = next else {
                told.push((0, None));
                continue;
            };
            let crate::events::Target::Destination { port, .. } = event.target else {
                panic!("{event:?}");
            };
            told.push((port, event.source.map(|source| source.port())));
        }
        told
    }

    #[test]
    fn events_that_wait_for_nothing_pass_at_once() {
        let mut join = Correlator::default();
        join.event(event(1, 0, None));
        assert_eq!(told(&mut join), [(1, None)]);
        assert!(!join.holds());
    }

    #[test]
    fn a_source_goes_to_its_event_and_order_is_kept() {
        let mut join = Correlator::default();
        join.event(event(1, 0, Some(11)));
        join.event(event(2, 1, Some(12)));
        join.event(event(3, 2, None));
        join.source(&source(99, 9999));
        assert_eq!(told(&mut join), []);
        join.source(&source(12, 2012));
        assert_eq!(told(&mut join), []);
        assert!(join.holds());
        join.source(&source(11, 2011));
        assert_eq!(told(&mut join), [(1, Some(2011)), (2, Some(2012)), (3, None)]);
    }

    #[test]
    fn a_source_goes_to_the_events_of_all_policies() {
        let mut join = Correlator::default();
        for slot in 0..3 {
            let mut one = event(1, slot, Some(11));
            one.slot = Some(slot as u32);
            join.event(one);
        }
        join.source(&source(11, 2011));
        assert_eq!(told(&mut join), [(1, Some(2011)); 3]);
    }

    #[test]
    fn another_attempt_of_the_socket_means_that_the_first_has_failed() {
        let mut join = Correlator::default();
        join.event(event(1, 0, Some(11)));
        join.event(event(2, 1, Some(11)));
        assert_eq!(told(&mut join), [(1, None)]);
        join.source(&source(11, 2011));
        assert_eq!(told(&mut join), [(2, Some(2011))]);
        // The same by another thread, under another policy.
        join.event(event(3, 2, Some(12)));
        let mut other = event(4, 3, Some(12));
        (other.tid, other.slot) = (other.tid + 1, Some(5));
        join.event(other);
        join.source(&source(12, 2012));
        assert_eq!(told(&mut join), [(3, None), (4, Some(2012))]);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut join = Correlator::default();
        join.event(event(1, 0, Some(11)));
        join.event(event(2, 1, Some(12)));
        join.passed(START + PATIENCE_NS - 1);
        assert_eq!(told(&mut join), []);
        join.passed(START + PATIENCE_NS);
        assert_eq!(told(&mut join), [(1, None)]);
        // What the kernel wrote later says that nothing is to come of what was before.
        join.event(event(3, 1 + PATIENCE_NS, None));
        assert_eq!(told(&mut join), [(2, None), (3, None)]);
        join.event(event(4, 2 + PATIENCE_NS, Some(13)));
        join.ended();
        assert_eq!(told(&mut join), [(4, None)]);
        // Too late.
        join.source(&source(13, 2013));
        assert!(!join.holds());
    }

    #[test]
    fn departures_keep_their_place() {
        let mut join = Correlator::default();
        let migration = |after_ns| {
            Box::new(sample::migration(|record| {
                record.monotonic_ns = START + after_ns;
            }))
        };
        join.migration(migration(0));
        assert_eq!(told(&mut join), [(0, None)]);
        join.event(event(1, 1, Some(11)));
        join.migration(migration(2));
        join.event(event(2, 3, None));
        assert_eq!(told(&mut join), []);
        join.source(&source(11, 2011));
        assert_eq!(told(&mut join), [(1, Some(2011)), (0, None), (2, None)]);
        // It tells what time it is by then.
        join.event(event(3, 4, Some(12)));
        join.migration(migration(4 + PATIENCE_NS));
        assert_eq!(told(&mut join), [(3, None), (0, None)]);
    }

    #[test]
    fn what_is_held_has_a_bound() {
        let mut join = Correlator::default();
        for key in 0..=MAX_HELD as u64 {
            join.event(event(1, 0, Some(key + 1)));
        }
        assert_eq!(told(&mut join), [(1, None)]);
        assert_eq!(join.held.len(), MAX_HELD);
    }
}
