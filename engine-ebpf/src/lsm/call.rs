//! A call of an LSM hook, and the request for it.

use engine_common::{Hook, Protocol, SocketFamily, scope::SlotRef, verifier::forget};

use super::unspecified::substitute;
use crate::{
    enforce::{PolicyOwner, enforce},
    evaluate::PackedVerdict,
    features,
    kernel_memory::{field, read},
    report::ReportContext,
    request::{AddressRequest, Request, SocketRequest},
};

/// A call in one word, as an argument of global functions, which take only scalars: bits 0 to 7
/// the hook, 8 to 15 the length of the socket address, 16 to 31 the protocol, 32 to 39 the kind of
/// request, 40 whether the socket belongs to the same scope, 41 whether the call is denied already, 42 whether a cgroup
/// hook checks it too, 43 whether it has control messages, 48 to 63 the slot.
#[derive(Clone, Copy)]
pub(super) struct Call(pub(super) u64);

/// Kind: no destination, a socket of AF_INET.
pub(super) const SOCKET: u64 = 0;
/// Kind: no destination, a socket of any other family.
pub(super) const SOCKET6: u64 = 1;
/// Kind: the destination is a `sockaddr_in`.
pub(super) const NAME4: u64 = 2;
/// Kind: the destination is a `sockaddr_in6`.
pub(super) const NAME6: u64 = 3;
/// Kind: the destination is the peer of an IPv4 socket.
pub(super) const PEER4: u64 = 4;
/// Kind: the destination is the peer of an IPv6 socket.
pub(super) const PEER6: u64 = 5;

impl Call {
    #[inline(always)]
    pub(super) fn new(hook: Hook, length: u64, protocol: Protocol, kind: u64) -> Call {
        Call(hook as u64 | (length & 0xff) << 8 | (protocol.0 as u64) << 16 | kind << 32)
    }

    #[inline(always)]
    pub(super) fn hook(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    pub(super) fn protocol(self) -> Protocol {
        Protocol((self.0 >> 16) as u16)
    }

    #[inline(always)]
    pub(super) fn kind(self) -> u64 {
        self.0 >> 32 & 0xff
    }

    #[inline(always)]
    pub(super) fn is_address(self) -> bool {
        self.kind() >= NAME4
    }

    /// Whether the caller passed an address.
    #[inline(always)]
    pub(super) fn is_named(self) -> bool {
        matches!(self.kind(), NAME4 | NAME6)
    }

    /// The same call, marked as denied by some policy.
    #[inline(always)]
    pub(super) fn when_denied(self) -> Call {
        Call(self.0 | 1 << 41)
    }

    #[inline(always)]
    pub(super) fn is_denied(self) -> bool {
        self.0 >> 41 & 1 != 0
    }

    #[inline(always)]
    pub(super) fn with_slot(self, own: bool, by_cgroup_hook: bool, slot: u32) -> Call {
        Call(self.0 | (own as u64) << 40 | (by_cgroup_hook as u64) << 42 | (slot as u64) << 48)
    }

    /// Whether a cgroup hook runs for this call and evaluates the policy too.
    #[inline(always)]
    pub(super) fn is_for_cgroup_hook(self) -> bool {
        self.0 >> 42 & 1 != 0
    }

    /// The same call, with control messages if `length` is not zero; `unknown` as for [`forget`].
    #[inline(always)]
    pub(super) fn with_control(self, length: u64, unknown: u64) -> Call {
        Call(self.0 | forget((length != 0) as u64, unknown) << 43)
    }

    /// Whether control messages may choose the source address or the device.
    #[inline(always)]
    pub(super) fn has_control(self) -> bool {
        // TCP ignores those.
        self.0 >> 43 & 1 != 0 && self.protocol().0 != Protocol::TCP.0
    }

    #[inline(always)]
    pub(super) fn is_own(self) -> bool {
        self.0 >> 40 & 1 != 0
    }

    #[inline(always)]
    pub(super) fn slot(self) -> u32 {
        (self.0 >> 48) as u32
    }
}

/// Kind: the call needs no evaluation.
pub(super) const NOTHING: u64 = 255;

/// The destination of a call, read from kernel memory. Each global function reads it again, since it cannot be
/// passed.
#[inline(always)]
fn address_request(socket: u64, name: u64, call: Call) -> AddressRequest {
    let kind = call.kind();
    // Addresses of address and port, with one read of each for all kinds.
    let (mut address, mut port) = (name.wrapping_add(4), name.wrapping_add(2));
    if kind == NAME6 {
        address = name.wrapping_add(8);
    } else if kind == PEER4 {
        address = socket.wrapping_add(features::sock_peer_v4() as u64);
        port = socket.wrapping_add(features::sock_peer_port() as u64);
    } else if kind == PEER6 {
        address = socket.wrapping_add(features::sock_peer_v6() as u64);
        port = socket.wrapping_add(features::sock_peer_port() as u64);
    }
    let port = u16::from_be(read(forget(port, socket)));
    AddressRequest::read(
        forget(address, socket),
        kind & 1,
        port,
        call.protocol(),
        |canonical| substitute(socket, call, canonical),
        socket,
    )
}

#[inline(always)]
fn socket_request(call: Call) -> SocketRequest {
    SocketRequest {
        family: if call.kind() == SOCKET {
            SocketFamily::Inet
        } else {
            SocketFamily::Inet6
        },
        protocol: call.protocol(),
    }
}

/// Evaluates one policy; a global function, see [`PackedVerdict`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn evaluate_for_task(socket: u64, name: u64, call: u64, reference: u32) -> u64 {
    let call = Call(call);
    let packed = if call.is_address() {
        let request = address_request(socket, name, call);
        if request.substitute.is_some() && call.is_for_cgroup_hook() && call.has_control() {
            // Only the cgroup hook knows the source address, and enforces the verdict.
            return 0;
        }
        request.evaluate(SlotRef(reference))
    } else {
        socket_request(call).evaluate(SlotRef(reference))
    };
    packed.word()
}

/// Evaluates one policy for a call without an address.
#[inline(always)]
pub(super) fn evaluate_about_socket(call: u64, reference: u32) -> u64 {
    socket_request(Call(call)).evaluate(SlotRef(reference)).word()
}

#[inline(always)]
fn report_context(socket: u64, call: Call) -> ReportContext {
    ReportContext {
        hook: call.hook(),
        slot: call.slot(),
        cookie: field(socket, features::sock_cookie()),
    }
}

#[inline(always)]
fn owner(call: Call, scope: u64) -> PolicyOwner {
    PolicyOwner::TaskCgroup {
        scope,
        foreign: !call.is_own(),
    }
}

/// Enforces a verdict about a destination; a global function.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn enforce_about_address(
    socket: u64,
    name: u64,
    call: u64,
    packed: u64,
    scope: u64,
) -> u64 {
    let call = Call(call);
    let request = address_request(socket, name, call);
    enforce(
        &request,
        &report_context(socket, call),
        owner(call, scope),
        PackedVerdict::from_word(packed),
    )
}

/// Enforces a verdict about a socket without destination; a global function.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn enforce_about_socket(socket: u64, call: u64, packed: u64, scope: u64) -> u64 {
    let call = Call(call);
    let request = socket_request(call);
    enforce(
        &request,
        &report_context(socket, call),
        owner(call, scope),
        PackedVerdict::from_word(packed),
    )
}
