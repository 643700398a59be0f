//! The floor: judges the packets that leave from sockets of a cgroup where a strict policy stands. What a
//! hook denied sends none; this meets what no hook saw: sockets connected before, source routes, headers
//! of raw sockets.
//!
//! A packet has no process: nothing here may ask for the current task, which is whoever the packet met
//! (softirq, a timer). And it counts for a rule only where the packet is dropped or reported.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use engine_common::{
    Action, Address, Attempt, ExecutableId, Fault, Hook, KillAbility, Mode, Outcome, Protocol, VerdictWord,
    decide,
    dedup::DedupKey,
    destination::{canonical_v4, canonical_v6},
    egress_filter::{MIN_WINDOW_NS, Owner},
    event::reason,
    image::{Header, Page},
    limits::MAX_STACKED,
    packet::{Bytes, Reading, UNREADABLE, read},
    scope::SlotRef,
    verifier::forget,
};

use crate::{
    dedup,
    enforce::{DENY, EPERM, NO_SLOT, PASS, PackedVerdict, dedup_window},
    images::LiveImage,
    report::{self, Caller, Report, ReportContext, report_by},
    request::{AddressRequest, Request},
    scope,
    sender::{kind, sender_kind},
    socket_user,
};

/// What of a packet a policy is asked about: bits, which travel in an answer's place for the errno.
mod aspect {
    /// The last destination of a source route; without, the packet's own.
    pub(super) const LAST: u64 = 1;
    /// As a packet of a raw socket; without, as what the packet says it is.
    pub(super) const RAW: u64 = 2;
}

/// Bits of the service that [`evaluate_packet`] takes, above protocol and port.
mod ask {
    /// The answer counts for its rule.
    pub(super) const COUNT: u64 = 1 << 40;
    /// The headers could not be read.
    pub(super) const FAULT: u64 = 1 << 41;
}

struct Skb(*mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn byte(&self, offset: u64) -> u64 {
        let mut byte = 0u8;
        // SAFETY: one byte of the stack; the helper checks the offset.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), offset as u32, (&raw mut byte).cast(), 1) };
        if failed == 0 { byte as u64 } else { UNREADABLE }
    }

    #[inline(always)]
    fn word(&self, offset: u64) -> u64 {
        let mut word = 0u32;
        // SAFETY: four bytes of the stack; the helper checks the offset.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), offset as u32, (&raw mut word).cast(), 4) };
        if failed == 0 {
            u32::from_be(word) as u64
        } else {
            UNREADABLE
        }
    }
}

/// Reads the headers. The packet starts at its network header (`__cgroup_bpf_run_filter_skb`).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn read_packet(context: *mut __sk_buff) -> u64 {
    read(&Skb(context), scope::current().cgroup).0
}

/// What is asked about one aspect of a packet; whether its addresses could be read.
#[inline(always)]
fn question_of(context: *mut __sk_buff, reading: Reading, of: u64) -> (AddressRequest, bool) {
    let at = if of & aspect::LAST != 0 {
        reading.last_destination()
    } else {
        reading.destination()
    };
    let mut original = [0u32; 4];
    let place = (&raw mut original).cast();
    // SAFETY: sixteen bytes of the stack, of which the helper writes all or four.
    let failed = unsafe {
        if reading.is_v6() {
            bpf_skb_load_bytes(context.cast(), at as u32, place, 16)
        } else {
            bpf_skb_load_bytes(context.cast(), at as u32, place, 4)
        }
    };
    let [a, b, c, d] = original;
    let half = |a: u32, b: u32| (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64;
    let canonical = if reading.is_v6() {
        canonical_v6(half(a, b), half(c, d))
    } else {
        canonical_v4(u32::from_be(a))
    };
    let (protocol, port) = if of & aspect::RAW != 0 {
        (Protocol::RAW, 0)
    } else {
        (Protocol(reading.protocol()), reading.port())
    };
    let port = forget(port as u64, reading.0) as u16;
    let original_family = if reading.is_v6() { 6 } else { 4 };
    let question = AddressRequest::about(original, original_family, canonical, port, protocol, reading.0);
    (question, failed == 0)
}

/// Asks a policy about a packet; a global function like [`crate::question`]'s. A policy that is not strict
/// allows all packets.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_packet(reference: u32, service: u64, high: u64, low: u64) -> u64 {
    let reference = SlotRef(reference);
    let no_image = PackedVerdict::fault(Fault::NoImage, reference.mode());
    let Some(slot) = reference.slot() else {
        return no_image.word();
    };
    let Some(image) = LiveImage::of(slot) else {
        return no_image.word();
    };
    let Some(page) = image.root() else {
        return no_image.word();
    };
    // SAFETY: a map value, which lives as long as the program runs (RCU).
    let root: &Page = unsafe { &*page };
    let header = Header(root);
    if !header.is_strict() {
        return 0;
    }
    let is_v4 = forget((high == 0 && low >> 32 == 0xffff) as u64, service);
    let (high, low) = (forget(high, service), forget(low, service));
    let address = if is_v4 != 0 {
        Address::V4(low as u32)
    } else {
        Address::V6 { high, low }
    };
    let verdict = if service & ask::FAULT != 0 {
        VerdictWord::of(Err(Fault::BadPacket))
    } else if header.needs_subject() {
        // No policy that is strict does: validation refuses it.
        VerdictWord::of(Err(Fault::NoExecutable))
    } else {
        let attempt = Attempt {
            address,
            port: service as u16,
            protocol: Protocol((service >> 16) as u16),
            uid: 0,
            executable: ExecutableId { device: 0, inode: 0 },
        };
        VerdictWord::of(decide(image, root, &attempt))
    };
    let verdict = VerdictWord(forget(verdict.0 as u64, root[0]) as u32);
    if service & ask::COUNT != 0 {
        image.count(page, verdict);
    }
    PackedVerdict::of(verdict, 0, header.life()).word()
}

