//! Reads the report of `tidegate exec --report` and the stream of `tidegate events`, in their documented form.

use std::{fs, net::IpAddr, path::Path};

use serde::Deserialize;

/// A whole report.
#[derive(Clone, Debug)]
pub struct Report {
    /// The events, in their order.
    pub events: Vec<Event>,
    /// The lost events, in their order.
    pub lost: Vec<Lost>,
    /// The last line.
    pub summary: Summary,
}

/// The verdict of one policy about one attempt.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// RFC 3339, UTC.
    pub time: String,
    /// Name of the policy.
    pub policy: Option<String>,
    /// Path of the cgroup that it is attached to.
    pub scope: Option<String>,
    /// Id of that cgroup.
    pub scope_id: u64,
    /// Generation of the policy.
    pub generation: u64,
    /// `enforce` or `audit`.
    pub mode: String,
    /// The action of the rule or of the default.
    pub verdict: String,
    /// What happened: `blocked`, `would_block`, ...
    pub outcome: String,
    /// `rule`, `default` or `fault`.
    pub reason: String,
    /// Name of the rule.
    pub rule: Option<String>,
    /// Why the attempt could not be evaluated.
    pub fault: Option<String>,
    /// The hook that reported it.
    pub hook: String,
    /// The errno that the caller saw.
    pub errno: Option<String>,
    /// Process id.
    pub pid: i32,
    /// Thread id.
    pub tid: i32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Name of the thread.
    pub comm: String,
    /// The executable.
    pub executable: Option<Executable>,
    /// Id of the calling task's cgroup.
    pub cgroup_id: u64,
    /// The path or abstract name of the unix socket.
    pub unix: Option<String>,
    /// Protocol.
    pub protocol: String,
    /// Canonical destination.
    pub destination: Option<Destination>,
    /// The destination that the caller passed, if it differs.
    pub original: Option<Destination>,
    /// The local address of the socket, if known.
    pub local_address: Option<Destination>,
    /// Whether the socket was created in another cgroup.
    pub foreign_socket: bool,
    /// Cookie of the socket.
    pub socket_cookie: u64,
    /// Suppressed duplicates before this event.
    pub repeats: u64,
}

/// A task migrated out of a cgroup with attached policies.
#[derive(Clone, Debug, Deserialize)]
pub struct CgroupMigration {
    /// RFC 3339, UTC.
    pub time: String,
    /// Path of the cgroup with the policies.
    pub scope: Option<String>,
    /// Id of that cgroup.
    pub scope_id: u64,
    /// Names of the policies.
    pub policies: Vec<Option<String>>,
    /// Path of the cgroup it was in.
    pub from: Option<String>,
    /// Id of that cgroup.
    pub from_id: u64,
    /// Path of the cgroup it is in now.
    pub to: Option<String>,
    /// Id of that cgroup.
    pub to_id: u64,
    /// Process id.
    pub pid: i32,
    /// Thread id.
    pub tid: i32,
    /// Name of the thread.
    pub comm: String,
    /// Whether the whole process migrated, not one thread.
    pub whole_process: bool,
    /// Whether it was created there by clone3(2) with CLONE_INTO_CGROUP.
    pub clone_into_cgroup: bool,
    /// The task that did it.
    pub migrated_by: MigratedBy,
}

/// The task that caused a migration.
#[derive(Clone, Debug, Deserialize)]
pub struct MigratedBy {
    /// Process id.
    pub pid: i32,
    /// Real user id.
    pub uid: u32,
    /// Name of the thread.
    pub comm: String,
}

/// An executable file.
#[derive(Clone, Debug, Deserialize)]
pub struct Executable {
    /// Its path, if known.
    pub path: Option<String>,
    /// Device id.
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

/// Events that were lost.
#[derive(Clone, Debug, Deserialize)]
pub struct Lost {
    /// How many.
    pub lost: u64,
    /// Why: `ring_full`.
    pub cause: String,
}

/// The last line.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The exit status of the command.
    pub exit: Exit,
    /// `full` or `partial`.
    pub enforcement: String,
    /// The requirements that were not met.
    pub unmet: Vec<Unmet>,
    /// The counters of each policy.
    pub policies: Vec<PolicySummary>,
    /// Events by outcome.
    pub outcomes: serde_json::Map<String, serde_json::Value>,
    /// Lost events in total.
    pub lost: u64,
    /// Suppressed duplicates that no event reports.
    pub suppressed_pending: u64,
}

/// A requirement of a policy that the kernel does not meet.
#[derive(Clone, Debug, Deserialize)]
pub struct Unmet {
    /// Name of the policy.
    pub policy: String,
    /// What is required.
    pub feature: String,
    /// Why it is not available.
    pub reason: String,
    /// What happens instead.
    pub effect: String,
}

/// The exit status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Exit {
    /// The exit code.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

/// The counters of a policy.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicySummary {
    /// Its name.
    pub name: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// The counters of its rules, in their order.
    pub rules: Vec<RuleSummary>,
    /// Attempts that no rule matched.
    pub default: DefaultSummary,
    /// Attempts that could not be evaluated.
    pub faults: u64,
}

