//! Records for user space, written into the ring buffer.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    btf_maps::{Array, RingBuf},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_comm, bpf_ktime_get_boot_ns, bpf_ringbuf_query},
    },
    macros::btf_map,
};
use core::{mem::offset_of, ptr::addr_of};
use engine_common::{
    ABI_VERSION, ExecutableId, Outcome, VerdictWord,
    limits::EVENT_RING_BYTES,
    record::{
        AttemptRecord, LocalAddressRecord, MigrationRecord, RecordHeader, RecordKind, attempt_flag, loss,
    },
    socket_user::SocketUser,
    verifier::forget,
};

use crate::{
    counter::Counter,
    dedup::Duplicates,
    features,
    request::{AttemptFields, Request, write_halves},
    subject,
};

/// The ring buffer; user space may set another size when it loads the programs.
#[btf_map]
static EVENTS: RingBuf<AttemptRecord, { EVENT_RING_BYTES as usize }> = RingBuf::new();

/// Records that were lost, one counter per cause.
#[btf_map]
static LOSSES: Array<u64, { loss::COUNT as usize }> = Array::new();

/// The hook, policy and socket of a report.
pub(crate) struct ReportContext {
    /// Discriminant of the [`engine_common::Hook`].
    pub(crate) hook: u8,
    /// Slot of the policy.
    pub(crate) slot: u32,
    /// The socket's cookie; 0 if it has none yet.
    pub(crate) cookie: u64,
}

/// The verdict of a report and what was enforced.
pub(crate) struct Report {
    pub(crate) scope: u64,
    pub(crate) generation: u64,
    pub(crate) verdict: VerdictWord,
    pub(crate) outcome: u8,
    pub(crate) errno: u16,
    pub(crate) executable: ExecutableId,
    /// Bits of [`attempt_flag`], without those of the request.
    pub(crate) flags: u64,
    pub(crate) duplicates: Duplicates,
}