/// Asks a policy about one aspect of a packet; the answer says which.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ask_aspect(context: *mut __sk_buff, reference: u32, reading: u64, of: u64) -> u64 {
    let reading = Reading(reading);
    let (question, is_read) = question_of(context, reading, of);
    let mut service = (question.protocol.0 as u64) << 16 | question.port as u64 | of & ask::COUNT;
    if reading.is_fault() || !is_read {
        service |= ask::FAULT;
    }
    let (high, low) = question.asked_as();
    PackedVerdict::from_word(evaluate_packet(reference, service, high, low))
        .with_errno(of as u16 & 3)
        .word()
}

/// The strictest of a policy's answers about a packet. Both destinations of a source route are asked
/// about. A packet of a raw socket is `raw`; only where no rule is about that, and the default would
/// answer, what the packet says it is counts too.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_packet_verdict(
    context: *mut __sk_buff,
    reference: u32,
    reading: u64,
    sender: u32,
) -> u64 {
    let routed = Reading(reading).is_routed();
    let unknown = scope::current().cgroup;
    let mut strictest = forget(0, unknown);
    let mut of = 0;
    while of < 2 {
        if of == aspect::LAST && !routed {
            break;
        }
        let mut settled = forget(0, unknown);
        if sender == kind::RAW {
            let answer = ask_aspect(context, reference, reading, of | aspect::RAW);
            strictest = forget(stricter(strictest, answer), unknown);
            let is_default = PackedVerdict::from_word(answer).verdict().reason() == reason::DEFAULT;
            settled = forget(!is_default as u64, unknown);
        }
        if settled == 0 {
            let answer = ask_aspect(context, reference, reading, of);
            strictest = forget(stricter(strictest, answer), unknown);
        }
        of += 1;
    }
    strictest
}

#[inline(always)]
fn stricter(one: u64, other: u64) -> u64 {
    // Bits 0 and 1 are the action, in the order of their strictness.
    if other & 3 > one & 3 || one == 0 {
        other
    } else {
        one
    }
}

/// Drops and reports as the policy's mode says; whether the packet is dropped. A global function like
/// those of the other hooks, and so are its two halves: together they are more than older verifiers (before 6.2) see
/// through cheaply.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_packet(context: *mut __sk_buff, slot: u32, reading: u64, answer: u64) -> u64 {
    let word = PackedVerdict::from_word(answer);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    let kill = match socket_user::owner(cookie) {
        Some(owner) if owner.foreign == 0 => KillAbility::Later,
        _ => KillAbility::NotOurs,
    };
    let unknown = scope::current().cgroup;
    let outcome = forget(
        Outcome::of(word.verdict().action(), word.life().mode, kill) as u64,
        unknown,
    );
    let mut repeats = forget(0, unknown);
    if outcome >= Outcome::Blocked as u64 {
        repeats = fold_packet(context, slot, reading, answer);
    }
    if repeats != dedup::FOLDED {
        tell_packet(context, slot as u64 | outcome << 32, reading, answer, repeats);
    }
    (outcome >= Outcome::Blocked as u64) as u64
}

/// What is said of a packet that is dropped, where repeats are counted.
#[inline(always)]
fn dedup_key(question: &AddressRequest, cookie: u64, slot: u32, answer: PackedVerdict) -> DedupKey {
    let mut key = DedupKey {
        scope: scope::current().cgroup,
        // A socket, in the place of an executable: no file has inode 0.
        executable_device: cookie,
        executable_inode: 0,
        destination: [0; 2],
        slot,
        port: 0,
        protocol: 0,
        verdict: answer.verdict().0 as u8,
        family: 0,
        original_family: 0,
        flags: 0,
        reserved: 0,
    };
    question.identify(&mut key);
    key
}

