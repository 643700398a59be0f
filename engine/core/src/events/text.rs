//! Events as lines of text. The lines have colours; an [`anstream`] stream removes them if the
//! terminal, NO_COLOR or `--color` require it.

use std::os::unix::ffi::OsStrExt;

use anstyle::{AnsiColor, Style};
use engine_common::Outcome;

use super::{
    escape::{escaped, word},
    event::Event,
    loss::{LossCause, Lost},
    migration::NamedMigration,
    names::NamedEvent,
};

/// The line of an event, without line feed. Times are UTC.
///
/// ```text
/// 12:00:01.123Z BLOCK curl[1234] uid=1000 -> 198.51.100.7:443/tcp  payments/metadata (errno=EPERM hook=connect4)
/// ```
///
/// Names that a process chose are escaped.
pub fn line(named: &NamedEvent<'_>) -> String {
    let event = named.event;
    let style = style_of(event.outcome);
    let dim = Style::new().dimmed();
    let time = named.time.strftime("%H:%M:%S%.3fZ");
    let mark = format!("{:<5}", mark(event.outcome));
    let mut line = format!("{dim}{time}{dim:#} {style}{mark}{style:#} {}", caller(event));

    // The process chooses the thread's name: the executable is added if it has another name.
    if let Some(path) = named.executable()
        && path.file_name().map(OsStrExt::as_bytes) != Some(event.comm.as_bytes())
    {
        line += &format!(" {}", word(path.as_os_str().as_bytes()));
    }
    if event.pid != 0 {
        line += &format!(" uid={}", event.uid);
    }
    if let Some(local) = event.local_address {
        line += &format!(" {local}");
    }
    line += &format!(" -> {}", event.target.display(event.protocol));
    if let Some(original) = event.target.original() {
        line += &format!(" as {original}");
    }
    line += &format!("  {}", escaped(named.decided_by().as_bytes()));

    let mut notes = Vec::new();
    if let Some(errno) = event.errno_name() {
        notes.push(format!("errno={errno}"));
    }
    notes.push(format!("hook={}", event.hook.as_str()));
    if event.foreign_socket {
        notes.push("foreign_socket".to_owned());
    }
    if event.repeats > 0 {
        notes.push(format!("repeats={}", event.repeats));
    }
    line += &format!(" {dim}({}){dim:#}", notes.join(" "));
    line
}

/// The thread and its process; for a packet without a known process, the socket.
fn caller(event: &Event) -> String {
    match event.pid {
        0 => format!("socket {}", event.socket_cookie),
        pid => format!("{}[{pid}]", word(event.comm.as_bytes())),
    }
}

/// The line of a migration, without line feed.
///
/// ```text
/// 12:00:01.123Z MIGRATED bash[123] from /shop.service to /other by systemd[1] uid=0  payments
/// ```
pub fn migration_line(named: &NamedMigration<'_>) -> String {
    let migration = named.migration;
    let style = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    let (dim, time) = (Style::new().dimmed(), named.time.strftime("%H:%M:%S%.3fZ"));
    let cgroup = |path: Option<&str>, id: u64| match path {
        Some(path) => word(path.as_bytes()).to_string(),
        None => format!("cgroup {id}"),
    };
    let by = migration.migrated_by;
    let mut line = format!(
        "{dim}{time}{dim:#} {style}MIGRATED{style:#} {}[{}] from {} to {} by {}[{}] uid={}  {}",
        word(migration.comm.as_bytes()),
        migration.pid,
        cgroup(named.scope.as_deref(), migration.scope),
        cgroup(named.to.as_deref(), migration.to),
        word(by.comm.as_bytes()),
        by.pid,
        by.uid,
        escaped(named.policy_list().as_bytes()),
    );
    let mut notes = Vec::new();
    if !migration.is_whole_process {
        notes.push(format!("thread={}", migration.tid));
    }
    if migration.is_clone_into_cgroup {
        notes.push("clone_into_cgroup".to_owned());
    }
    if !notes.is_empty() {
        line += &format!(" {dim}({}){dim:#}", notes.join(" "));
    }
    line
}

/// The line of a loss, without line feed.
///
/// ```text
/// 12:00:01.123Z LOST 3 events (ring buffer full); verdicts and counters are not affected
/// ```
pub fn lost_line(lost: &Lost) -> String {
    let style = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    let (dim, time) = (Style::new().dimmed(), lost.time.strftime("%H:%M:%S%.3fZ"));
    let events = if lost.records == 1 { "event" } else { "events" };
    let cause = match lost.cause {
        LossCause::RingFull => "ring buffer full",
    };
    format!(
        "{dim}{time}{dim:#} {style}LOST{style:#} {} {events} ({cause}); verdicts and counters are not affected",
        lost.records
    )
}

/// The text form of an outcome.
pub(super) fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "ALLOW",
        Outcome::Audited => "AUDIT",
        Outcome::WouldBlock => "WOULD-BLOCK",
        Outcome::WouldKill => "WOULD-KILL",
        Outcome::Blocked => "BLOCK",
        Outcome::Killed => "KILL",
        Outcome::KillPending => "KILL-PENDING",
    }
}

