//! State that the address hooks record for the egress filter in strict scopes: the task that uses a socket, and
//! the destinations that were reported already.

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
    scope::SlotRef,
    socket_user::{MAX_SOCKET_ENTRIES, ReportedKey, SocketUser},
};

use crate::{
    evaluate::{PackedVerdict, evaluate},
    request::Request,
    scope, subject,
};

/// The users of sockets, by socket cookie.
#[btf_map]
static SOCKET_USERS: LruHashMap<u64, SocketUser, { MAX_SOCKET_ENTRIES as usize }> = LruHashMap::new();

/// The destinations that were reported, with the verdict ([`PackedVerdict::without_errno`]).
#[btf_map]
static REPORTED: LruHashMap<ReportedKey, u64, { MAX_SOCKET_ENTRIES as usize }> = LruHashMap::new();

/// The user of the socket with this cookie, if recorded.
#[inline(always)]
pub(crate) fn find(cookie: u64) -> Option<&'static SocketUser> {
    // SAFETY: a map value, which lives as long as the program runs (RCU). If it is replaced
    // meanwhile, the fields read may be of two users.
    unsafe { SOCKET_USERS.get(&cookie) }
}

/// Records the calling task as the user of the socket; a recorded user is kept unless `replace` is not zero.
/// A global function, so that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn record_user(context: *mut bpf_sock_addr, replace: u32) -> u32 {
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    if replace == 0 && find(cookie).is_some() {
        return 0;
    }
    let executable = subject::executable();
    let (pid_tgid, uid_gid) = (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid());
    let mut user = SocketUser {
        // SAFETY: a helper without arguments.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        executable_device: executable.device,
        executable_inode: executable.inode,
        comm: [0; 16],
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        uid: uid_gid as u32,
        gid: (uid_gid >> 32) as u32,
        foreign: scope::is_task_outside(scope::current()) as u64,
    };
    // SAFETY: the helper writes up to the 16 bytes given, and zeroes them when it fails.
    unsafe { bpf_get_current_comm(user.comm.as_mut_ptr().cast(), 16) };
    // If the insertion fails, packets of the socket are reported without a process.
    let _ = SOCKET_USERS.insert(&cookie, &user, 0);
    0
}

/// Evaluates a policy for a socket that has listened and is about to connect: a fault.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn evaluate_listened(reference: u32) -> u64 {
    evaluate(SlotRef(reference), |_, _, _, _| Err(Fault::HasListened)).word()
}

#[inline(always)]
fn reported_key<R: Request>(request: &R, cookie: u64, slot: u32) -> ReportedKey {
    let mut key = DedupKey::EMPTY;
    request.write_key(&mut key);
    ReportedKey {
        cookie,
        destination: key.destination,
        slot,
        port: key.port,
        protocol: key.protocol,
        family: key.family as u64,
    }
}

/// Records that a hook reported a destination and allowed it, so that the egress filter does not report the packets
/// again.
#[inline(always)]
pub(crate) fn record_reported<R: Request>(
    request: &R,
    cookie: u64,
    slot: u32,
    packed: PackedVerdict,
    outcome: u64,
) {
    let would_deny = outcome == Outcome::WouldBlock as u64 || outcome == Outcome::WouldKill as u64;
    if would_deny && scope::current().is_strict() {
        is_new(request, cookie, slot, packed);
    }
}

/// Whether this verdict was not yet reported for this destination of the socket; records it as reported.
#[inline(always)]
pub(crate) fn is_new<R: Request>(request: &R, cookie: u64, slot: u32, packed: PackedVerdict) -> bool {
    let key = reported_key(request, cookie, slot);
    let verdict = packed.without_errno();
    // SAFETY: a word of a map value, which lives as long as the program runs (RCU).
    if let Some(&before) = unsafe { REPORTED.get(&key) }
        && before == verdict
    {
        return false;
    }
    // If the insertion fails, it is reported again.
    let _ = REPORTED.insert(&key, &verdict, 0);
    true
}