/// The task that a record names.
#[derive(Clone, Copy)]
pub(crate) enum Caller {
    /// The calling task.
    Current,
    /// The recorded user of the socket.
    SocketUser(&'static SocketUser),
    /// The task is not known.
    Unknown,
}

/// Writes a record about the calling task, or counts it as lost.
#[inline(always)]
pub(crate) fn report<R: Request>(request: &R, context: &ReportContext, report: &Report) {
    report_by(request, context, report, Caller::Current);
}

/// Writes a record, or counts it as lost.
#[inline(always)]
pub(crate) fn report_by<R: Request>(request: &R, context: &ReportContext, report: &Report, caller: Caller) {
    let losses = match LOSSES.get_ptr_mut(loss::RING_FULL) {
        // SAFETY: a value of an array map.
        Some(value) => unsafe { Counter::at(value) },
        None => return,
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<R::Record>(0) else {
        losses.increment();
        return;
    };
    report.duplicates.mark_reported();
    let duplicates = forget(report.duplicates.attempts() as u64, report.scope) as u32;
    // SAFETY: the reservation has the record's size and alignment. Every field is written below:
    // the reserved memory is not cleared.
    let whole = unsafe { &mut *entry.as_mut_ptr() };
    let record = whole.attempt();
    write_header::<R::Record>(&mut record.header, R::Record::KIND, losses, report.scope);
    write_caller(record, caller);
    record.generation = report.generation;
    record.socket_cookie = context.cookie;
    record.executable_device = report.executable.device;
    record.executable_inode = report.executable.inode;
    write_halves(&mut record.local_address, 0, 0);
    record.local_port = 0;
    request.write_destination(record);
    record.slot = context.slot;
    record.repeats = duplicates;
    record.reason = report.verdict.reason();
    record.detail = report.verdict.detail();
    record.errno = report.errno;
    record.hook = context.hook;
    record.verdict = report.verdict.0 as u8;
    record.outcome = report.outcome;
    record.flags = forget(report.flags | request.flags() as u64, report.scope) as u8;
    clear_reserved(&mut record.reserved);
    request.write_rest(whole);
    entry.submit(wake_up(report.outcome));
}

/// The bits of [`attempt_flag`] that depend on verdict and caller; unknown to the verifier, so that it does not explore the
/// rest for each combination.
#[inline(always)]
pub(crate) fn flags(foreign: bool, audit_mode: bool, executable: ExecutableId, unknown: u64) -> u64 {
    let bit = |is_set: bool, bit: u8| forget(if is_set { bit as u64 } else { 0 }, unknown);
    bit(foreign, attempt_flag::FOREIGN_SOCKET)
        | bit(audit_mode, attempt_flag::AUDIT_MODE)
        | bit(!subject::is_known(executable), attempt_flag::NO_EXECUTABLE)
}

/// Writes the header of a record of type `R`.
#[inline(always)]
fn write_header<R>(header: &mut RecordHeader, kind: RecordKind, losses: Counter, scope: u64) {
    header.kind = kind as u16;
    header.abi = ABI_VERSION as u16;
    header.length = size_of::<R>() as u32;
    header.lost = losses.get();
    // SAFETY: a helper without arguments.
    header.ktime_ns = unsafe { bpf_ktime_get_boot_ns() };
    header.scope = scope;
}

/// Clears the last seven bytes of a record; the compiler would generate a loop for the array.
#[inline(always)]
fn clear_reserved(reserved: &mut [u8; 7]) {
    const { assert!(offset_of!(AttemptRecord, reserved) % 8 == 1) };
    let first = reserved.as_mut_ptr();
    // SAFETY: the last seven bytes of a record that is aligned to eight bytes, so that the second is aligned to two
    // and the fourth to four.
    unsafe {
        first.write_volatile(0);
        first.add(1).cast::<u16>().write_volatile(0);
        first.add(3).cast::<u32>().write_volatile(0);
    }
}

/// Writes cgroup, name and ids of the caller.
#[inline(always)]
fn write_caller(record: &mut AttemptRecord, caller: Caller) {
    match caller {
        Caller::Current => {
            let pid_tgid = bpf_get_current_pid_tgid();
            let uid_gid = bpf_get_current_uid_gid();
            // SAFETY: the first helper has no arguments; the second one writes up to 16 bytes,
            // and zeroes them if it fails.
            unsafe {
                record.cgroup = bpf_get_current_cgroup_id();
                bpf_get_current_comm(record.comm.as_mut_ptr().cast(), 16);
            }
            record.pid = (pid_tgid >> 32) as u32;
            record.tid = pid_tgid as u32;
            record.uid = uid_gid as u32;
            record.gid = (uid_gid >> 32) as u32;
        }
        Caller::SocketUser(user) => {
            record.cgroup = user.cgroup;
            record.comm = user.comm;
            record.pid = user.pid;
            record.tid = user.tid;
            record.uid = user.uid;
            record.gid = user.gid;
        }
        Caller::Unknown => {
            record.cgroup = 0;
            write_halves(&mut record.comm, 0, 0);
            record.pid = 0;
            record.tid = 0;
            record.uid = 0;
            record.gid = 0;
        }
    }
}

/// Writes a record of a local address. One that does not fit is not counted as lost: its events have no local address.
#[inline(always)]
pub(crate) fn write_local_address(write: impl FnOnce(&mut LocalAddressRecord)) {
    let losses = match LOSSES.get_ptr_mut(loss::RING_FULL) {
        // SAFETY: a value of an array map.
        Some(value) => unsafe { Counter::at(value) },
        None => return,
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<LocalAddressRecord>(0) else {
        return;
    };
    // SAFETY: the reservation has the record's size and alignment; the header is written here and the caller writes
    // all other fields.
    let record: &mut LocalAddressRecord = unsafe { &mut *entry.as_mut_ptr() };
    // It belongs to the events with its key, of any scope.
    write_header::<LocalAddressRecord>(&mut record.header, RecordKind::LocalAddress, losses, 0);
    write(record);
    entry.submit(if features::wake_each() != 0 {
        0
    } else {
        BPF_RB_NO_WAKEUP as u64
    });
}

/// Writes a record of a migration out of a scope, or counts it as lost.
#[inline(always)]
pub(crate) fn write_migration(scope: u64, write: impl FnOnce(&mut MigrationRecord)) {
    let losses = match LOSSES.get_ptr_mut(loss::RING_FULL) {
        // SAFETY: a value of an array map.
        Some(value) => unsafe { Counter::at(value) },
        None => return,
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<MigrationRecord>(0) else {
        losses.increment();
        return;
    };
    // SAFETY: the reservation has the record's size and alignment; the header is written here and the caller writes
    // all other fields.
    let record: &mut MigrationRecord = unsafe { &mut *entry.as_mut_ptr() };
    write_header::<MigrationRecord>(&mut record.header, RecordKind::CgroupMigration, losses, scope);
    write(record);
    entry.submit(0);
}

/// Flags for `bpf_ringbuf_submit`: whether to wake the reader, which costs more than all the rest of a record. A
/// pending kill wakes it at once; a denied attempt if the reader has read all earlier records (the
/// kernel's default); an allowed attempt if a quarter of the ring is full, and otherwise the reader
/// polls ([`READER_PERIOD_MS`]).
///
/// [`READER_PERIOD_MS`]: engine_common::record::READER_PERIOD_MS
#[inline(always)]
fn wake_up(outcome: u8) -> u64 {
    if outcome == Outcome::KillPending as u8 {
        return BPF_RB_FORCE_WAKEUP as u64;
    }
    if outcome >= Outcome::Blocked as u8 || features::wake_each() != 0 {
        return 0;
    }
    let query = |flags: u32| {
        // SAFETY: the helper takes the address of a ring and an integer.
        unsafe { bpf_ringbuf_query(addr_of!(EVENTS).cast_mut().cast(), flags as u64) }
    };
    let waiting = query(BPF_RB_AVAIL_DATA);
    let quarter = query(BPF_RB_RING_SIZE) / 4;
    // Only for the first records beyond a quarter: a reader that does not react is not woken again and again.
    if waiting.wrapping_sub(quarter) < 16 * size_of::<AttemptRecord>() as u64 {
        BPF_RB_FORCE_WAKEUP as u64
    } else {
        BPF_RB_NO_WAKEUP as u64
    }
}
