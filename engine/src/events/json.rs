//! Events, moves, gaps and the summary as JSON, one object a line: the contract with programs that read
//! reports. Fields are only ever added. 64-bit ids are plain numbers; readers that keep numbers as
//! floating point lose their last digits.

use std::{borrow::Cow, fmt::Write as _, io, net::IpAddr, os::unix::ffi::OsStrExt};

use engine_common::{Mode, Outcome, Reason};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::{
    context::NamedEvent, escape::shows_as_itself, loss::Gap, migration::NamedMigration,
    protocol_name::protocol_name, summary::PolicyCounters, tally::Tally, target::Target,
};

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
    /// Its path as the process's root had it; `null` when the process was gone before it was looked
    /// up.
    pub path: Option<String>,
    /// Device in the kernel's encoding, `major << 20 | minor`.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// `{"type":"event",...}`: what one policy said about one attempt.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "event")]
pub struct EventLine {
    time: String,
    policy: Option<String>,
    scope: Option<String>,
    scope_id: u64,
    generation: u64,
    mode: &'static str,
    verdict: &'static str,
    outcome: String,
    reason: &'static str,
    rule: Option<String>,
    fault: Option<&'static str>,
    hook: &'static str,
    errno: Option<Cow<'static, str>>,
    pid: u32,
    tid: u32,
    uid: u32,
    gid: u32,
    comm: String,
    executable: Option<Executable>,
    cgroup_id: u64,
    protocol: Cow<'static, str>,
    destination: Option<Endpoint>,
    original: Option<Endpoint>,
    source: Option<Endpoint>,
    unix: Option<String>,
    foreign_socket: bool,
    socket_cookie: u64,
    repeats: u32,
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
                event
                    .target
                    .other_spelling()
                    .map(|original| endpoint(original, port)),
            ),
            Target::Socket(_) | Target::Family(_) | Target::Unix { .. } => (None, None),
        };
        let (reason, fault) = match event.reason {
            Reason::Rule(_) => ("rule", None),
            Reason::Default => ("default", None),
            Reason::Fault(fault) => ("fault", Some(fault.as_str())),
        };
        EventLine {
            time: time(named.time),
            policy: named.policy().map(str::to_owned),
            scope: named.scope().map(str::to_owned),
            scope_id: event.scope,
            generation: event.generation,
            mode: event.mode.as_str(),
            verdict: event.verdict.as_str(),
            outcome: key(event.outcome),
            reason,
            rule: named.rule().map(str::to_owned),
            fault,
            hook: event.hook.as_str(),
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
            protocol: protocol_name(event.protocol),
            destination,
            original,
            source: event.source.map(|source| endpoint(source.ip(), source.port())),
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

/// `{"type":"move",...}`: a process, or a thread of one, that has left a cgroup with policies and is under them no
/// longer. One line a cgroup that was left.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "move")]
pub struct MigrationLine {
    time: String,
    /// The cgroup that carries the policies.
    scope: Option<String>,
    scope_id: u64,
    /// The policies that were left; `null` for one whose name is not known.
    policies: Vec<Option<String>>,
    /// Where it was: `scope`, or a cgroup below; `null` for one that does not exist any more.
    from: Option<String>,
    from_id: u64,
    /// Where it is now.
    to: Option<String>,
    to_id: u64,
    pid: u32,
    tid: u32,
    comm: String,
    /// Whether the whole process left, or the thread `tid` alone.
    whole_process: bool,
    /// Whether it was made there (clone3 with CLONE_INTO_CGROUP), by a process that is inside, and not moved.
    born: bool,
    by: MigratedByLine,
}

/// Who moved a process, or made it.
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
            whole_process: migration.is_whole,
            born: migration.is_clone_into_cgroup,
            by: MigratedByLine {
                pid: migration.by.pid,
                uid: migration.by.uid,
                comm: text(migration.by.comm.as_bytes()),
            },
        }
    }
}

/// `{"type":"gap",...}`: records that were lost.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "gap")]
pub struct GapLine {
    lost: u64,
    time: String,
}

impl GapLine {
    /// The line of a gap.
    pub fn new(gap: &Gap) -> GapLine {
        GapLine {
            lost: gap.lost,
            time: time(gap.time),
        }
    }
}

/// A document for programs on several lines, ending with a line feed; as safe for a terminal as [`line`].
pub fn document(value: &serde_json::Value) -> String {
    let mut safe = String::new();
    for c in format!("{value:#}\n").chars() {
        // All that is not in a string shows as itself.
        if c == '\n' || shows_as_itself(c) {
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

/// How a command ended: one of the two is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

/// `{"type":"summary",...}`: the last line of a report.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub struct SummaryLine {
    command: Vec<String>,
    exit: Exit,
    duration_ms: u64,
    policies: Vec<PolicyLine>,
    outcomes: Outcomes,
    lost: u64,
    repeats_untold: u64,
}

#[derive(Clone, Debug, Serialize)]
struct PolicyLine {
    name: String,
    mode: &'static str,
    generation: u64,
    rules: Vec<RuleLine>,
    default: DefaultLine,
    faults: u64,
}

#[derive(Clone, Debug, Serialize)]
struct RuleLine {
    name: String,
    action: &'static str,
    attempts: u64,
}

#[derive(Clone, Debug, Serialize)]
struct DefaultLine {
    action: &'static str,
    attempts: u64,
}

/// Answers by outcome, one a policy an attempt. `allowed` is by the kernel's counters, for what is
/// allowed makes no event; the others are by the events that were read: `lost` and `repeats_untold` are
/// missing there.
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
    ) -> SummaryLine {
        SummaryLine {
            command: command.into_iter().map(|word| text(word.as_bytes())).collect(),
            exit,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
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
            repeats_untold: tally.pending(),
        }
    }
}

fn policy_line(counters: &PolicyCounters) -> PolicyLine {
    let (default, attempts) = counters.default;
    PolicyLine {
        name: counters.name.clone(),
        mode: Mode::as_str(counters.mode),
        generation: counters.generation,
        rules: counters
            .rules
            .iter()
            .map(|(name, action, attempts)| RuleLine {
                name: name.clone(),
                action: action.as_str(),
                attempts: *attempts,
            })
            .collect(),
        default: DefaultLine {
            action: default.as_str(),
            attempts,
        },
        faults: counters.faults,
    }
}

/// RFC 3339, UTC, nanoseconds.
fn time(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// The outcome as a key: `would_block`.
fn key(outcome: Outcome) -> String {
    outcome.as_str().replace(' ', "_")
}

/// Bytes as text: unchanged when they are UTF-8; otherwise every byte that is not becomes `\xff`.
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

/// An object as one line of JSON, without line feed. Characters that a terminal would act on
/// are written as `\u001b`: the same string to every JSON reader, and safe to look at.
///
/// # Errors
/// When the object cannot be JSON, such as a map with keys that are no text.
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
        if fragment.chars().all(shows_as_itself) {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        let mut safe = String::with_capacity(fragment.len() * 2);
        for c in fragment.chars() {
            if shows_as_itself(c) {
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