/// Counts a packet that is dropped: the repeats before it that are to be told, or [`dedup::FOLDED`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn fold_packet(context: *mut __sk_buff, slot: u32, reading: u64, answer: u64) -> u64 {
    let answer = PackedVerdict::from_word(answer);
    let (question, _) = question_of(context, Reading(reading), answer.errno() as u64);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    let key = dedup_key(&question, cookie, slot, answer);
    let window = dedup_window(slot, answer.verdict());
    let window = if window < MIN_WINDOW_NS {
        MIN_WINDOW_NS
    } else {
        window
    };
    dedup::take(&key, window, answer.reported_as()).attempts
}

/// Reports a packet; the number of the outcome is above the slot's.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tell_packet(
    context: *mut __sk_buff,
    slot_and_outcome: u64,
    reading: u64,
    answer: u64,
    repeats: u64,
) -> u64 {
    let (slot, outcome) = (slot_and_outcome as u32, slot_and_outcome >> 32);
    let answer = PackedVerdict::from_word(answer);
    let scope = scope::current();
    let life = answer.life();
    let (question, _) = question_of(context, Reading(reading), answer.errno() as u64);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    let repeats = dedup::Repeats::again(&dedup_key(&question, cookie, slot, answer), repeats);
    let owner = socket_user::owner(cookie);
    let caller = match owner {
        Some(owner) => Caller::Owner(owner),
        None => Caller::Nobody,
    };
    let place = ReportContext {
        hook: Hook::Egress as u8,
        slot,
        cookie,
    };
    let executable = ExecutableId {
        device: owner.map_or(0, |owner: &Owner| owner.executable_device),
        inode: owner.map_or(0, |owner: &Owner| owner.executable_inode),
    };
    let foreign = owner.is_some_and(|owner| owner.foreign != 0);
    let flags = report::flags(
        foreign,
        matches!(life.mode, Mode::Audit),
        executable,
        scope.cgroup,
    );
    let denied = outcome >= Outcome::Blocked as u64;
    report_by(
        &question,
        &place,
        &Report {
            scope: scope.cgroup,
            generation: life.generation,
            verdict: answer.verdict(),
            outcome: outcome as u8,
            errno: forget(if denied { EPERM as u64 } else { 0 }, scope.cgroup) as u16,
            executable,
            flags,
            repeats,
        },
        caller,
    );
    0
}

/// Whether a policy in audit mode has not reported this before.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn is_news(context: *mut __sk_buff, slot: u32, reading: u64, answer: u64) -> u64 {
    let answer = PackedVerdict::from_word(answer);
    if matches!(answer.life().mode, Mode::Enforce) {
        return 1;
    }
    let (question, _) = question_of(context, Reading(reading), answer.errno() as u64);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    socket_user::is_news(&question, cookie, slot, answer) as u64
}

/// Packets of IPv4 and IPv6 sockets on their way out (`ip_finish_output`, `ip6_finish_output`; Linux 4.10):
/// after address translation of this machine, before fragmentation.
#[cgroup_skb(egress)]
pub fn egress(context: SkBuffContext) -> i32 {
    let context = context.skb.skb;
    let scope = scope::current();
    let unknown = scope.cgroup;
    let reading = forget(read_packet(context), unknown);
    if unknown == 0 {
        enforce_packet(
            context,
            NO_SLOT,
            reading,
            PackedVerdict::fault(Fault::NoScope, Mode::Enforce).word(),
        );
        return DENY;
    }
    let sender = forget(sender_kind(context) as u64, unknown) as u32;
    if sender == kind::KERNEL {
        return PASS;
    }
    // Answers to whoever connected to us. With a source route of their own they would go elsewhere.
    if sender == kind::ACCEPTED && !Reading(reading).is_fault() && !Reading(reading).is_routed() {
        return PASS;
    }
    let mut denied = forget(0, unknown);
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        let answer = forget(
            evaluate_packet_verdict(context, reference.0, reading, sender),
            unknown,
        );
        if answer & 3 >= Action::Block as u64 && is_news(context, slot, reading, answer) != 0 {
            // Asked again, to be counted: by the version that answers now.
            let of = PackedVerdict::from_word(answer).errno() as u64 | ask::COUNT;
            let answer = ask_aspect(context, reference.0, reading, of);
            if answer & 3 >= Action::Block as u64 {
                denied = forget(denied | enforce_packet(context, slot, reading, answer), unknown);
            }
        }
        i += 1;
    }
    if denied != 0 { DENY } else { PASS }
}