/// The colour of an outcome, in lines and tables.
pub(super) fn style_of(outcome: Outcome) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    match outcome {
        Outcome::Allowed => colour(AnsiColor::Green),
        Outcome::Audited => colour(AnsiColor::Cyan),
        Outcome::WouldBlock | Outcome::WouldKill => colour(AnsiColor::Yellow),
        Outcome::Blocked => colour(AnsiColor::Red),
        Outcome::Killed | Outcome::KillPending => colour(AnsiColor::Red).bold(),
    }
}

#[cfg(test)]
mod tests {
    use engine_common::{
        Protocol,
        record::{attempt_flag, migration_flag, reason},
    };
    use jiff::Timestamp;

    use super::*;
    use crate::events::test_records::{comm, named, named_migration, v4};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_blocked_connect() {
        assert_eq!(
            plain(&named(|_| {}, line)),
            "12:00:01.123Z BLOCK curl[1234] uid=1000 -> 198.51.100.7:443/tcp  payments/metadata \
             (errno=EPERM hook=connect4)"
        );
        assert!(named(|_| {}, line).contains("\x1b[31mBLOCK"));
    }

    #[test]
    fn migrations() {
        assert_eq!(
            plain(&named_migration(|_| {}, migration_line)),
            "12:00:01.123Z MIGRATED bash[123] from /tidegate-exec-1 to /other by systemd[1] uid=0  payments, slot 5"
        );
        let unusual = named_migration(
            |r| {
                r.comm = comm(b"\x1b[31ma b");
                (r.migrated_by_comm, r.migrated_by_pid, r.migrated_by_uid) = (comm(b"x] uid 7"), 9, 1000);
                (r.tid, r.to, r.header.scope) = (124, 8, 41);
                r.flags = migration_flag::ALL;
                r.slots[1] = r.slots[7];
            },
            migration_line,
        );
        assert_eq!(
            plain(&unusual),
            "12:00:01.123Z MIGRATED \"\\x1b[31ma b\"[123] from cgroup 41 to cgroup 8 by \"x] uid 7\"[9] uid=1000  \
             payments (thread=124 clone_into_cgroup)"
        );
    }

    #[test]
    fn other_kinds_of_events() {
        let lines = [
            named(
                |r| {
                    (r.family, r.destination) = (4, v4([198, 51, 100, 7]));
                    (r.original_family, r.original) = (
                        6,
                        "::ffff:198.51.100.7"
                            .parse::<std::net::Ipv6Addr>()
                            .unwrap()
                            .octets(),
                    );
                    (r.hook, r.outcome, r.verdict, r.errno) = (1, 1, 1, 0);
                    r.reason = reason::DEFAULT;
                    r.flags = attempt_flag::FOREIGN_SOCKET;
                },
                line,
            ),
            named(
                |r| {
                    (r.hook, r.family, r.protocol) = (4, 0, Protocol::RAW.0);
                    (r.outcome, r.verdict, r.errno, r.flags) = (3, 3, 0, attempt_flag::AUDIT_MODE);
                },
                line,
            ),
            named(
                |r| {
                    (r.family, r.original_family) = (6, 6);
                    r.destination = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
                    r.original = r.destination;
                    (r.hook, r.protocol, r.slot) = (3, Protocol::UDP.0, u32::MAX);
                    (r.reason, r.detail, r.outcome) = (reason::FAULT, 0, 6);
                    (r.executable_device, r.executable_inode) = (0, 0);
                },
                line,
            ),
            named(|r| (r.slot, r.detail) = (9, 4), line),
            named(
                |r| {
                    (r.hook, r.flags, r.socket_cookie) = (9, attempt_flag::NO_EXECUTABLE, 4711);
                    (r.pid, r.tid, r.uid, r.comm) = (0, 0, 0, comm(b""));
                },
                line,
            ),
        ];
        insta::assert_snapshot!(plain(&lines.join("\n")), @r#"
        12:00:01.123Z AUDIT curl[1234] uid=1000 -> 198.51.100.7:443/tcp as ::ffff:198.51.100.7  payments/(default) (hook=connect6 foreign_socket)
        12:00:01.123Z WOULD-KILL curl[1234] uid=1000 -> ipv4 socket/raw  payments/metadata (hook=sock_create)
        12:00:01.123Z KILL-PENDING curl[1234] uid=1000 -> [2001:db8::1]:443/udp  (no policy)/(fault: no scope) (errno=EPERM hook=sendmsg6)
        12:00:01.123Z BLOCK curl[1234] uid=1000 -> 198.51.100.7:443/tcp  slot 9/rule 5 (errno=EPERM hook=connect4)
        12:00:01.123Z BLOCK socket 4711 -> 198.51.100.7:443/tcp  payments/metadata (errno=EPERM hook=egress)
        "#);
    }

    #[test]
    fn a_process_name_cannot_imitate_a_line() {
        let line = named(|r| r.comm = comm(b"\x1b[2Jx] uid 0"), line);
        assert!(
            plain(&line).starts_with(r#"12:00:01.123Z BLOCK "\x1b[2Jx] uid 0"[1234] /usr/bin/curl uid=1000"#),
            "{line:?}"
        );
    }

    #[test]
    fn losses() {
        let lost = Lost {
            records: 12,
            cause: LossCause::RingFull,
            time: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(
            plain(&lost_line(&lost)),
            "00:00:00.000Z LOST 12 events (ring buffer full); verdicts and counters are not affected"
        );
    }
}
