//! The egress filter: checks the packets of sockets of a strict scope. It covers what no other hook checks: sockets
//! connected before the policy was attached, source routes, headers written to raw sockets.
//!
//! A packet has no process: nothing here may use the current task, which is any interrupted one
//! (softirq, timer). A rule's counter is incremented only if the packet is dropped or reported.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use engine_common::{
    Action, Address, Attempt, ExecutableId, Fault, Hook, KillAbility, Mode, Outcome, Protocol, Substitute,
    VerdictWord, decide,
    dedup::DedupKey,
    destination::canonical_v6,
    image::{Header, Page},
    limits::MAX_STACKED,
    packet::{Bytes, Reading, UNREADABLE, read},
    record::reason,
    scope::SlotRef,
    socket_user::{MIN_WINDOW_NS, SocketUser},
    verifier::forget,
};

use crate::{
    dedup,
    enforce::{DENY, NO_SLOT, PASS},
    evaluate::{EPERM, PackedVerdict},
    images::LiveImage,
    report::{self, Caller, Report, ReportContext, report_by},
    request::{AddressRequest, Request, from_argument},
    scope,
    sending_socket::{kind, sender_kind},
    socket_user,
};

/// The aspect of a packet that is evaluated: bits, passed in the errno's bits of a [`PackedVerdict`].
mod aspect {
    /// The last destination of a source route instead of the destination in the IP header.
    pub(super) const LAST: u64 = 1;
    /// The protocol [`Protocol::RAW`] instead of that of the packet.
    pub(super) const RAW: u64 = 2;
}

/// Bits of the argument `service` of [`evaluate_packet`], above protocol and port.
mod service_flag {
    /// Count the verdict.
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

/// Parses the headers. The packet starts at its network header (`__cgroup_bpf_run_filter_skb`).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn read_packet(context: *mut __sk_buff) -> u64 {
    read(&Skb(context), scope::current().cgroup).0
}

/// The request for one aspect of a packet, and whether its addresses could be read.
#[inline(always)]
fn request_for(context: *mut __sk_buff, reading: Reading, aspect: u64) -> (AddressRequest, bool) {
    let offset = if aspect & aspect::LAST != 0 {
        reading.last_destination()
    } else {
        reading.destination()
    };
    let mut original = [0u32; 4];
    let buffer = (&raw mut original).cast();
    // SAFETY: sixteen bytes of the stack, of which the helper writes all or four.
    let failed = unsafe {
        if reading.is_v6() {
            bpf_skb_load_bytes(context.cast(), offset as u32, buffer, 16)
        } else {
            bpf_skb_load_bytes(context.cast(), offset as u32, buffer, 4)
        }
    };
    let [a, b, c, d] = original;
    let half = |a: u32, b: u32| (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64;
    let canonical = if reading.is_v6() {
        canonical_v6(half(a, b), half(c, d))
    } else {
        Address::V4(u32::from_be(a))
    };
    let (protocol, port) = if aspect & aspect::RAW != 0 {
        (Protocol::RAW, 0)
    } else {
        (Protocol(reading.protocol()), reading.port())
    };
    let port = forget(port as u64, reading.0) as u16;
    let original_family = if reading.is_v6() { 6 } else { 4 };
    // A packet goes to the address that it has, also if that is 0.0.0.0.
    let request = AddressRequest::new(
        original,
        original_family,
        canonical,
        Substitute::NONE,
        port,
        protocol,
        reading.0,
    );
    (request, failed == 0)
}

/// Evaluates a policy for a packet; a global function, see [`PackedVerdict`]. A policy that is not strict
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
    let address = from_argument(high, low, service);
    let verdict = if service & service_flag::FAULT != 0 {
        VerdictWord::of(Err(Fault::BadPacket))
    } else if header.needs_subject() {
        // Validation rejects strict policies that select uid or executable.
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
    if service & service_flag::COUNT != 0 {
        image.count(page, verdict);
    }
    PackedVerdict::of(verdict, 0, header.revision()).word()
}

/// Evaluates a policy for one aspect of a packet; the result has the aspect in the bits of the errno.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn evaluate_aspect(context: *mut __sk_buff, reference: u32, reading: u64, aspect: u64) -> u64 {
    let reading = Reading(reading);
    let (request, is_read) = request_for(context, reading, aspect);
    let mut service = (request.protocol.0 as u64) << 16 | request.port as u64 | aspect & service_flag::COUNT;
    if reading.is_fault() || !is_read {
        service |= service_flag::FAULT;
    }
    let (high, low) = request.argument();
    PackedVerdict::from_word(evaluate_packet(reference, service, high, low))
        .with_errno(aspect as u16 & 3)
        .word()
}

