//! Events, migrations, losses and the summary as JSON, one object per line: the interface for programs that read
//! reports. Fields may be added, and neither renamed nor removed. 64-bit ids are JSON numbers; readers that convert
//! numbers to floating point lose their last digits.

use std::{borrow::Cow, fmt::Write as _, io, net::IpAddr, os::unix::ffi::OsStrExt};

use engine_common::{Action, Fault, Hook, Mode, Outcome, Reason};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::{
    escape::is_printable,
    loss::{LossCause, Lost},
    migration::NamedMigration,
    names::NamedEvent,
    summary::PolicyCounters,
    tally::Tally,
    target::Target,
};
use crate::host::{Enforcement, PolicyUnmet};

/// Version of the JSON documents: `schema_version` in each of them. It changes when a field is renamed or removed.
pub const SCHEMA_VERSION: u32 = 1;

/// An address and a port.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port; `null` for protocols without.
    pub port: Option<u16>,
}

/// The executable of a process.
#[derive(Clone, Debug, Serialize)]
pub struct Executable {
    /// Path in the process's root directory; `null` if the process had exited before it was looked
    /// up.
    pub path: Option<String>,
    /// Device in the kernel's encoding, `major << 20 | minor`.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// `{"type":"event",...}`: the verdict of one policy on one attempt.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "event")]
pub struct EventLine {
    schema_version: u32,
    time: String,
    policy: Option<String>,
    scope: Option<String>,
    scope_id: u64,
    generation: u64,
    mode: Mode,
    verdict: Action,
    outcome: Outcome,
    reason: ReasonName,
    rule: Option<String>,
    fault: Option<Fault>,
    hook: Hook,
    errno: Option<Cow<'static, str>>,
    pid: u32,
    tid: u32,
    uid: u32,
    gid: u32,
    comm: String,
    executable: Option<Executable>,
    cgroup_id: u64,
    protocol: String,
    destination: Option<Endpoint>,
    original: Option<Endpoint>,
    local_address: Option<Endpoint>,
    unix: Option<String>,
    foreign_socket: bool,
    socket_cookie: u64,
    repeats: u32,
}

/// What decided an attempt.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum ReasonName {
    Rule,
    Default,
    Fault,
}

impl EventLine {
    /// The line of an event.
    pub fn new(named: &NamedEvent<'_>) -> EventLine {
        let event = named.event;
        let endpoint = |address, port| Endpoint {
            address,
            port: event.protocol.has_ports().then_some(port),
        };
        let (destination, original) = match event.target {
            Target::Destination { address, port, .. } => (
                Some(endpoint(address, port)),
                event.target.original().map(|original| endpoint(original, port)),
            ),
            Target::Socket(_) | Target::Family(_) | Target::Unix { .. } => (None, None),
        };
        let (reason, fault) = match event.reason {
            Reason::Rule(_) => (ReasonName::Rule, None),
            Reason::Default => (ReasonName::Default, None),
            Reason::Fault(fault) => (ReasonName::Fault, Some(fault)),
        };
        EventLine {
            schema_version: SCHEMA_VERSION,
            time: time(named.time),
            policy: named.policy().map(str::to_owned),
            scope: named.scope().map(str::to_owned),
            scope_id: event.scope,
            generation: event.generation,
            mode: event.mode,
            verdict: event.verdict,
            outcome: event.outcome,
            reason,
            rule: named.rule().map(str::to_owned),
            fault,
            hook: event.hook,
            errno: event.errno_name(),
            pid: event.pid,
            tid: event.tid,
            uid: event.uid,
            gid: event.gid,
            comm: text(event.comm.as_bytes()),
            executable: event.executable.map(|id| Executable {
                path: named.executable().map(|path| text(path.as_os_str().as_bytes())),
                device: id.device,
                inode: id.inode,
            }),
            cgroup_id: event.cgroup,
            protocol: event.protocol.to_string(),
            destination,
            original,
            local_address: event
                .local_address
                .map(|local| endpoint(local.ip(), local.port())),
            unix: match event.target {
                Target::Unix { name, .. } => name.name().map(|name| text(&name)),
                _ => None,
            },
            foreign_socket: event.foreign_socket,
            socket_cookie: event.socket_cookie,
            repeats: event.repeats,
        }
    }
}

