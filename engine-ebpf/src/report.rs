//! Reports to user space.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    btf_maps::{Array, RingBuf},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns,
        generated::{bpf_get_current_comm, bpf_ringbuf_query},
    },
    macros::btf_map,
};
use core::{mem::offset_of, ptr::addr_of};
use engine_common::{
    ABI_VERSION, ExecutableId, Outcome, VerdictWord,
    egress_filter::Owner,
    event::{EventRecord, LocalAddressRecord, MigrationRecord, flag, loss},
    limits::EVENT_RING_BYTES,
    verifier::forget,
};

use crate::{
    counter::Counter,
    dedup::Repeats,
    features,
    request::{Recorded, Request, write_halves},
    subject,
};

/// The reports; user space may load it with another size.
#[btf_map]
static EVENTS: RingBuf<EventRecord, { EVENT_RING_BYTES as usize }> = RingBuf::new();

/// Reports that did not fit, a counter a cause.
#[btf_map]
static LOSSES: Array<u64, { loss::COUNT as usize }> = Array::new();

/// Where a policy was asked.
pub(crate) struct ReportContext {
    /// Number of the hook.
    pub(crate) hook: u8,
    /// Slot of the policy.
    pub(crate) slot: u32,
    /// The socket's cookie; 0 where it has none yet.
    pub(crate) cookie: u64,
}

/// What is reported beside question and place.
pub(crate) struct Report {
    pub(crate) scope: u64,
    pub(crate) generation: u64,
    pub(crate) verdict: VerdictWord,
    pub(crate) outcome: u8,
    pub(crate) errno: u16,
    pub(crate) executable: ExecutableId,
    /// Bits of [`flag`], but for those of the question.
    pub(crate) flags: u64,
    pub(crate) repeats: Repeats,
}