/// The counter of a rule.
#[derive(Clone, Debug, Deserialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// Its action.
    pub action: String,
    /// Attempts that it decided.
    pub attempts: u64,
}

/// The counter of a policy's default.
#[derive(Clone, Debug, Deserialize)]
pub struct DefaultSummary {
    /// Its action.
    pub action: String,
    /// Attempts that it decided.
    pub attempts: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Event(Box<Event>),
    CgroupMigration(Box<CgroupMigration>),
    Lost(Lost),
    Summary(Summary),
}

impl Report {
    /// Reads a report file.
    ///
    /// # Panics
    /// When it does not have the documented form: one JSON document per line, and one summary as the last line.
    pub fn read(path: &Path) -> Report {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Report::parse(&text)
    }

    /// # Panics
    /// As [`Report::read`].
    pub fn parse(text: &str) -> Report {
        let (mut events, mut lost, mut end) = (Vec::new(), Vec::new(), None);
        for line in text.lines() {
            assert!(end.is_none(), "a line after the summary: {line}");
            match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
                Line::Event(event) => events.push(*event),
                Line::CgroupMigration(_) => panic!("a cgroup migration in a report of `exec`: {line}"),
                Line::Lost(gap) => lost.push(gap),
                Line::Summary(summary) => end = Some(summary),
            }
        }
        Report {
            events,
            lost,
            summary: end.unwrap_or_else(|| panic!("no summary in\n{text}")),
        }
    }

    /// Reads a stream of events, which has no summary. Cgroup migrations are skipped, see [`Report::migrations`].
    ///
    /// # Panics
    /// When a line is of another type.
    pub fn stream(text: &str) -> (Vec<Event>, Vec<Lost>) {
        let (mut events, mut lost) = (Vec::new(), Vec::new());
        for line in text.lines() {
            match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
                Line::Event(event) => events.push(*event),
                Line::CgroupMigration(_) => {}
                Line::Lost(gap) => lost.push(gap),
                Line::Summary(_) => panic!("a summary: {line}"),
            }
        }
        (events, lost)
    }

    /// Reads a stream that contains only cgroup migrations.
    ///
    /// # Panics
    /// When a line is of another type.
    #[track_caller]
    pub fn migrations(text: &str) -> Vec<CgroupMigration> {
        let read = |line: &str| match serde_json::from_str(line) {
            Ok(Line::CgroupMigration(found)) => *found,
            _ => panic!("not a cgroup migration: {line}"),
        };
        text.lines().map(read).collect()
    }

    /// The only event.
    ///
    /// # Panics
    /// When there are none, or several.
    #[track_caller]
    pub fn only_event(&self) -> &Event {
        assert_eq!(self.events.len(), 1, "one event, not {:#?}", self.events);
        &self.events[0]
    }

    /// The events with this destination.
    pub fn events_to(&self, address: IpAddr) -> Vec<&Event> {
        let about = |event: &&Event| event.destination.is_some_and(|to| to.address == address);
        self.events.iter().filter(about).collect()
    }

    /// The counter of a rule.
    ///
    /// # Panics
    /// When no policy has a rule with this name.
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

    const EVENT: &str = r#"{"schema_version":1,"type":"event","time":"2026-01-01T00:00:00.000000001Z","policy":"p","scope":"/x","scope_id":7,"generation":1,"mode":"enforce","verdict":"block","outcome":"blocked","reason":"rule","rule":"r","fault":null,"hook":"connect4","errno":"EPERM","pid":1,"tid":1,"uid":0,"gid":0,"comm":"c","executable":{"path":null,"device":1,"inode":2},"cgroup_id":7,"protocol":"tcp","destination":{"address":"198.51.100.1","port":443},"original":null,"foreign_socket":false,"socket_cookie":3,"repeats":0}"#;
    const SUMMARY: &str = r#"{"schema_version":1,"type":"summary","command":["c"],"exit":{"code":0,"signal":null},"duration_ms":1,"enforcement":"full","unmet":[],"policies":[{"name":"p","mode":"enforce","generation":1,"rules":[{"name":"r","action":"block","attempts":3}],"default":{"action":"allow","attempts":0},"faults":0}],"outcomes":{"blocked":1},"lost":2,"suppressed_pending":0}"#;

    #[test]
    fn all_line_types_are_read() {
        let report = Report::parse(&format!(
            "{EVENT}\n{{\"type\":\"lost\",\"lost\":2,\"cause\":\"ring_full\",\"time\":\"x\"}}\n{SUMMARY}\n"
        ));
        assert_eq!(report.only_event().hook, "connect4");
        assert_eq!(report.events_to("198.51.100.1".parse().unwrap()).len(), 1);
        assert_eq!((report.lost[0].lost, report.summary.lost), (2, 2));
        assert_eq!(report.attempts_of("r"), 3);
    }

    #[test]
    #[should_panic(expected = "no summary")]
    fn a_truncated_report_is_an_error() {
        Report::parse(EVENT);
    }
}