/// `{"type":"cgroup_migration",...}`: a process, or one of its threads, was migrated out of a cgroup with attached
/// policies, which no longer apply to it. One line for each such cgroup.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "cgroup_migration")]
pub struct MigrationLine {
    schema_version: u32,
    time: String,
    /// The cgroup that the policies are attached to.
    scope: Option<String>,
    scope_id: u64,
    /// The policies that no longer apply; `null` for one whose name is not known.
    policies: Vec<Option<String>>,
    /// Previous cgroup, `scope` or a descendant; `null` if it was removed.
    from: Option<String>,
    from_id: u64,
    /// New cgroup; `null` if it was removed.
    to: Option<String>,
    to_id: u64,
    pid: u32,
    tid: u32,
    comm: String,
    /// Whether the whole process was migrated, not only the thread `tid`.
    whole_process: bool,
    /// Whether it was created in the new cgroup (clone3 with CLONE_INTO_CGROUP).
    clone_into_cgroup: bool,
    migrated_by: MigratedByLine,
}

/// The task that migrated a process or created it in the new cgroup.
#[derive(Clone, Debug, Serialize)]
struct MigratedByLine {
    pid: u32,
    uid: u32,
    comm: String,
}

impl MigrationLine {
    /// The line of a migration.
    pub fn new(named: &NamedMigration<'_>) -> MigrationLine {
        let migration = named.migration;
        let names = named.policies().iter();
        MigrationLine {
            schema_version: SCHEMA_VERSION,
            time: time(named.time),
            scope: named.scope.clone(),
            scope_id: migration.scope,
            policies: names.map(|name| name.map(str::to_owned)).collect(),
            from: named.from.clone(),
            from_id: migration.from,
            to: named.to.clone(),
            to_id: migration.to,
            pid: migration.pid,
            tid: migration.tid,
            comm: text(migration.comm.as_bytes()),
            whole_process: migration.is_whole_process,
            clone_into_cgroup: migration.is_clone_into_cgroup,
            migrated_by: MigratedByLine {
                pid: migration.migrated_by.pid,
                uid: migration.migrated_by.uid,
                comm: text(migration.migrated_by.comm.as_bytes()),
            },
        }
    }
}

/// `{"type":"lost",...}`: records that were lost before the next line.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "lost")]
pub struct LostLine {
    schema_version: u32,
    time: String,
    lost: u64,
    cause: LossCause,
}

impl LostLine {
    /// The line of a loss.
    pub fn new(lost: &Lost) -> LostLine {
        LostLine {
            schema_version: SCHEMA_VERSION,
            time: time(lost.time),
            lost: lost.records,
            cause: lost.cause,
        }
    }
}

/// A JSON document on several lines, ending with a line feed; as safe for a terminal as [`line`].
pub fn document(value: &serde_json::Value) -> String {
    let mut safe = String::new();
    for c in format!("{value:#}\n").chars() {
        // Outside of strings all characters are printable.
        if c == '\n' || is_printable(c) {
            safe.push(c);
        } else {
            escape_into(&mut safe, c);
        }
    }
    safe
}

fn escape_into(text: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\u{unit:04x}");
    }
}

/// How a command ended: one of the fields is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that terminated it.
    pub signal: Option<i32>,
}

/// `{"type":"summary",...}`: the last line of a report.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub struct SummaryLine {
    schema_version: u32,
    command: Vec<String>,
    exit: Exit,
    duration_ms: u64,
    enforcement: Enforcement,
    unmet: Vec<PolicyUnmet>,
    policies: Vec<PolicyLine>,
    outcomes: Outcomes,
    lost: u64,
    suppressed_pending: u64,
}

