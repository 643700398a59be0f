//! Events added up: one row a kind of attempt, with a count.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, os::unix::ffi::OsStrExt};

use engine_common::{Action, ExecutableId, Outcome, Protocol, Reason, SocketFamily, UnixSocketId};

use super::{
    bound_name::BoundName,
    context::NamedEvent,
    escape::{escaped, word},
    event::Comm,
    target::Target,
};

/// Rows kept apart. A process can make up as many destinations as it likes; what comes after these
/// is only counted by outcome.
pub const MAX_ROWS: usize = 10_000;

/// Where a row's attempts went. Spellings of one address are one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(IpAddr, u16),
    Socket(SocketFamily),
    Family(u16),
    Unix(BoundName, UnixSocketId),
}

/// Who made a row's attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Process {
    Executable(ExecutableId),
    Named(Comm),
}

/// What makes two events the same row. Numbers only, so that adding an event allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    verdict: Action,
    outcome: Outcome,
    place: Place,
    protocol: Protocol,
    slot: Option<u32>,
    generation: u64,
    reason: Reason,
    process: Process,
}

/// Attempts of one kind. The texts are safe for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the policy said.
    pub verdict: Action,
    /// What was done.
    pub outcome: Outcome,
    /// How many.
    pub count: u64,
    /// Where to: `198.51.100.7:443/tcp`.
    pub destination: String,
    /// Who decided: `payments/metadata`.
    pub decided_by: String,
    /// Who wanted to: path of the executable, or the thread's name where that is not known.
    pub process: String,
}

/// Events added up.
#[derive(Debug, Default)]
pub struct Tally {
    rows: HashMap<Key, Row>,
    outcomes: [u64; Self::OUTCOMES.len()],
    others: [u64; Self::OUTCOMES.len()],
    lost: u64,
    pending: u64,
}

impl Tally {
    /// All outcomes, gravest first: the order of rows and headings.
    pub const OUTCOMES: [Outcome; 7] = [
        Outcome::Killed,
        Outcome::KillPending,
        Outcome::Blocked,
        Outcome::WouldKill,
        Outcome::WouldBlock,
        Outcome::Audited,
        Outcome::Allowed,
    ];

    /// Adds an event, and the repeats that were folded into it.
    pub fn add(&mut self, named: &NamedEvent<'_>) {
        let event = named.event;
        let rank = rank(event.outcome);
        let attempts = 1 + u64::from(event.repeats);
        self.outcomes[rank] += attempts;

        let key = Key {
            verdict: event.verdict,
            outcome: event.outcome,
            place: match event.target {
                Target::Destination { address, port, .. } => Place::Address(address, port),
                Target::Socket(family) => Place::Socket(family),
                Target::Family(family) => Place::Family(family),
                Target::Unix { name, place } => Place::Unix(name, place),
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

    /// Adds records that were lost on their way here.
    pub fn add_lost(&mut self, records: u64) {
        self.lost += records;
    }

    /// Records that were lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds repeats that were folded after the last event of their kind: no event tells of them.
    pub fn add_untold(&mut self, repeats: u64) {
        self.pending += repeats;
    }

    /// Repeats that no event tells of.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Events with this outcome, those without a row of their own included.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[rank(outcome)]
    }

    /// Events with this outcome that have no row of their own, because there were
    /// [`MAX_ROWS`] already.
    pub fn others(&self, outcome: Outcome) -> u64 {
        self.others[rank(outcome)]
    }

    /// Whether no event was added and none was lost.
    pub fn is_empty(&self) -> bool {
        self.lost == 0 && self.outcomes.iter().all(|&count| count == 0)
    }

    /// The rows: gravest outcome first, then the most frequent.
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

/// Place of an outcome in [`Tally::OUTCOMES`].
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
    use crate::events::sample::{comm, named, v4};

    #[test]
    fn the_same_attempt_is_one_row() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        for _ in 0..3 {
            named(|_| {}, |event| tally.add(event));
        }
        // Another thread of the same executable, another spelling of the same address.
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
    fn what_is_beyond_the_limit_is_still_counted() {
        let mut tally = Tally::default();
        for i in 0..MAX_ROWS as u32 + 5 {
            let address = (0x0a00_0000 + i).to_be_bytes();
            named(|r| r.destination = v4(address), |event| tally.add(event));
        }
        assert_eq!(tally.rows().len(), MAX_ROWS);
        assert_eq!(tally.others(Outcome::Blocked), 5);
        assert_eq!(tally.count(Outcome::Blocked), MAX_ROWS as u64 + 5);
        // A row that is there goes on counting.
        named(|r| r.destination = v4([10, 0, 0, 0]), |event| tally.add(event));
        assert_eq!(tally.rows()[0].count, 2);
        assert_eq!(tally.others(Outcome::Blocked), 5);
    }
}