/// Who a record is about.
#[derive(Clone, Copy)]
pub(crate) enum Caller {
    /// The calling task.
    Current,
    /// Whoever was remembered as the one that uses the socket.
    Owner(&'static Owner),
    /// Nobody that is known.
    Nobody,
}

/// Writes a record about the calling task, or counts that it could not.
#[inline(always)]
pub(crate) fn report<Q: Request>(question: &Q, place: &ReportContext, what: &Report) {
    report_by(question, place, what, Caller::Current);
}

/// Writes a record, or counts that it could not.
#[inline(always)]
pub(crate) fn report_by<Q: Request>(question: &Q, place: &ReportContext, what: &Report, caller: Caller) {
    let losses = match LOSSES.get_ptr_mut(loss::RING_FULL) {
        // SAFETY: a value of an array map.
        Some(value) => unsafe { Counter::at(value) },
        None => return,
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<Q::Record>(0) else {
        losses.increment();
        return;
    };
    what.repeats.told();
    let attempts = forget(what.repeats.attempts() as u64, what.scope) as u32;
    // SAFETY: the reservation has the record's size and alignment. Every field is written below:
    // the ring hands out memory as the last record left it.
    let whole = unsafe { &mut *entry.as_mut_ptr() };
    let record = whole.report();
    // SAFETY: a helper without arguments.
    record.monotonic_ns = unsafe { bpf_ktime_get_ns() };
    write_caller(record, caller);
    record.generation = what.generation;
    record.scope = what.scope;
    record.lost = losses.get();
    record.socket_cookie = place.cookie;
    record.executable_device = what.executable.device;
    record.executable_inode = what.executable.inode;
    write_halves(&mut record.source, 0, 0);
    record.source_port = 0;
    question.describe(record);
    record.slot = place.slot;
    record.repeats = attempts;
    record.reason = what.verdict.reason();
    record.detail = what.verdict.detail();
    record.errno = what.errno;
    record.abi = ABI_VERSION as u16;
    record.hook = place.hook;
    record.verdict = what.verdict.0 as u8;
    record.outcome = what.outcome;
    record.flags = forget(what.flags | question.flags() as u64, what.scope) as u8;
    clear_reserved(&mut record.reserved);
    question.complete(whole);
    entry.submit(wake_up(what.outcome));
}

/// The bits of [`flag`] that answer and caller have. No branch of it is followed to the end of the program.
#[inline(always)]
pub(crate) fn flags(foreign: bool, audit_mode: bool, executable: ExecutableId, unknown: u64) -> u64 {
    let bit = |is_set: bool, bit: u8| forget(if is_set { bit as u64 } else { 0 }, unknown);
    bit(foreign, flag::FOREIGN_SOCKET)
        | bit(audit_mode, flag::AUDIT_MODE)
        | bit(!subject::is_known(executable), flag::NO_EXECUTABLE)
}

/// Writes the five zeroes at the end of a record: of an array the compiler makes a loop.
#[inline(always)]
fn clear_reserved(reserved: &mut [u8; 5]) {
    const { assert!(offset_of!(EventRecord, reserved) % 4 == 3) };
    let first = reserved.as_mut_ptr();
    // SAFETY: five bytes of a record, which is aligned to eight bytes; so the last four are aligned to four.
    unsafe {
        first.write_volatile(0);
        first.add(1).cast::<u32>().write_volatile(0);
    }
}

/// Writes cgroup, name and numbers of whoever it is.
#[inline(always)]
fn write_caller(record: &mut EventRecord, caller: Caller) {
    match caller {
        Caller::Current => {
            let pid_tgid = bpf_get_current_pid_tgid();
            let uid_gid = bpf_get_current_uid_gid();
            // SAFETY: the first helper has no arguments; the second one writes up to the 16 bytes given,
            // and zeroes them when it fails.
            unsafe {
                record.cgroup = bpf_get_current_cgroup_id();
                bpf_get_current_comm(record.comm.as_mut_ptr().cast(), 16);
            }
            record.pid = (pid_tgid >> 32) as u32;
            record.tid = pid_tgid as u32;
            record.uid = uid_gid as u32;
            record.gid = (uid_gid >> 32) as u32;
        }
        Caller::Owner(owner) => {
            record.cgroup = owner.cgroup;
            record.comm = owner.comm;
            record.pid = owner.pid;
            record.tid = owner.tid;
            record.uid = owner.uid;
            record.gid = owner.gid;
        }
        Caller::Nobody => {
            record.cgroup = 0;
            write_halves(&mut record.comm, 0, 0);
            record.pid = 0;
            record.tid = 0;
            record.uid = 0;
            record.gid = 0;
        }
    }
}

/// Writes a record that tells of a source. One that does not fit is not missed: its reports are told without.
#[inline(always)]
pub(crate) fn tell_source(write: impl FnOnce(&mut LocalAddressRecord)) {
    let Some(mut entry) = EVENTS.reserve_untyped::<LocalAddressRecord>(0) else {
        return;
    };
    // SAFETY: the reservation has the record's size and alignment, and the caller writes every field.
    write(unsafe { &mut *entry.as_mut_ptr() });
    entry.submit(if features::wake_each() != 0 {
        0
    } else {
        BPF_RB_NO_WAKEUP as u64
    });
}

/// Writes a record about a move, or counts that it could not. The closure is given the number of records lost so far.
#[inline(always)]
pub(crate) fn tell_move(write: impl FnOnce(&mut MigrationRecord, u64)) {
    let losses = match LOSSES.get_ptr_mut(loss::RING_FULL) {
        // SAFETY: a value of an array map.
        Some(value) => unsafe { Counter::at(value) },
        None => return,
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<MigrationRecord>(0) else {
        losses.increment();
        return;
    };
    // SAFETY: the reservation has the record's size and alignment, and the caller writes every field.
    write(unsafe { &mut *entry.as_mut_ptr() }, losses.get());
    entry.submit(0);
}

/// Whether the reader is to be woken: to wake it costs more than all the rest of a record. What is
/// still to be killed is told at once; what was denied, when the reader has read all before it (the
/// kernel's own rule); what was let through when a quarter of the ring is full, and otherwise when the reader
/// looks by itself ([`READER_PERIOD_MS`]).
///
/// [`READER_PERIOD_MS`]: engine_common::event::READER_PERIOD_MS
#[inline(always)]
fn wake_up(outcome: u8) -> u64 {
    if outcome == Outcome::KillPending as u8 {
        return BPF_RB_FORCE_WAKEUP as u64;
    }
    if outcome >= Outcome::Blocked as u8 || features::wake_each() != 0 {
        return 0;
    }
    let ask = |what: u32| {
        // SAFETY: the helper takes the address of a ring and a number.
        unsafe { bpf_ringbuf_query(addr_of!(EVENTS).cast_mut().cast(), what as u64) }
    };
    let waiting = ask(BPF_RB_AVAIL_DATA);
    let quarter = ask(BPF_RB_RING_SIZE) / 4;
    // For some records only: a reader that does not come is not called again and again.
    if waiting.wrapping_sub(quarter) < 16 * size_of::<EventRecord>() as u64 {
        BPF_RB_FORCE_WAKEUP as u64
    } else {
        BPF_RB_NO_WAKEUP as u64
    }
}
