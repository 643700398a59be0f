//! Unix sockets: judged by rules that name them, and by nothing else. Attached only while some policy has such
//! rules.

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::lsm, programs::LsmContext};
use engine_common::{
    Action, Hook, Protocol, UnixSocketId, decide_unix,
    dedup::DedupKey,
    event::{EventRecord, UnixRecord, reason},
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
    unix_socket_id::{NameHash, UNIX_NAME_BYTES},
    verifier::forget,
};

use super::{
    arguments,
    evaluate::{denied, errno, is_denied},
};
use crate::{
    enforce::{self, Denial, PackedVerdict, PolicyOwner, respond},
    features,
    kernel::{field, read},
    report::ReportContext,
    request::{Request, write_halves},
    task_scope,
};

/// Four bytes at a time.
const COMPONENT_WORDS: u32 = (UnixSocketId::MAX_COMPONENT as u32).div_ceil(4);

/// A task connects to a socket of type stream or seqpacket (`unix_stream_connect`, net/unix/af_unix.c; Linux 5.7 for
/// LSM programs). The other socket was found by then, whatever it was called, and is locked.
#[lsm(hook = "unix_stream_connect")]
pub fn lsm_unix_connect(context: LsmContext) -> i32 {
    let [own, other, _new, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    judge(own, other, Hook::LsmUnixConnect)
}

/// A task sends a datagram, or connects a socket to send some (`unix_dgram_sendmsg`, `unix_dgram_connect`): every
/// datagram comes here, over a connected socket too.
#[lsm(hook = "unix_may_send")]
pub fn lsm_unix_send(context: LsmContext) -> i32 {
    let [own, other, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    let sock = |socket: u64| field::<u64>(socket, features::socket_sk());
    judge(sock(own), sock(other), Hook::LsmUnixSend)
}

/// Judges an attempt by all scopes of the task, the nearest first, whose errno holds.
#[inline(always)]
fn judge(own: u64, other: u64, hook: Hook) -> i32 {
    let levels = task_scope::levels();
    // Who is not bound was not found by a name: the other end of a pair.
    if levels == 0 || field::<u64>(other, features::unix_addr()) == 0 {
        return 0;
    }
    let mut denial = 0;
    let mut level = Scope::LEVELS;
    while level > 0 {
        level -= 1;
        if levels >> level & 1 != 0 {
            let one = evaluate_unix_level(level, own, other, hook as u32);
            if denial == 0 {
                denial = one;
            }
        }
        denial = forget(denial, levels);
    }
    errno(denial, levels)
}

/// Judges an attempt by the scope of the task at one depth; the denial, or 0. A global function: checked once, and not
/// once a depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_unix_level(level: u32, own: u64, other: u64, hook: u32) -> u64 {
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
            let answer = PackedVerdict::from_word(evaluate_about_unix(other, reference.0));
            if !matches!(answer.verdict().action(), Action::Allow) {
                let place = hook as u64 & 0xff | (slot as u64) << 32;
                let outcome = enforce_about_unix(own, other, place, answer.word(), scope.cgroup);
                denial = Denial(forget(denial.joined(outcome as u8, answer.errno()).0, unknown));
            }
        }
        i += 1;
    }
    denial.0
}

/// Asks one policy, and counts what one of its rules answers; a global function, see [`PackedVerdict`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_about_unix(other: u64, reference: u32) -> u64 {
    let place = place_of(other);
    let reference = reference | SlotRef::ANY_ERRNO;
    let answer = PackedVerdict::from_word(evaluate_unix(
        reference | SlotRef::UNCOUNTED,
        place.space,
        place.name,
    ));
    if answer.verdict().reason() == reason::DEFAULT {
        // Not about this policy.
        return answer.word();
    }
    evaluate_unix(reference, place.space, place.name)
}

/// The question itself; a global function like the one before it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_unix(reference: u32, space: u64, name: u64) -> u64 {
    enforce::ask(SlotRef(reference), |image, root, uid, executable| {
        decide_unix(image, root, UnixSocketId { space, name }, uid, executable)
    })
    .word()
}

/// Reports and acts; a global function. `place`: bits 0 to 7 the hook, 32 to 63 the slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_about_unix(own: u64, other: u64, place: u64, answer: u64, scope: u64) -> u64 {
    let question = UnixRequest {
        other,
        place: place_of(other),
    };
    let place = ReportContext {
        hook: place as u8,
        slot: (place >> 32) as u32,
        cookie: field(own, features::sock_cookie()),
    };
    let side = PolicyOwner::TaskCgroup {
        scope,
        foreign: false,
    };
    respond(&question, &place, side, PackedVerdict::from_word(answer))
}

/// May this unix socket be reached?
struct UnixRequest {
    other: u64,
    place: UnixSocketId,
}

impl Request for UnixRequest {
    type Record = UnixRecord;

    #[inline(always)]
    fn ask(&self, reference: SlotRef) -> PackedVerdict {
        PackedVerdict::from_word(evaluate_unix(reference.0, self.place.space, self.place.name))
    }

    #[inline(always)]
    fn describe(&self, record: &mut EventRecord) {
        record.family = 0;
        write_halves(&mut record.destination, self.place.space, self.place.name);
        write_halves(&mut record.original, 0, 0);
        record.original_family = 0;
        record.port = 0;
        record.protocol = Protocol::UNIX.0;
    }

    #[inline(always)]
    fn identify(&self, key: &mut DedupKey) {
        key.destination = [self.place.space.to_be(), self.place.name.to_be()];
        key.protocol = Protocol::UNIX.0;
    }

    #[inline(always)]
    fn complete(&self, record: &mut UnixRecord) {
        let address: u64 = field(self.other, features::unix_addr());
        let length = name_length(address);
        record.length = length;
        // A record is as the last one in its place left it.
        let words = record.name.as_mut_ptr().cast::<u32>();
        const { assert!(core::mem::offset_of!(UnixRecord, name) % 4 == 0 && UNIX_NAME_BYTES % 4 == 0) };
        let mut i = 0;
        while i < UNIX_NAME_BYTES / 4 {
            // SAFETY: a word of the name, which is aligned to four bytes.
            unsafe { words.add(i).write_volatile(0) };
            i += 1;
        }
        let name = address.wrapping_add(features::unix_address_name() as u64 + 2);
        // SAFETY: the helper writes so many bytes at most, and the name has room for them: `name_length`.
        unsafe { bpf_probe_read_kernel(record.name.as_mut_ptr().cast(), length, name as *const _) };
    }
}

/// Bytes of the name in a `unix_address`: what follows its family.
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

/// Where a socket is bound.
#[inline(always)]
fn place_of(other: u64) -> UnixSocketId {
    let dentry: u64 = field(other, features::unix_path() + features::path_dentry());
    let space = if dentry == 0 {
        UnixSocketId::ABSTRACT
    } else {
        field::<u32>(field(dentry, features::dentry_sb()), features::sb_dev()) as u64
    };
    UnixSocketId {
        space: forget(space, other),
        name: hash_name(other, dentry),
    }
}

/// Hash of the name that a socket is bound to, going up from `dentry` where there is one. A global function.
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
    // One more, to see that there is nothing above.
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

/// With one component more. A global function: checked once, and not once a component.
///
/// The loop is over whole words and has one way out: with a branch in it, verifiers since 6.7 would follow all
/// combinations, since they compare states in a loop exactly.
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
    // The last bytes one by one: what is behind an abstract name may not be there.
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
