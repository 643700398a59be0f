//! Records and names for the tests of this room.

use std::path::PathBuf;

use engine_common::{
    ABI_VERSION, Action, ExecutableId, Hook, Mode, Outcome, Protocol,
    event::{EventRecord, MigrationRecord, reason},
    scope::SlotRef,
};
use jiff::Timestamp;

use super::{
    CgroupMigration, Clock, Context, Event, NamedEvent, NamedMigration, PolicyNames, Record, decode,
    decode_record,
    record_bytes::{encode, encode_migration},
};

/// curl, blocked at connect4 on its way to 198.51.100.7:443/tcp by the rule `metadata`.
pub(super) fn record() -> EventRecord {
    EventRecord {
        monotonic_ns: 1_123_000_000,
        generation: 1,
        scope: 42,
        cgroup: 43,
        lost: 0,
        socket_cookie: 77,
        executable_device: 8 << 20 | 1,
        executable_inode: 1001,
        destination: v4([198, 51, 100, 7]),
        original: v4([198, 51, 100, 7]),
        source: [0; 16],
        comm: comm(b"curl"),
        slot: 0,
        pid: 1234,
        tid: 1235,
        uid: 1000,
        gid: 100,
        repeats: 0,
        detail: 1,
        errno: 1,
        port: 443,
        protocol: Protocol::TCP.0,
        abi: ABI_VERSION as u16,
        source_port: 0,
        hook: Hook::Connect4 as u8,
        verdict: Action::Block as u8,
        outcome: Outcome::Blocked as u8,
        reason: reason::RULE,
        family: 4,
        original_family: 4,
        flags: 0,
        reserved: [0; 5],
    }
}

/// The sample record, changed.
pub(super) fn event(change: impl FnOnce(&mut EventRecord)) -> Event {
    let mut record = record();
    change(&mut record);
    decode(&encode(&record)).unwrap()
}

/// bash, moved from a cgroup below 42 to 7 by systemd, and so away from `payments` and from an unknown policy.
pub(super) fn migration_record() -> MigrationRecord {
    let mut slots = [SlotRef::NONE; 8];
    slots[..2].copy_from_slice(&[SlotRef::new(0, Mode::Enforce), SlotRef::new(5, Mode::Audit)]);
    MigrationRecord {
        monotonic_ns: 1_123_000_000,
        scope: 42,
        from: 43,
        to: 7,
        lost: 0,
        comm: comm(b"bash"),
        migrated_by_comm: comm(b"systemd"),
        slots,
        pid: 123,
        tid: 123,
        migrated_by_pid: 1,
        migrated_by_uid: 0,
        abi: ABI_VERSION as u16,
        flags: 0,
        reserved: [0; 5],
    }
}

/// The sample move, changed.
pub(super) fn migration(change: impl FnOnce(&mut MigrationRecord)) -> CgroupMigration {
    let mut record = migration_record();
    change(&mut record);
    match decode_record(&encode_migration(&record)) {
        Ok(Record::CgroupMigration(migration)) => *migration,
        other => panic!("{other:?}"),
    }
}

/// An IPv4 address as records hold it.
pub(super) fn v4(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address);
    bytes
}

/// A thread's name as records hold it.
pub(super) fn comm(name: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name);
    bytes
}

/// The policy `payments` in slot 0, the cgroup 42, and curl.
pub(super) fn context() -> Context<impl Fn(u32, ExecutableId) -> Option<PathBuf>> {
    let mut context = Context::new(|_, id| (id.inode == 1001).then(|| PathBuf::from("/usr/bin/curl")))
        .with_cgroups(|id| (id == 7).then(|| "/other".to_owned()));
    context.add_policy(
        0,
        1,
        PolicyNames {
            name: "payments".into(),
            rules: vec!["database".into(), "metadata".into()],
            source: "payments.yaml".into(),
            mode: Mode::Enforce,
        },
    );
    context.add_scope(42, "/tidegate-exec-1");
    context
}

/// Wall time at monotonic zero: noon.
pub(super) fn clock() -> Clock {
    Clock::with_origin("2026-01-02T12:00:00Z".parse::<Timestamp>().unwrap())
}

/// Runs `with` on the sample move, changed, with its names.
pub(super) fn named_migration<R>(
    change: impl FnOnce(&mut MigrationRecord),
    with: impl FnOnce(&NamedMigration<'_>) -> R,
) -> R {
    let migration = migration(change);
    with(&NamedMigration::new(&migration, &clock(), &context()))
}

/// Runs `with` on the sample event, changed, with its names.
pub(super) fn named<R>(change: impl FnOnce(&mut EventRecord), with: impl FnOnce(&NamedEvent<'_>) -> R) -> R {
    let event = event(change);
    with(&NamedEvent::new(&event, &clock(), &context()))
}
