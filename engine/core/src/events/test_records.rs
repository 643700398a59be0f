//! Sample records and names for tests.

use std::path::PathBuf;

use engine_common::{
    ABI_VERSION, Action, ExecutableId, Hook, Mode, Outcome, Protocol,
    record::{AttemptRecord, MigrationRecord, RecordHeader, RecordKind, reason},
    scope::SlotRef,
};
use jiff::Timestamp;

use super::{
    CgroupMigration, Context, Event, NamedEvent, NamedMigration, PolicyNames, Record, decode,
    record_bytes::{Encoding, encode},
};

/// A header of a record of type `R`.
pub(super) fn header<R>(kind: RecordKind) -> RecordHeader {
    RecordHeader {
        kind: kind as u16,
        abi: ABI_VERSION as u16,
        length: size_of::<R>() as u32,
        lost: 0,
        ktime_ns: 1_123_000_000,
        scope: 42,
    }
}

/// curl, blocked at connect4 to 198.51.100.7:443/tcp by the rule `metadata`.
pub(crate) fn record() -> AttemptRecord {
    AttemptRecord {
        header: header::<AttemptRecord>(RecordKind::Attempt),
        generation: 1,
        cgroup: 43,
        socket_cookie: 77,
        executable_device: 8 << 20 | 1,
        executable_inode: 1001,
        destination: v4([198, 51, 100, 7]),
        original: v4([198, 51, 100, 7]),
        local_address: [0; 16],
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
        local_port: 0,
        hook: Hook::Connect4 as u8,
        verdict: Action::Block as u8,
        outcome: Outcome::Blocked as u8,
        reason: reason::RULE,
        family: 4,
        original_family: 4,
        flags: 0,
        reserved: [0; 7],
    }
}

/// Decodes a record of an attempt.
pub(super) fn decoded(record: &impl Encoding) -> Event {
    match decode(&encode(record)) {
        Ok(Record::Attempt(event)) => *event,
        other => panic!("{other:?}"),
    }
}

/// The sample record, changed.
pub(super) fn event(change: impl FnOnce(&mut AttemptRecord)) -> Event {
    let mut record = record();
    change(&mut record);
    decoded(&record)
}

/// bash, migrated from a cgroup below 42 to 7 by systemd, out of the scope of `payments` and an unknown policy.
pub(super) fn migration_record() -> MigrationRecord {
    let mut slots = [SlotRef::NONE; 8];
    slots[..2].copy_from_slice(&[SlotRef::new(0, Mode::Enforce), SlotRef::new(5, Mode::Audit)]);
    MigrationRecord {
        header: header::<MigrationRecord>(RecordKind::CgroupMigration),
        from: 43,
        to: 7,
        comm: comm(b"bash"),
        migrated_by_comm: comm(b"systemd"),
        slots,
        pid: 123,
        tid: 123,
        migrated_by_pid: 1,
        migrated_by_uid: 0,
        flags: 0,
        reserved: [0; 7],
    }
}

/// The sample migration, changed.
pub(super) fn migration(change: impl FnOnce(&mut MigrationRecord)) -> CgroupMigration {
    let mut record = migration_record();
    change(&mut record);
    match decode(&encode(&record)) {
        Ok(Record::CgroupMigration(migration)) => *migration,
        other => panic!("{other:?}"),
    }
}

/// An IPv4 address as in records.
pub(super) fn v4(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address);
    bytes
}

/// A thread's name as in records.
pub(super) fn comm(name: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name);
    bytes
}

/// Names for the sample records.
pub(crate) type Names = Context<fn(u32, ExecutableId) -> Option<PathBuf>>;

/// The policy `payments` in slot 0, the cgroup 42, and curl.
pub(crate) fn context() -> Names {
    let find: fn(u32, ExecutableId) -> Option<PathBuf> =
        |_, id| (id.inode == 1001).then(|| PathBuf::from("/usr/bin/curl"));
    let mut context = Context::new(find).with_cgroups(|id| (id == 7).then(|| "/other".to_owned()));
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

/// Wall time of the sample records.
fn time() -> Timestamp {
    Timestamp::constant(1_767_355_201, 123_000_000)
}

/// Runs `with` on the sample migration, changed, with its names.
pub(super) fn named_migration<R>(
    change: impl FnOnce(&mut MigrationRecord),
    with: impl FnOnce(&NamedMigration<'_>) -> R,
) -> R {
    let migration = migration(change);
    with(&NamedMigration::new(&migration, time(), &context()))
}

/// Runs `with` on the sample event, changed, with its names.
pub(super) fn named<R>(
    change: impl FnOnce(&mut AttemptRecord),
    with: impl FnOnce(&NamedEvent<'_>) -> R,
) -> R {
    let event = event(change);
    with(&NamedEvent::new(&event, time(), &context()))
}
