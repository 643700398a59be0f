//! Unix sockets: only rules that name them apply. The programs are attached only while some policy has such
//! rules.

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::lsm, programs::LsmContext};
use engine_common::{
    Action, Hook, Protocol, UnixSocketId, decide_unix,
    dedup::DedupKey,
    limits::MAX_STACKED,
    record::{AttemptRecord, UnixRecord, reason},
    scope::SlotRef,
    unix_socket_id::{NameHash, UNIX_NAME_BYTES},
    verifier::forget,
};

use super::{
    arguments,
    evaluate::{denied, errno, is_denied, nearest_denial},
};
use crate::{
    enforce::{Denial, PolicyOwner, enforce},
    evaluate::{PackedVerdict, evaluate},
    features,
    kernel_memory::{field, read},
    report::ReportContext,
    request::{Request, write_halves},
    task_scope,
};

/// Words of four bytes in the longest component.
const COMPONENT_WORDS: u32 = (UnixSocketId::MAX_COMPONENT as u32).div_ceil(4);

/// A task connects to a socket of type stream or seqpacket (`unix_stream_connect`, net/unix/af_unix.c; Linux 5.7 for
/// LSM programs). The kernel has resolved the name to the other socket and locked it.
#[lsm(hook = "unix_stream_connect")]
pub fn lsm_unix_connect(context: LsmContext) -> i32 {
    let [own, other, _new, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    check(own, other, Hook::LsmUnixConnect)
}

/// A task sends a datagram or connects a datagram socket (`unix_dgram_sendmsg`, `unix_dgram_connect`). It is called for
/// every datagram, also of a connected socket.
#[lsm(hook = "unix_may_send")]
pub fn lsm_unix_send(context: LsmContext) -> i32 {
    let [own, other, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    let sock = |socket: u64| field::<u64>(socket, features::socket_sk());
    check(sock(own), sock(other), Hook::LsmUnixSend)
}

/// Checks an attempt against all scopes of the task and returns the value for the kernel. The nearest scope comes
/// first; its errno is returned.
#[inline(always)]
fn check(own: u64, other: u64, hook: Hook) -> i32 {
    let levels = task_scope::levels();
    // A socket that is not bound has no name: it is the other end of a socketpair(2).
    if levels == 0 || field::<u64>(other, features::unix_addr()) == 0 {
        return 0;
    }
    let denial = nearest_denial(levels, |level| check_unix_level(level, own, other, hook as u32));
    errno(denial, levels)
}

/// Checks an attempt against the task's scope at one depth; returns the [`Denial`]. A global function: the verifier
/// checks it once, not once per depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn check_unix_level(level: u32, own: u64, other: u64, hook: u32) -> u64 {
    let Some(scope) = task_scope::at_level(level & 0xff) else {
        return 0;
    };
    let unknown = scope.cgroup;
    let mut denial = Denial(forget(0, unknown));
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        if reference.is_for_unix() {
            let packed = PackedVerdict::from_word(evaluate_about_unix(other, reference.0));
            if !matches!(packed.verdict().action(), Action::Allow) {
                let origin = hook as u64 & 0xff | (slot as u64) << 32;
                let outcome = enforce_about_unix(own, other, origin, packed.word(), scope.cgroup);
                denial = Denial(forget(denial.joined(outcome as u8, packed.errno()).0, unknown));
            }
        }
        i += 1;
    }
    denial.0
}

/// Evaluates one policy, and counts the verdict only if a rule gave it; a global function, see [`PackedVerdict`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_about_unix(other: u64, reference: u32) -> u64 {
    let id = id_of(other);
    let reference = reference | SlotRef::ANY_ERRNO;
    let packed = PackedVerdict::from_word(evaluate_unix(
        reference | SlotRef::UNCOUNTED,
        id.device,
        id.name_hash,
    ));
    if packed.verdict().reason() == reason::DEFAULT {
        // No rule of this policy names the socket.
        return packed.word();
    }
    evaluate_unix(reference, id.device, id.name_hash)
}

/// Evaluates one policy for a socket's identity; a global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_unix(reference: u32, device: u64, name_hash: u64) -> u64 {
    evaluate(SlotRef(reference), |image, root, uid, executable| {
        decide_unix(image, root, UnixSocketId { device, name_hash }, uid, executable)
    })
    .word()
}

/// Enforces a verdict; a global function. `origin`: bits 0 to 7 the hook, 32 to 63 the slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_about_unix(own: u64, other: u64, origin: u64, packed: u64, scope: u64) -> u64 {
    let request = UnixRequest {
        other,
        id: id_of(other),
    };
    let report_context = ReportContext {
        hook: origin as u8,
        slot: (origin >> 32) as u32,
        cookie: field(own, features::sock_cookie()),
    };
    let owner = PolicyOwner::TaskCgroup {
        scope,
        foreign: false,
    };
    enforce(&request, &report_context, owner, PackedVerdict::from_word(packed))
}

/// A unix socket as destination.
struct UnixRequest {
    /// Address of its `sock`.
    other: u64,
    id: UnixSocketId,
}