/// The strictest verdict of a policy on a packet. Both destinations of a source route are evaluated.
/// A packet of a raw socket is evaluated with the protocol `raw`; if no rule matches it, and the default would
/// decide, also with the protocol of the packet.
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
    let mut aspect = 0;
    while aspect < 2 {
        if aspect == aspect::LAST && !routed {
            break;
        }
        let mut decided = forget(0, unknown);
        if sender == kind::RAW {
            let packed = evaluate_aspect(context, reference, reading, aspect | aspect::RAW);
            strictest = forget(stricter(strictest, packed), unknown);
            let is_default = PackedVerdict::from_word(packed).verdict().reason() == reason::DEFAULT;
            decided = forget(!is_default as u64, unknown);
        }
        if decided == 0 {
            let packed = evaluate_aspect(context, reference, reading, aspect);
            strictest = forget(stricter(strictest, packed), unknown);
        }
        aspect += 1;
    }
    strictest
}

#[inline(always)]
fn stricter(one: u64, other: u64) -> u64 {
    // Bits 0 and 1 are the action, ordered by strictness.
    if other & 3 > one & 3 || one == 0 {
        other
    } else {
        one
    }
}

/// Applies the policy's mode and reports; returns whether the packet is dropped. A global function like
/// those of the other hooks, and so are the two that it calls: verified as one function they exceed what verifiers
/// before 6.2 check cheaply.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn enforce_packet(context: *mut __sk_buff, slot: u32, reading: u64, packed: u64) -> u64 {
    let word = PackedVerdict::from_word(packed);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    let kill = match socket_user::find(cookie) {
        Some(user) if user.foreign == 0 => KillAbility::Later,
        _ => KillAbility::OutOfScope,
    };
    let unknown = scope::current().cgroup;
    let outcome = forget(
        Outcome::of(word.verdict().action(), word.revision().mode, kill) as u64,
        unknown,
    );
    let mut duplicates = forget(0, unknown);
    if outcome >= Outcome::Blocked as u64 {
        duplicates = dedup_packet(context, slot, reading, packed);
    }
    if duplicates != dedup::SUPPRESSED {
        report_packet(context, slot as u64 | outcome << 32, reading, packed, duplicates);
    }
    (outcome >= Outcome::Blocked as u64) as u64
}

/// The key of duplicate suppression for a dropped packet.
#[inline(always)]
fn dedup_key(request: &AddressRequest, cookie: u64, slot: u32, packed: PackedVerdict) -> DedupKey {
    let mut key = DedupKey {
        scope: scope::current().cgroup,
        // The socket instead of an executable: no file has inode 0.
        executable_device: cookie,
        slot,
        verdict: packed.verdict().0 as u8,
        ..DedupKey::EMPTY
    };
    request.write_key(&mut key);
    key
}