#[derive(Clone, Debug, Serialize)]
struct PolicyLine {
    name: String,
    mode: Mode,
    generation: u64,
    rules: Vec<RuleLine>,
    default: DefaultLine,
    faults: u64,
}

#[derive(Clone, Debug, Serialize)]
struct RuleLine {
    name: String,
    action: Action,
    attempts: u64,
}

#[derive(Clone, Debug, Serialize)]
struct DefaultLine {
    action: Action,
    attempts: u64,
}

/// Number of outcomes: one per policy and attempt. `allowed` is from the kernel's counters, since allowed
/// attempts have no event; the others are from the events that were read, without those in `lost` and
/// `suppressed_pending`.
#[derive(Clone, Debug, Serialize)]
struct Outcomes {
    allowed: u64,
    audited: u64,
    would_block: u64,
    would_kill: u64,
    blocked: u64,
    killed: u64,
    kill_pending: u64,
}

impl SummaryLine {
    /// The summary of a command that has ended.
    pub fn new<'a>(
        command: impl IntoIterator<Item = &'a std::ffi::OsStr>,
        exit: Exit,
        duration: std::time::Duration,
        tally: &Tally,
        policies: &[PolicyCounters],
        unmet: &[PolicyUnmet],
    ) -> SummaryLine {
        SummaryLine {
            schema_version: SCHEMA_VERSION,
            command: command.into_iter().map(|word| text(word.as_bytes())).collect(),
            exit,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            enforcement: match unmet {
                [] => Enforcement::Full,
                _ => Enforcement::Partial,
            },
            unmet: unmet.to_vec(),
            policies: policies.iter().map(policy_line).collect(),
            outcomes: Outcomes {
                allowed: policies.iter().map(PolicyCounters::allowed).sum(),
                audited: tally.count(Outcome::Audited),
                would_block: tally.count(Outcome::WouldBlock),
                would_kill: tally.count(Outcome::WouldKill),
                blocked: tally.count(Outcome::Blocked),
                killed: tally.count(Outcome::Killed),
                kill_pending: tally.count(Outcome::KillPending),
            },
            lost: tally.lost(),
            suppressed_pending: tally.suppressed_pending(),
        }
    }
}

fn policy_line(counters: &PolicyCounters) -> PolicyLine {
    let (default, attempts) = counters.default;
    PolicyLine {
        name: counters.name.clone(),
        mode: counters.mode,
        generation: counters.generation,
        rules: counters
            .rules
            .iter()
            .map(|(name, action, attempts)| RuleLine {
                name: name.clone(),
                action: *action,
                attempts: *attempts,
            })
            .collect(),
        default: DefaultLine {
            action: default,
            attempts,
        },
        faults: counters.faults,
    }
}

/// RFC 3339, UTC, nanoseconds.
fn time(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// Bytes as text: UTF-8 is unchanged, any other byte becomes `\xff`.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

/// An object as one line of JSON, without line feed. Characters that are not printable
/// are written as `\u001b`: the same string for a JSON reader, and safe for a terminal.
///
/// # Errors
/// When the object cannot be represented in JSON, such as a map whose keys are not strings.
pub fn line(object: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, TerminalSafe);
    object.serialize(&mut serializer)?;
    // serde_json writes UTF-8 only.
    String::from_utf8(bytes).map_err(|error| serde_json::Error::io(io::Error::other(error)))
}

/// serde_json's compact form, with more characters escaped.
struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.chars().all(is_printable) {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        let mut safe = String::with_capacity(fragment.len() * 2);
        for c in fragment.chars() {
            if is_printable(c) {
                safe.push(c);
            } else {
                escape_into(&mut safe, c);
            }
        }
        writer.write_all(safe.as_bytes())
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
