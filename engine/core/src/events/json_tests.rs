use std::{ffi::OsStr, os::unix::ffi::OsStrExt, time::Duration};

use engine_common::{Action, Protocol, record::reason};
use serde_json::{Value, json};

use super::*;
use crate::events::test_records::{comm, named, named_migration, v4};
use crate::host::{Feature, Unmet};

fn read(object: &impl Serialize) -> Value {
    serde_json::from_str(&line(object).unwrap()).unwrap()
}

#[test]
fn a_blocked_connect() {
    let value = named(|_| {}, |event| read(&EventLine::new(event)));
    assert_eq!(
        value,
        json!({
            "type": "event",
            "schema_version": 1,
            "time": "2026-01-02T12:00:01.123000000Z",
            "policy": "payments",
            "scope": "/tidegate-exec-1",
            "scope_id": 42,
            "generation": 1,
            "mode": "enforce",
            "verdict": "block",
            "outcome": "blocked",
            "reason": "rule",
            "rule": "metadata",
            "fault": null,
            "hook": "connect4",
            "errno": "EPERM",
            "pid": 1234,
            "tid": 1235,
            "uid": 1000,
            "gid": 100,
            "comm": "curl",
            "executable": {"path": "/usr/bin/curl", "device": 8388609, "inode": 1001},
            "cgroup_id": 43,
            "protocol": "tcp",
            "destination": {"address": "198.51.100.7", "port": 443},
            "original": null,
            "local_address": null,
            "unix": null,
            "foreign_socket": false,
            "socket_cookie": 77,
            "repeats": 0,
        })
    );
}

#[test]
fn a_migration() {
    let value = named_migration(|_| {}, |migration| read(&MigrationLine::new(migration)));
    assert_eq!(
        value,
        json!({
            "type": "cgroup_migration",
            "schema_version": 1,
            "time": "2026-01-02T12:00:01.123000000Z",
            "scope": "/tidegate-exec-1",
            "scope_id": 42,
            "policies": ["payments", null],
            "from": null,
            "from_id": 43,
            "to": "/other",
            "to_id": 7,
            "pid": 123,
            "tid": 123,
            "comm": "bash",
            "whole_process": true,
            "clone_into_cgroup": false,
            "migrated_by": {"pid": 1, "uid": 0, "comm": "systemd"},
        })
    );
    let value = named_migration(
        |r| (r.comm, r.flags) = (comm(b"\xff\x1b"), 3),
        |migration| read(&MigrationLine::new(migration)),
    );
    assert_eq!(value["comm"], "\\xff\u{1b}");
    assert_eq!(
        (&value["whole_process"], &value["clone_into_cgroup"]),
        (&json!(false), &json!(true))
    );
}

#[test]
fn fields_that_may_be_missing() {
    let value = named(
        |r| {
            (r.hook, r.family, r.protocol) = (4, 0, Protocol::RAW.0);
            (r.reason, r.detail, r.slot, r.header.scope) = (reason::FAULT, 2, 3, 1);
            (r.outcome, r.errno, r.executable_device, r.executable_inode) = (2, 0, 0, 0);
        },
        |event| read(&EventLine::new(event)),
    );
    for field in [
        "policy",
        "scope",
        "rule",
        "errno",
        "executable",
        "destination",
        "original",
    ] {
        assert_eq!(value[field], Value::Null, "{field}");
    }
    assert_eq!(value["outcome"], "would_block");
    assert_eq!(
        (&value["reason"], &value["fault"]),
        (&json!("fault"), &json!("no_page"))
    );
    assert_eq!(value["protocol"], "raw");

    let value = named(
        |r| {
            r.protocol = 1;
            r.destination = v4([127, 0, 0, 1]);
            r.original = v4([0, 0, 0, 0]);
            r.executable_inode = 5;
            r.reason = reason::DEFAULT;
        },
        |event| read(&EventLine::new(event)),
    );
    assert_eq!(
        value["destination"],
        json!({"address": "127.0.0.1", "port": null})
    );
    assert_eq!(value["original"], json!({"address": "0.0.0.0", "port": null}));
    assert_eq!(
        value["executable"],
        json!({"path": null, "device": 8388609, "inode": 5})
    );
    assert_eq!(
        (&value["reason"], &value["rule"]),
        (&json!("default"), &Value::Null)
    );
}

#[test]
fn text_is_preserved_and_printable() {
    for name in [
        "\x1b[2J",
        "a\u{202e}b",
        "\u{9b}1m",
        "q\"\\\n",
        "\u{e0041}",
        "\u{fc}",
    ] {
        let bytes = comm(name.as_bytes());
        let line = named(|r| r.comm = bytes, |event| line(&EventLine::new(event)).unwrap());
        assert!(line.chars().all(is_printable), "{line:?}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["comm"], name);
    }
    let value = named(
        |r| r.comm = comm(b"a\xff\xc3"),
        |event| read(&EventLine::new(event)),
    );
    assert_eq!(value["comm"], "a\\xff\\xc3");
}

#[test]
fn losses_and_the_summary() {
    let lost = Lost {
        records: 3,
        cause: LossCause::RingFull,
        time: Timestamp::UNIX_EPOCH,
    };
    assert_eq!(
        line(&LostLine::new(&lost)).unwrap(),
        r#"{"type":"lost","schema_version":1,"time":"1970-01-01T00:00:00.000000000Z","lost":3,"cause":"ring_full"}"#
    );

    let mut tally = Tally::default();
    named(|_| {}, |event| tally.add(event));
    tally.add_lost(3);
    tally.add_suppressed_pending(2);
    let policies = [PolicyCounters {
        name: "payments".into(),
        mode: Mode::Enforce,
        generation: 1,
        rules: vec![
            ("database".into(), Action::Allow, 7),
            ("metadata".into(), Action::Block, 4),
        ],
        default: (Action::Audit, 2),
        faults: 1,
    }];
    let unmet = [PolicyUnmet {
        policy: "payments".into(),
        unmet: Unmet {
            feature: Feature::Kill,
            reason: "too old".into(),
            effect: "later".into(),
        },
    }];
    let exit = Exit {
        code: Some(0),
        signal: None,
    };
    let command = [OsStr::new("curl"), OsStr::from_bytes(b"\xff")];
    let summary = SummaryLine::new(
        command,
        exit,
        Duration::from_millis(1500),
        &tally,
        &policies,
        &unmet,
    );
    assert_eq!(
        read(&summary),
        json!({
            "type": "summary",
            "schema_version": 1,
            "command": ["curl", "\\xff"],
            "exit": {"code": 0, "signal": null},
            "duration_ms": 1500,
            "enforcement": "partial",
            "unmet": [{"policy": "payments", "feature": "kill", "reason": "too old", "effect": "later"}],
            "policies": [{
                "name": "payments",
                "mode": "enforce",
                "generation": 1,
                "rules": [
                    {"name": "database", "action": "allow", "attempts": 7},
                    {"name": "metadata", "action": "block", "attempts": 4},
                ],
                "default": {"action": "audit", "attempts": 2},
                "faults": 1,
            }],
            "outcomes": {
                "allowed": 7, "audited": 0, "would_block": 0, "would_kill": 0,
                "blocked": 1, "killed": 0, "kill_pending": 0,
            },
            "lost": 3,
            "suppressed_pending": 2,
        })
    );
}
