//! What the address hooks remember for the floor ([`crate::egress`]), where a strict policy stands: who
//! uses a socket, and what was reported of it already.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    btf_maps::LruHashMap,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_comm, bpf_get_socket_cookie},
    },
    macros::btf_map,
};
use engine_common::{
    Fault, Outcome,
    dedup::DedupKey,
    egress_filter::{MAX_REMEMBERED, Owner, ReportedKey},
    scope::SlotRef,
};

use crate::{
    enforce::{self, PackedVerdict},
    request::Request,
    scope, subject,
};

/// By a socket's cookie.
#[btf_map]
static OWNERS: LruHashMap<u64, Owner, { MAX_REMEMBERED as usize }> = LruHashMap::new();

/// What was reported, and as what ([`PackedVerdict::reported_as`]).
#[btf_map]
static TOLD: LruHashMap<ReportedKey, u64, { MAX_REMEMBERED as usize }> = LruHashMap::new();

/// Who uses the socket of this cookie, if that is known.
#[inline(always)]
pub(crate) fn owner(cookie: u64) -> Option<&'static Owner> {
    // SAFETY: a value of the map, which lives as long as the program runs (RCU). One that is replaced
    // meanwhile reads as a mixture of two owners of the socket.
    unsafe { OWNERS.get(&cookie) }
}

/// Remembers the calling task as the one that uses the socket; one that was remembered stays, unless it
/// is to be replaced. A global function, so that the verifier follows it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn remember_owner(context: *mut bpf_sock_addr, replace: u32) -> u32 {
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    if replace == 0 && owner(cookie).is_some() {
        return 0;
    }
    let executable = subject::executable();
    let (pid_tgid, uid_gid) = (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid());
    let mut owner = Owner {
        // SAFETY: a helper without arguments.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        executable_device: executable.device,
        executable_inode: executable.inode,
        comm: [0; 16],
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        uid: uid_gid as u32,
        gid: (uid_gid >> 32) as u32,
        foreign: enforce::is_foreign(scope::current()) as u64,
    };
    // SAFETY: the helper writes up to the 16 bytes given, and zeroes them when it fails.
    unsafe { bpf_get_current_comm(owner.comm.as_mut_ptr().cast(), 16) };
    // Where there is no room, packets of the socket are reported without a process.
    let _ = OWNERS.insert(&cookie, &owner, 0);
    0
}

/// Asks a policy about a socket that has listened and is to connect: a fault.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn evaluate_listened(reference: u32) -> u64 {
    enforce::ask(SlotRef(reference), |_, _, _, _| Err(Fault::HasListened)).word()
}

#[inline(always)]
fn reported_key<Q: Request>(question: &Q, cookie: u64, slot: u32) -> ReportedKey {
    let mut fold = DedupKey {
        scope: 0,
        executable_device: 0,
        executable_inode: 0,
        destination: [0; 2],
        slot,
        port: 0,
        protocol: 0,
        verdict: 0,
        family: 0,
        original_family: 0,
        flags: 0,
        reserved: 0,
    };
    question.identify(&mut fold);
    ReportedKey {
        cookie,
        destination: fold.destination,
        slot,
        port: fold.port,
        protocol: fold.protocol,
        family: fold.family as u64,
    }
}

/// Remembers what a hook reported and let through: the packets that follow are no news.
#[inline(always)]
pub(crate) fn reported<Q: Request>(
    question: &Q,
    cookie: u64,
    slot: u32,
    answer: PackedVerdict,
    outcome: u64,
) {
    let would_deny = outcome == Outcome::WouldBlock as u64 || outcome == Outcome::WouldKill as u64;
    if would_deny && scope::current().is_strict() {
        is_news(question, cookie, slot, answer);
    }
}

/// Whether this was not reported before; it counts as reported from now on.
#[inline(always)]
pub(crate) fn is_news<Q: Request>(question: &Q, cookie: u64, slot: u32, answer: PackedVerdict) -> bool {
    let key = reported_key(question, cookie, slot);
    let reported_as = answer.reported_as();
    // SAFETY: a word of a value of the map, which lives as long as the program runs (RCU).
    if let Some(&before) = unsafe { TOLD.get(&key) }
        && before == reported_as
    {
        return false;
    }
    // Where there is no room it is reported again.
    let _ = TOLD.insert(&key, &reported_as, 0);
    true
}
