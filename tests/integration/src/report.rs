//! The report file of `tidegate exec --report`, as its contract says it is.

use std::{fs, net::IpAddr, path::Path};

use serde::Deserialize;

/// A whole report.
#[derive(Clone, Debug)]
pub struct Report {
    /// What policies had to say, in the order it was read.
    pub events: Vec<Event>,
    /// Lost records, by the gaps in the stream.
    pub gaps: Vec<Gap>,
    /// The end.
    pub summary: Summary,
}

/// What one policy had to say about one attempt.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// RFC 3339, UTC.
    pub time: String,
    /// Name of the policy.
    pub policy: Option<String>,
    /// Path of the cgroup that carries it.
    pub scope: Option<String>,
    /// Id of that cgroup.
    pub scope_id: u64,
    /// Version of the policy.
    pub generation: u64,
    /// `enforce` or `audit`.
    pub mode: String,
    /// What the policy said.
    pub verdict: String,
    /// What was done.
    pub outcome: String,
    /// `rule`, `default` or `fault`.
    pub reason: String,
    /// Name of the rule.
    pub rule: Option<String>,
    /// The fault.
    pub fault: Option<String>,
    /// Where it was seen.
    pub hook: String,
    /// What the caller saw.
    pub errno: Option<String>,
    /// Process.
    pub pid: i32,
    /// Thread.
    pub tid: i32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Name of the thread.
    pub comm: String,
    /// The program.
    pub executable: Option<Executable>,
    /// Id of the calling task's cgroup.
    pub cgroup_id: u64,
    /// What the unix socket is bound to.
    pub unix: Option<String>,
    /// Protocol.
    pub protocol: String,
    /// Canonical destination.
    pub destination: Option<Destination>,
    /// The destination as the caller spelled it, when that differs.
    pub original: Option<Destination>,
    /// Where the socket sends from, where that is known.
    pub source: Option<Destination>,
    /// Whether the socket is another scope's.
    pub foreign_socket: bool,
    /// Cookie of the socket.
    pub socket_cookie: u64,
    /// Attempts of its kind that were folded into it.
    pub repeats: u64,
}

/// That a process has left a cgroup which carries policies.
#[derive(Clone, Debug, Deserialize)]
pub struct Move {
    /// RFC 3339, UTC.
    pub time: String,
    /// Path of the cgroup that carries the policies.
    pub scope: Option<String>,
    /// Id of that cgroup.
    pub scope_id: u64,
    /// Names of the policies.
    pub policies: Vec<Option<String>>,
    /// Where it was.
    pub from: Option<String>,
    /// Id of that cgroup.
    pub from_id: u64,
    /// Where it is.
    pub to: Option<String>,
    /// Id of that cgroup.
    pub to_id: u64,
    /// Process.
    pub pid: i32,
    /// Thread.
    pub tid: i32,
    /// Name of the thread.
    pub comm: String,
    /// Whether the whole process left.
    pub whole_process: bool,
    /// Whether it was made there.
    pub born: bool,
    /// Who did it.
    pub by: MigratedBy,
}

/// Who moved a process.
#[derive(Clone, Debug, Deserialize)]
pub struct MigratedBy {
    /// Process.
    pub pid: i32,
    /// Real user id.
    pub uid: u32,
    /// Name of the thread.
    pub comm: String,
}

/// An executable file.
#[derive(Clone, Debug, Deserialize)]
pub struct Executable {
    /// Its path, where it could be learned.
    pub path: Option<String>,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// An address and, for protocols with ports, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Destination {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: Option<u16>,
}

/// Records that were lost.
#[derive(Clone, Debug, Deserialize)]
pub struct Gap {
    /// How many.
    pub lost: u64,
}

/// The last line.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// The words of the command.
    pub command: Vec<String>,
    /// How it ended.
    pub exit: Exit,
    /// A policy each.
    pub policies: Vec<PolicySummary>,
    /// Events by outcome.
    pub outcomes: serde_json::Map<String, serde_json::Value>,
    /// Records lost in all.
    pub lost: u64,
    /// Repeats that no event tells of.
    pub repeats_untold: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Exit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A policy's counters.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicySummary {
    /// Its name.
    pub name: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// Its rules, in their order.
    pub rules: Vec<RuleSummary>,
    /// Attempts that no rule matched.
    pub default: DefaultSummary,
    /// Attempts that could not be judged.
    pub faults: u64,
}

/// A rule's counter.
#[derive(Clone, Debug, Deserialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// What it says.
    pub action: String,
    /// How often it decided.
    pub attempts: u64,
}

