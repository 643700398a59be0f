//! What an LSM hook was called with, and what policies are asked about it.

use engine_common::{Hook, Protocol, SocketFamily, scope::SlotRef, verifier::forget};

use crate::{
    enforce::{PackedVerdict, PolicyOwner, respond},
    features,
    kernel::{field, read},
    report::ReportContext,
    request::{AddressRequest, Request, SocketRequest},
};

/// A call as its numbers travel between global functions, which take plain numbers only: bits 0 to 7
/// the hook, 8 to 15 the length of the socket address, 16 to 31 the protocol, 32 to 39 the kind of
/// question, 40 whether the socket is of the same scope, 41 whether the call is denied already, 48 to 63 the slot.
#[derive(Clone, Copy)]
pub(super) struct Call(pub(super) u64);

/// There is no destination: a socket of AF_INET.
pub(super) const SOCKET: u64 = 0;
/// A socket of any other family.
pub(super) const SOCKET6: u64 = 1;
/// The destination is a `sockaddr_in`.
pub(super) const NAME4: u64 = 2;
/// A `sockaddr_in6`.
pub(super) const NAME6: u64 = 3;
/// The destination is the peer of an IPv4 socket.
pub(super) const PEER4: u64 = 4;
/// The peer of an IPv6 socket.
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

    /// Whether the caller gave an address with it.
    #[inline(always)]
    pub(super) fn is_named(self) -> bool {
        matches!(self.kind(), NAME4 | NAME6)
    }

    /// The same call, of which some policy has said that it is denied.
    #[inline(always)]
    pub(super) fn when_denied(self) -> Call {
        Call(self.0 | 1 << 41)
    }

    #[inline(always)]
    pub(super) fn is_denied(self) -> bool {
        self.0 >> 41 & 1 != 0
    }

    #[inline(always)]
    pub(super) fn about(self, own: bool, slot: u32) -> Call {
        Call(self.0 | (own as u64) << 40 | (slot as u64) << 48)
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

/// Nothing to be asked.
pub(super) const NOTHING: u64 = 255;

/// The destination of a call, by reading it (again) from where the kernel has copied it to.
#[inline(always)]
fn address_question(socket: u64, name: u64, call: Call) -> AddressRequest {
    let kind = call.kind();
    // Where address and port are, without a branch for each.
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
    AddressRequest::read(forget(address, socket), kind & 1, port, call.protocol(), socket)
}

#[inline(always)]
fn socket_question(call: Call) -> SocketRequest {
    SocketRequest {
        family: if call.kind() == SOCKET {
            SocketFamily::Inet
        } else {
            SocketFamily::Inet6
        },
        protocol: call.protocol(),
    }
}

/// Asks one policy; a global function, see [`PackedVerdict`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn evaluate_for_task(socket: u64, name: u64, call: u64, reference: u32) -> u64 {
    let call = Call(call);
    let answer = if call.is_address() {
        address_question(socket, name, call).ask(SlotRef(reference))
    } else {
        socket_question(call).ask(SlotRef(reference))
    };
    answer.word()
}

/// Asks one policy about a call without an address.
#[inline(always)]
pub(super) fn evaluate_about_socket(call: u64, reference: u32) -> u64 {
    socket_question(Call(call)).ask(SlotRef(reference)).word()
}

#[inline(always)]
fn place(socket: u64, call: Call) -> ReportContext {
    ReportContext {
        hook: call.hook(),
        slot: call.slot(),
        cookie: field(socket, features::sock_cookie()),
    }
}

#[inline(always)]
fn side(call: Call, scope: u64) -> PolicyOwner {
    PolicyOwner::TaskCgroup {
        scope,
        foreign: !call.is_own(),
    }
}

/// Reports and acts where there is a destination; a global function.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn enforce_about_address(
    socket: u64,
    name: u64,
    call: u64,
    answer: u64,
    scope: u64,
) -> u64 {
    let call = Call(call);
    let question = address_question(socket, name, call);
    respond(
        &question,
        &place(socket, call),
        side(call, scope),
        PackedVerdict::from_word(answer),
    )
}

/// Reports and acts where there is none; a global function.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn enforce_about_socket(socket: u64, call: u64, answer: u64, scope: u64) -> u64 {
    let call = Call(call);
    let question = socket_question(call);
    respond(
        &question,
        &place(socket, call),
        side(call, scope),
        PackedVerdict::from_word(answer),
    )
}