/// Records a dropped packet; returns the number of duplicates to report with it, or [`dedup::SUPPRESSED`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dedup_packet(context: *mut __sk_buff, slot: u32, reading: u64, packed: u64) -> u64 {
    let packed = PackedVerdict::from_word(packed);
    let (request, _) = request_for(context, Reading(reading), packed.errno() as u64);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    let key = dedup_key(&request, cookie, slot, packed);
    let window = dedup::window(slot, packed.verdict());
    let window = if window < MIN_WINDOW_NS {
        MIN_WINDOW_NS
    } else {
        window
    };
    dedup::record(&key, window, packed.without_errno()).attempts
}

/// Reports a packet. `slot_and_outcome`: bits 0 to 31 the slot, 32 to 63 the outcome. `duplicates` is the result of
/// [`dedup_packet`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn report_packet(
    context: *mut __sk_buff,
    slot_and_outcome: u64,
    reading: u64,
    packed: u64,
    duplicates: u64,
) -> u64 {
    let (slot, outcome) = (slot_and_outcome as u32, slot_and_outcome >> 32);
    let packed = PackedVerdict::from_word(packed);
    let scope = scope::current();
    let revision = packed.revision();
    let (request, _) = request_for(context, Reading(reading), packed.errno() as u64);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    let duplicates = dedup::Duplicates::again(&dedup_key(&request, cookie, slot, packed), duplicates);
    let user = socket_user::find(cookie);
    let caller = match user {
        Some(user) => Caller::SocketUser(user),
        None => Caller::Unknown,
    };
    let report_context = ReportContext {
        hook: Hook::Egress as u8,
        slot,
        cookie,
    };
    let executable = ExecutableId {
        device: user.map_or(0, |user: &SocketUser| user.executable_device),
        inode: user.map_or(0, |user: &SocketUser| user.executable_inode),
    };
    let foreign = user.is_some_and(|user| user.foreign != 0);
    let flags = report::flags(
        foreign,
        matches!(revision.mode, Mode::Audit),
        executable,
        scope.cgroup,
    );
    let denied = outcome >= Outcome::Blocked as u64;
    report_by(
        &request,
        &report_context,
        &Report {
            scope: scope.cgroup,
            generation: revision.generation,
            verdict: packed.verdict(),
            outcome: outcome as u8,
            errno: forget(if denied { EPERM as u64 } else { 0 }, scope.cgroup) as u16,
            executable,
            flags,
            duplicates,
        },
        caller,
    );
    0
}

/// Whether the verdict is to be enforced: in audit mode only if it was not reported for this destination before.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn is_new(context: *mut __sk_buff, slot: u32, reading: u64, packed: u64) -> u64 {
    let packed = PackedVerdict::from_word(packed);
    if matches!(packed.revision().mode, Mode::Enforce) {
        return 1;
    }
    let (request, _) = request_for(context, Reading(reading), packed.errno() as u64);
    // SAFETY: the helper takes this program's context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    socket_user::is_new(&request, cookie, slot, packed) as u64
}

/// Packets sent by IPv4 and IPv6 sockets (`ip_finish_output`, `ip6_finish_output`; Linux 4.10):
/// after NAT of this machine, before fragmentation.
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
    // Replies to the peer that connected. With a source route they could go elsewhere.
    if sender == kind::ACCEPTED && !Reading(reading).is_fault() && !Reading(reading).is_routed() {
        return PASS;
    }
    let mut denied = forget(0, unknown);
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        let packed = forget(
            evaluate_packet_verdict(context, reference.0, reading, sender),
            unknown,
        );
        if packed & 3 >= Action::Block as u64 && is_new(context, slot, reading, packed) != 0 {
            // Evaluated again to count the verdict, possibly by a newer version of the policy.
            let aspect = PackedVerdict::from_word(packed).errno() as u64 | service_flag::COUNT;
            let packed = evaluate_aspect(context, reference.0, reading, aspect);
            if packed & 3 >= Action::Block as u64 {
                denied = forget(denied | enforce_packet(context, slot, reading, packed), unknown);
            }
        }
        i += 1;
    }
    if denied != 0 { DENY } else { PASS }
}