/// The counter of a policy's default.
#[derive(Clone, Debug, Deserialize)]
pub struct DefaultSummary {
    /// What it says.
    pub action: String,
    /// How often it decided.
    pub attempts: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Event(Box<Event>),
    Move(Box<Move>),
    Gap(Gap),
    Summary(Summary),
}

impl Report {
    /// Reads a report file.
    ///
    /// # Panics
    /// When it is not as the contract says: a document a line, and one summary at its end.
    pub fn read(path: &Path) -> Report {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Report::parse(&text)
    }

    /// # Panics
    /// As [`Report::read`].
    pub fn parse(text: &str) -> Report {
        let (mut events, mut gaps, mut end) = (Vec::new(), Vec::new(), None);
        for line in text.lines() {
            assert!(end.is_none(), "a line after the summary: {line}");
            match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
                Line::Event(event) => events.push(*event),
                Line::Move(_) => panic!("nobody leaves the cgroup of `exec`: {line}"),
                Line::Gap(gap) => gaps.push(gap),
                Line::Summary(summary) => end = Some(summary),
            }
        }
        Report {
            events,
            gaps,
            summary: end.unwrap_or_else(|| panic!("no summary in\n{text}")),
        }
    }

    /// Reads a stream of events and gaps, which has no summary. Moves are left to [`Report::moves`].
    ///
    /// # Panics
    /// When a line is something else.
    pub fn stream(text: &str) -> (Vec<Event>, Vec<Gap>) {
        let (mut events, mut gaps) = (Vec::new(), Vec::new());
        for line in text.lines() {
            match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
                Line::Event(event) => events.push(*event),
                Line::Move(_) => {}
                Line::Gap(gap) => gaps.push(gap),
                Line::Summary(_) => panic!("a summary: {line}"),
            }
        }
        (events, gaps)
    }

    /// The moves in a stream, in which there is nothing else.
    ///
    /// # Panics
    /// When there is.
    #[track_caller]
    pub fn moves(text: &str) -> Vec<Move> {
        let read = |line: &str| match serde_json::from_str(line) {
            Ok(Line::Move(found)) => *found,
            _ => panic!("no move: {line}"),
        };
        text.lines().map(read).collect()
    }

    /// The one event there is.
    ///
    /// # Panics
    /// When there are none or more.
    #[track_caller]
    pub fn only_event(&self) -> &Event {
        assert_eq!(self.events.len(), 1, "one event, not {:#?}", self.events);
        &self.events[0]
    }

    /// Events about a destination.
    pub fn events_to(&self, address: IpAddr) -> Vec<&Event> {
        let about = |event: &&Event| event.destination.is_some_and(|to| to.address == address);
        self.events.iter().filter(about).collect()
    }

    /// How often a rule decided.
    ///
    /// # Panics
    /// When no policy has a rule of that name.
    #[track_caller]
    pub fn attempts_of(&self, rule: &str) -> u64 {
        let mut rules = self.summary.policies.iter().flat_map(|policy| &policy.rules);
        let found = rules.find(|found| found.name == rule);
        found.unwrap_or_else(|| panic!("no rule {rule}")).attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type":"event","time":"2026-01-01T00:00:00.000000001Z","policy":"p","scope":"/x","scope_id":7,"generation":1,"mode":"enforce","verdict":"block","outcome":"blocked","reason":"rule","rule":"r","fault":null,"hook":"connect4","errno":"EPERM","pid":1,"tid":1,"uid":0,"gid":0,"comm":"c","executable":{"path":null,"device":1,"inode":2},"cgroup_id":7,"protocol":"tcp","destination":{"address":"198.51.100.1","port":443},"original":null,"foreign_socket":false,"socket_cookie":3,"repeats":0}"#;
    const SUMMARY: &str = r#"{"type":"summary","command":["c"],"exit":{"code":0,"signal":null},"duration_ms":1,"policies":[{"name":"p","mode":"enforce","generation":1,"rules":[{"name":"r","action":"block","attempts":3}],"default":{"action":"allow","attempts":0},"faults":0}],"outcomes":{"blocked":1},"lost":2,"repeats_untold":0}"#;

    #[test]
    fn events_gaps_and_the_summary_are_read() {
        let report = Report::parse(&format!(
            "{EVENT}\n{{\"type\":\"gap\",\"lost\":2,\"time\":\"x\"}}\n{SUMMARY}\n"
        ));
        assert_eq!(report.only_event().hook, "connect4");
        assert_eq!(report.events_to("198.51.100.1".parse().unwrap()).len(), 1);
        assert_eq!((report.gaps[0].lost, report.summary.lost), (2, 2));
        assert_eq!(report.attempts_of("r"), 3);
    }

    #[test]
    #[should_panic(expected = "no summary")]
    fn a_report_that_was_cut_off_is_noticed() {
        Report::parse(EVENT);
    }
}
