//! Aggregated events: one row per distinct attempt, with a count.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, os::unix::ffi::OsStrExt};

use engine_common::{Action, ExecutableId, Outcome, Protocol, Reason, SocketFamily, UnixSocketId};

use super::{
    bound_name::BoundName,
    escape::{escaped, word},
    event::Comm,
    names::NamedEvent,
    target::Target,
};

/// Most rows: a process can use any number of destinations. Events beyond these
/// are only counted by outcome.
pub const MAX_ROWS: usize = 10_000;

/// The destination of a row. All representations of an address are one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Destination {
    Address(IpAddr, u16),
    Socket(SocketFamily),
    Family(u16),
    Unix(BoundName, UnixSocketId),
}

/// The process of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Process {
    Executable(ExecutableId),
    Named(Comm),
}

/// Events with equal keys are one row. It has no strings, so that adding an event does not allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    verdict: Action,
    outcome: Outcome,
    destination: Destination,
    protocol: Protocol,
    slot: Option<u32>,
    generation: u64,
    reason: Reason,
    process: Process,
}

/// A row of the table. The strings are safe for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Action of the rule or default that decided.
    pub verdict: Action,
    /// What was enforced.
    pub outcome: Outcome,
    /// Number of attempts.
    pub count: u64,
    /// Destination: `198.51.100.7:443/tcp`.
    pub destination: String,
    /// Policy and rule: `payments/metadata`.
    pub decided_by: String,
    /// Path of the executable, or the thread's name if that is not known.
    pub process: String,
}

/// Aggregated events.
#[derive(Debug, Default)]
pub struct Tally {
    rows: HashMap<Key, Row>,
    outcomes: [u64; Self::OUTCOMES.len()],
    others: [u64; Self::OUTCOMES.len()],
    lost: u64,
    suppressed_pending: u64,
}

impl Tally {
    /// All outcomes, the most severe first: the order of rows and headings.
    pub const OUTCOMES: [Outcome; 7] = [
        Outcome::Killed,
        Outcome::KillPending,
        Outcome::Blocked,
        Outcome::WouldKill,
        Outcome::WouldBlock,
        Outcome::Audited,
        Outcome::Allowed,
    ];

    /// Adds an event with the suppressed duplicates that it reports.
    pub fn add(&mut self, named: &NamedEvent<'_>) {
        let event = named.event;
        let rank = rank(event.outcome);
        let attempts = 1 + u64::from(event.repeats);
        self.outcomes[rank] += attempts;

        let key = Key {
            verdict: event.verdict,
            outcome: event.outcome,
            destination: match event.target {
                Target::Destination { address, port, .. } => Destination::Address(address, port),
                Target::Socket(family) => Destination::Socket(family),
                Target::Family(family) => Destination::Family(family),
                Target::Unix { name, id } => Destination::Unix(name, id),
            },
            protocol: event.protocol,
            slot: event.slot,
            generation: event.generation,
            reason: event.reason,
            process: match event.executable {
                Some(id) => Process::Executable(id),
                None => Process::Named(event.comm),
            },
        };
        if let Some(row) = self.rows.get_mut(&key) {
            row.count += attempts;
        } else if self.rows.len() < MAX_ROWS {
            self.rows.insert(key, first(named));
        } else {
            self.others[rank] += attempts;
        }
    }

    /// Adds lost records.
    pub fn add_lost(&mut self, records: u64) {
        self.lost += records;
    }

    /// Records that were lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds duplicates that were suppressed and that no event reports.
    pub fn add_suppressed_pending(&mut self, attempts: u64) {
        self.suppressed_pending += attempts;
    }

    /// Suppressed duplicates that no event reports.
    pub fn suppressed_pending(&self) -> u64 {
        self.suppressed_pending
    }

    /// Attempts with this outcome, including those without a row.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[rank(outcome)]
    }

    /// Attempts with this outcome without a row, because there were [`MAX_ROWS`]
    /// already.
    pub fn others(&self, outcome: Outcome) -> u64 {
        self.others[rank(outcome)]
    }

    /// Whether no event was added and none was lost.
    pub fn is_empty(&self) -> bool {
        self.lost == 0 && self.outcomes.iter().all(|&count| count == 0)
    }

    /// The rows: the most severe outcome first, then the most frequent.
    pub fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by(|a, b| {
            let order = |row: &Row| (rank(row.outcome), Reverse(row.count), row.verdict);
            let texts = |row: &Row| {
                [
                    row.destination.clone(),
                    row.decided_by.clone(),
                    row.process.clone(),
                ]
            };
            order(a).cmp(&order(b)).then_with(|| texts(a).cmp(&texts(b)))
        });
        rows
    }
}

/// Index of an outcome in [`Tally::OUTCOMES`].
const fn rank(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Killed => 0,
        Outcome::KillPending => 1,
        Outcome::Blocked => 2,
        Outcome::WouldKill => 3,
        Outcome::WouldBlock => 4,
        Outcome::Audited => 5,
        Outcome::Allowed => 6,
    }
}

/// The row of the first event of its kind.
fn first(named: &NamedEvent<'_>) -> Row {
    let event = named.event;
    Row {
        verdict: event.verdict,
        outcome: event.outcome,
        count: 1 + u64::from(event.repeats),
        destination: event.target.display(event.protocol).to_string(),
        decided_by: escaped(named.decided_by().as_bytes()).to_string(),
        process: match named.executable() {
            Some(path) => word(path.as_os_str().as_bytes()).to_string(),
            None if event.pid == 0 => "(unknown)".to_owned(),
            None => word(event.comm.as_bytes()).to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::test_records::{comm, named, v4};

    #[test]
    fn equal_attempts_are_one_row() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        for _ in 0..3 {
            named(|_| {}, |event| tally.add(event));
        }
        // Another thread of the same executable, another representation of the same address.
        named(|r| r.comm = comm(b"worker"), |event| tally.add(event));
        named(
            |r| {
                r.original_family = 6;
                r.original = std::net::Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped().octets();
            },
            |event| tally.add(event),
        );
        assert_eq!(tally.rows().len(), 1);
        assert_eq!(tally.rows()[0].count, 5);

        named(|r| r.port = 80, |event| tally.add(event));
        named(|r| r.detail = 0, |event| tally.add(event));
        named(|r| r.executable_inode = 7, |event| tally.add(event));
        named(|r| (r.verdict, r.outcome) = (1, 1), |event| tally.add(event));
        let rows = tally.rows();
        assert_eq!(rows.len(), 5);
        assert_eq!((rows[0].count, rows[0].process.as_str()), (5, "/usr/bin/curl"));
        assert_eq!(rows[4].outcome, Outcome::Audited);
        assert_eq!(tally.count(Outcome::Blocked), 8);
        assert!(!tally.is_empty());
    }

    #[test]
    fn events_beyond_the_limit_are_counted() {
        let mut tally = Tally::default();
        for i in 0..MAX_ROWS as u32 + 5 {
            let address = (0x0a00_0000 + i).to_be_bytes();
            named(|r| r.destination = v4(address), |event| tally.add(event));
        }
        assert_eq!(tally.rows().len(), MAX_ROWS);
        assert_eq!(tally.others(Outcome::Blocked), 5);
        assert_eq!(tally.count(Outcome::Blocked), MAX_ROWS as u64 + 5);
        // An existing row is still updated.
        named(|r| r.destination = v4([10, 0, 0, 0]), |event| tally.add(event));
        assert_eq!(tally.rows()[0].count, 2);
        assert_eq!(tally.others(Outcome::Blocked), 5);
    }
}