impl Request for UnixRequest {
    type Record = UnixRecord;

    #[inline(always)]
    fn evaluate(&self, reference: SlotRef) -> PackedVerdict {
        PackedVerdict::from_word(evaluate_unix(reference.0, self.id.device, self.id.name_hash))
    }

    #[inline(always)]
    fn write_destination(&self, record: &mut AttemptRecord) {
        record.family = 0;
        write_halves(&mut record.destination, self.id.device, self.id.name_hash);
        write_halves(&mut record.original, 0, 0);
        record.original_family = 0;
        record.port = 0;
        record.protocol = Protocol::UNIX.0;
    }

    #[inline(always)]
    fn write_key(&self, key: &mut DedupKey) {
        key.destination = [self.id.device.to_be(), self.id.name_hash.to_be()];
        key.protocol = Protocol::UNIX.0;
    }

    #[inline(always)]
    fn write_rest(&self, record: &mut UnixRecord) {
        let address: u64 = field(self.other, features::unix_addr());
        let length = name_length(address);
        record.name_length = length;
        // The memory of a record is not cleared when it is reserved.
        let words = record.name.as_mut_ptr().cast::<u32>();
        const { assert!(core::mem::offset_of!(UnixRecord, name) % 4 == 0 && UNIX_NAME_BYTES % 4 == 0) };
        let mut i = 0;
        while i < UNIX_NAME_BYTES / 4 {
            // SAFETY: a word of the name, which is aligned to four bytes.
            unsafe { words.add(i).write_volatile(0) };
            i += 1;
        }
        let name = address.wrapping_add(features::unix_address_name() as u64 + 2);
        // SAFETY: the helper writes at most `length` bytes, and `name_length` is not larger than the name.
        unsafe { bpf_probe_read_kernel(record.name.as_mut_ptr().cast(), length, name as *const _) };
    }
}

/// Bytes of the name in a `unix_address`, without the family.
#[inline(always)]
fn name_length(address: u64) -> u32 {
    let length = field::<u32>(address, features::unix_address_len()).wrapping_sub(2);
    let length = if address == 0 { 0 } else { length };
    if length > UNIX_NAME_BYTES as u32 {
        UNIX_NAME_BYTES as u32
    } else {
        length
    }
}

/// Identity of a bound socket.
#[inline(always)]
fn id_of(other: u64) -> UnixSocketId {
    let dentry: u64 = field(other, features::unix_path() + features::path_dentry());
    let device = if dentry == 0 {
        UnixSocketId::ABSTRACT
    } else {
        field::<u32>(field(dentry, features::dentry_sb()), features::sb_dev()) as u64
    };
    UnixSocketId {
        device: forget(device, other),
        name_hash: hash_name(other, dentry),
    }
}

/// Hash of the name that a socket is bound to: the components from `dentry` up to the root, or an abstract name if
/// `dentry` is 0. A global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hash_name(other: u64, dentry: u64) -> u64 {
    let mut hash = NameHash::START.0;
    if dentry == 0 {
        let address: u64 = field(other, features::unix_addr());
        let length = name_length(address);
        let name = address.wrapping_add(features::unix_address_name() as u64 + 3);
        if length == 0 {
            return UnixSocketId::UNKNOWN;
        }
        return NameHash(hash_component(name, length - 1, hash)).finish();
    }
    let mut here = dentry;
    let mut depth = 0;
    // One more iteration, to find that the last component is below the root.
    while depth <= UnixSocketId::MAX_DEPTH {
        let parent: u64 = field(here, features::dentry_parent());
        if parent == here || parent == 0 {
            return NameHash(hash).finish();
        }
        let name: u64 = field(here, features::dentry_name() + features::qstr_name());
        let length: u32 = field(here, features::dentry_name() + features::qstr_len());
        hash = hash_component(name, length, hash);
        here = forget(parent, other);
        depth += 1;
    }
    UnixSocketId::UNKNOWN
}

/// Adds a component to the hash. A global function: the verifier checks it once, not once per component.
///
/// The loop reads whole words and has one exit: verifiers since 6.7 compare states in a loop exactly, so that with
/// a branch in it they would explore all combinations.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hash_component(name: u64, length: u32, hash: u64) -> u64 {
    let unknown = name;
    let mut hash = NameHash(hash);
    let mut at = name;
    let mut i = 0;
    while i < COMPONENT_WORDS {
        if i * 4 + 4 > length {
            break;
        }
        hash = NameHash(forget(hash.word(read(at)).0, unknown));
        at = forget(at.wrapping_add(4), unknown);
        i += 1;
    }
    // The last bytes one by one: the memory behind an abstract name may not be readable.
    let left = forget(length as u64, unknown) & 3;
    if left != 0 {
        let mut word = read::<u8>(at) as u32;
        if left > 1 {
            word |= (read::<u8>(at.wrapping_add(1)) as u32) << 8;
        }
        if left > 2 {
            word |= (read::<u8>(at.wrapping_add(2)) as u32) << 16;
        }
        hash = hash.word(word);
    }
    hash.end(length).0
}
