//! The LSM programs: they run for every task of the machine, after its sockaddr was copied and before a
//! cgroup hook. What they add to those:
//!
//! - A socket that was made in another cgroup (passed, inherited, older) is judged by the policies of the
//!   *task* that uses it.
//! - Other families (packet, vsock, ...) are judged when their socket is made.
//! - Where a cgroup hook cannot kill, or has no errno but EPERM, this one does.
//!
//! Everything else is left to the cgroup hook that follows, so that one attempt is one event.

use aya_ebpf::{EbpfContext, macros::lsm, programs::LsmContext};
use engine_common::{
    Action, Hook, Mode, Protocol, SocketFamily,
    destination::{canonical_v4, canonical_v6},
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
    verifier::forget,
};

use crate::{
    events::Place,
    features,
    gate::{Answer, Denial, EPERM, Side, respond},
    kernel::{field, read},
    question::{AddressQuestion, Question, SocketQuestion, words_of},
    task_scope,
};

const AF_UNSPEC: u64 = 0;
const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const AF_ALG: u64 = 38;
const SOCK_RAW: u64 = 3;
const SOCK_SEQPACKET: u64 = 5;
const SOCK_DCCP: u64 = 6;
const TCP_CLOSE: u8 = 7;
const MSG_FASTOPEN: u32 = 0x2000_0000;
/// What peers ask for (ASCONF), as the kernel names it to the hook: network order, while packets come in.
const SCTP_PARAM_ADD_IP: u32 = 0x01c0;
const SCTP_PARAM_SET_PRIMARY: u32 = 0x04c0;

/// Families that stay on this machine.
#[inline(always)]
fn is_local(family: u64) -> bool {
    matches!(family, AF_UNSPEC | AF_UNIX | AF_NETLINK | AF_ALG)
}

/// A call as its numbers travel between global functions, which take plain numbers only: bits 0 to 7
/// the hook, 8 to 15 the length of the socket address, 16 to 31 the protocol, 32 to 39 the kind of
/// question, 40 whether the socket is of the same scope, 48 to 63 the slot.
#[derive(Clone, Copy)]
struct Call(u64);

/// There is no destination: a socket of AF_INET.
const SOCKET: u64 = 0;
/// A socket of any other family.
const SOCKET6: u64 = 1;
/// The destination is a `sockaddr_in`.
const NAME4: u64 = 2;
/// A `sockaddr_in6`.
const NAME6: u64 = 3;
/// The destination is the peer of an IPv4 socket.
const PEER4: u64 = 4;
/// The peer of an IPv6 socket.
const PEER6: u64 = 5;

impl Call {
    #[inline(always)]
    fn new(hook: Hook, length: u64, protocol: Protocol, kind: u64) -> Call {
        Call(hook as u64 | (length & 0xff) << 8 | (protocol.0 as u64) << 16 | kind << 32)
    }

    #[inline(always)]
    fn hook(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    fn protocol(self) -> Protocol {
        Protocol((self.0 >> 16) as u16)
    }

    #[inline(always)]
    fn kind(self) -> u64 {
        self.0 >> 32 & 0xff
    }

    #[inline(always)]
    fn is_address(self) -> bool {
        self.kind() >= NAME4
    }

    /// Whether the caller gave an address with it.
    #[inline(always)]
    fn is_named(self) -> bool {
        matches!(self.kind(), NAME4 | NAME6)
    }

    #[inline(always)]
    fn about(self, own: bool, slot: u32) -> Call {
        Call(self.0 | (own as u64) << 40 | (slot as u64) << 48)
    }

    #[inline(always)]
    fn is_own(self) -> bool {
        self.0 >> 40 & 1 != 0
    }

    #[inline(always)]
    fn slot(self) -> u32 {
        (self.0 >> 48) as u32
    }
}

/// The destination of a call, by reading it (again) from where the kernel has copied it to.
#[inline(always)]
fn address_question(socket: u64, name: u64, call: Call) -> AddressQuestion {
    let unknown = socket;
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
    let (address, port) = (forget(address, unknown), forget(port, unknown));
    let is_v6 = forget(kind & 1, unknown);
    let port = u16::from_be(read(port));
    // What follows an IPv4 address is of no interest, but readable: both are parts of something bigger.
    let [mut first, mut second] = read::<[u64; 2]>(address);
    let (family, high, low);
    if is_v6 != 0 {
        (family, high, low) = words_of(canonical_v6(u64::from_be(first), u64::from_be(second)));
    } else {
        (first, second) = (first & 0xffff_ffff, 0);
        (family, high, low) = words_of(canonical_v4(u32::from_be(first as u32)));
    }
    let (first, second) = (forget(first, unknown), forget(second, unknown));
    AddressQuestion {
        original: [
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
        ],
        original_family: forget(4 + 2 * is_v6, unknown) as u8,
        family: forget(family, unknown),
        high: forget(high, unknown),
        low: forget(low, unknown),
        port,
        protocol: call.protocol(),
    }
}

#[inline(always)]
fn socket_question(call: Call) -> SocketQuestion {
    SocketQuestion {
        family: if call.kind() == SOCKET {
            SocketFamily::Inet
        } else {
            SocketFamily::Inet6
        },
        protocol: call.protocol(),
    }
}

/// Asks one policy; a global function, see [`Answer`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ask_for_task(socket: u64, name: u64, call: u64, reference: u32) -> u64 {
    let call = Call(call);
    let answer = if call.is_address() {
        address_question(socket, name, call).ask(SlotRef(reference))
    } else {
        socket_question(call).ask(SlotRef(reference))
    };
    answer.word()
}

#[inline(always)]
fn place(socket: u64, call: Call) -> Place {
    Place {
        hook: call.hook(),
        slot: call.slot(),
        cookie: field(socket, features::sock_cookie()),
    }
}

#[inline(always)]
fn side(call: Call, scope: u64) -> Side {
    Side::Task {
        scope,
        foreign: !call.is_own(),
    }
}

/// Reports and acts where there is a destination; a global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn respond_about_address(socket: u64, name: u64, call: u64, answer: u64, scope: u64) -> u64 {
    let call = Call(call);
    let question = address_question(socket, name, call);
    respond(
        &question,
        &place(socket, call),
        side(call, scope),
        Answer::from_word(answer),
    )
}

/// Reports and acts where there is none; a global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn respond_about_socket(socket: u64, call: u64, answer: u64, scope: u64) -> u64 {
    let call = Call(call);
    let question = socket_question(call);
    respond(
        &question,
        &place(socket, call),
        side(call, scope),
        Answer::from_word(answer),
    )
}

/// Whether this hook must see to an answer about a socket of the same scope, since the cgroup hook cannot do
/// what it says.
#[inline(always)]
fn is_beyond_cgroup_hook(answer: Answer) -> bool {
    if let Mode::Audit = answer.life().mode {
        return false;
    }
    match answer.verdict().action() {
        Action::Kill => features::has_send_signal() == 0 || is_beyond_errno(answer),
        Action::Block => is_beyond_errno(answer),
        Action::Allow | Action::Audit => false,
    }
}

#[inline(always)]
fn is_beyond_errno(answer: Answer) -> bool {
    features::has_set_retval() == 0 && answer.errno() != EPERM
}

/// Whether there is anything that a cgroup hook cannot do: otherwise sockets of the same scope need not be asked
/// about.
#[inline(always)]
fn are_cgroup_hooks_short() -> bool {
    features::has_send_signal() == 0 || features::has_set_retval() == 0
}

/// Judges a call by the scope of the task at one depth; the denial, or 0. A global function: checked once, and
/// not once a depth.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn judge_level(level: u32, socket: u64, name: u64, call: u64) -> u64 {
    let Some(scope) = task_scope::at_level(level & 0xff) else {
        return 0;
    };
    let call = Call(call);
    let is_create = call.hook() == Hook::LsmCreate as u8;
    let is_family = call.protocol().family().is_some();
    let own = is_create || task_scope::ancestor_of_socket(socket, level & 0xff) == scope.cgroup;
    // A cgroup hook follows, or has been there: at connect for what has addresses, at the socket for the rest.
    let follows = own && !(is_create && is_family);
    if own && !is_create && !call.is_named() {
        // What is connected was judged then, and the others when they were made.
        return 0;
    }
    if follows && scope.flags & Scope::NO_CGROUP_HOOKS == 0 && !are_cgroup_hooks_short() {
        return 0;
    }
    let unknown = scope.cgroup;
    let mut denial = Denial(forget(0, unknown));
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        if !reference.is_for_lsm() {
            i += 1;
            continue;
        }
        let defers = follows && reference.is_for_cgroup();
        let mut answer = Answer::from_word(ask_for_task(
            socket,
            name,
            call.0,
            reference.0 | SlotRef::ANY_ERRNO | SlotRef::UNCOUNTED,
        ));
        if !defers || is_beyond_cgroup_hook(answer) {
            // Counted only by whoever sees to it.
            answer = Answer::from_word(ask_for_task(
                socket,
                name,
                call.0,
                reference.0 | SlotRef::ANY_ERRNO,
            ));
            if !matches!(answer.verdict().action(), Action::Allow) {
                let told = call.about(own, slot);
                let outcome = if call.is_address() {
                    respond_about_address(socket, name, told.0, answer.word(), scope.cgroup)
                } else {
                    respond_about_socket(socket, told.0, answer.word(), scope.cgroup)
                };
                denial = Denial(forget(denial.joined(outcome as u8, answer.errno()).0, unknown));
            }
        }
        i += 1;
    }
    denial.0
}

/// Judges a call by all scopes of the task, the nearest first, whose errno holds.
#[inline(always)]
fn judge(socket: u64, name: u64, call: Call) -> i32 {
    let levels = task_scope::levels();
    if levels == 0 {
        return 0;
    }
    let mut denial = 0;
    let mut level = Scope::LEVELS;
    while level > 0 {
        level -= 1;
        if levels >> level & 1 != 0 {
            let one = judge_level(level, socket, name, call.0);
            if denial == 0 {
                denial = one;
            }
        }
        denial = forget(denial, levels);
    }
    errno(denial, levels)
}

/// What the program returns for an errno. Newer verifiers (6.12) want to see that it is one, and see nothing
/// through a negation.
#[inline(always)]
fn errno(number: u64, unknown: u64) -> i32 {
    let complement = forget(MAX_ERRNO.wrapping_sub(number), unknown) & MAX_ERRNO;
    complement as i32 - MAX_ERRNO as i32
}

/// Greatest errno (include/linux/err.h).
const MAX_ERRNO: u64 = 4095;

/// What programs before this one returned is returned again, without a look at the call.
#[inline(always)]
fn is_denied(before: u64) -> bool {
    before as u32 != 0
}

#[inline(always)]
fn denied(before: u64) -> i32 {
    errno(0u64.wrapping_sub(before as i32 as u64) & MAX_ERRNO, before)
}

/// Arguments of a hook, as plain numbers: pointers that the verifier knows the type of it does not let
/// global functions have. The last one is what programs before this one returned.
#[inline(always)]
fn arguments<const N: usize>(context: &LsmContext) -> [u64; N]
where
    [u64; N]: crate::kernel::Plain,
{
    read(context.as_ptr() as u64)
}

/// What is to be known of a socket.
struct Socket {
    sock: u64,
    family: u64,
    protocol: Protocol,
    state: u8,
}

/// A socket of a process; none for those of the kernel itself (of file systems, tunnels), which have
/// no file.
#[inline(always)]
fn socket_of(socket: u64) -> Option<Socket> {
    let sock: u64 = field(socket, features::socket_sk());
    let file: u64 = field(socket, features::socket_file());
    if sock == 0 || file == 0 || is_kernels(sock) {
        return None;
    }
    Some(socket_at(sock))
}

/// Whether the kernel made the socket for itself: some of those have a file (`xs_create_sock`, net/sunrpc/xprtsock.c).
#[inline(always)]
fn is_kernels(sock: u64) -> bool {
    let bit = features::sock_kern_bit();
    field::<u8>(sock, bit / 8) >> (bit % 8) & 1 != 0
}

/// Whether a name is where a socket goes already.
#[inline(always)]
fn is_peer(socket: &Socket, name: u64) -> bool {
    if read::<u16>(name.wrapping_add(2)) != field::<u16>(socket.sock, features::sock_peer_port()) {
        return false;
    }
    if socket.family == AF_INET {
        read::<u32>(name.wrapping_add(4)) == field::<u32>(socket.sock, features::sock_peer_v4())
    } else {
        let [first, second] = read::<[u64; 2]>(name.wrapping_add(8));
        let [peer, rest] = field::<[u64; 2]>(socket.sock, features::sock_peer_v6());
        first == peer && second == rest
    }
}

#[inline(always)]
fn socket_at(sock: u64) -> Socket {
    let family = field::<u16>(sock, features::sock_family()) as u64;
    let kind = field::<u16>(sock, features::sock_type()) as u64;
    Socket {
        sock,
        family,
        protocol: protocol_of(family, kind, field::<u16>(sock, features::sock_protocol())),
        state: field(sock, features::sock_state()),
    }
}

#[inline(always)]
fn protocol_of(family: u64, kind: u64, protocol: u16) -> Protocol {
    if family != AF_INET && family != AF_INET6 {
        return Protocol::of_family(family as u16);
    }
    if kind == SOCK_RAW {
        return Protocol::RAW;
    }
    if protocol == Protocol::MPTCP.0 {
        // Its subflows are TCP, and that is how rules and the cgroup hooks know them.
        return Protocol::TCP;
    }
    Protocol(protocol)
}

/// The kind of question that a name makes; `SOCKET*` where the protocol is judged without addresses.
#[inline(always)]
fn kind_of_name(socket: &Socket, name: u64, length: u64) -> u64 {
    if !socket.protocol.has_address_hook() {
        return if socket.family == AF_INET { SOCKET } else { SOCKET6 };
    }
    let family = if length >= 2 {
        read::<u16>(name) as u64
    } else {
        AF_UNSPEC
    };
    // An IPv4 socket takes a name without family for one of IPv4 (`udp_sendmsg`).
    if family == AF_INET6 && length >= 24 {
        NAME6
    } else if length >= 16 {
        NAME4
    } else {
        // Too short for any address: the kernel refuses it.
        NOTHING
    }
}

/// Nothing to be asked.
const NOTHING: u64 = 255;

#[inline(always)]
fn kind_of_peer(socket: &Socket) -> u64 {
    if !socket.protocol.has_address_hook() {
        return if socket.family == AF_INET { SOCKET } else { SOCKET6 };
    }
    // What listened, or was accepted from what did, answers others; it does not connect.
    if socket.protocol.0 == Protocol::TCP.0 && field::<u32>(socket.sock, features::sock_max_backlog()) != 0 {
        return NOTHING;
    }
    if socket.state == TCP_CLOSE {
        // It has no peer. (Of UDP too: a connected socket is "established", even to port 0.)
        return NOTHING;
    }
    if socket.family == AF_INET { PEER4 } else { PEER6 }
}

#[inline(always)]
fn judge_kind(hook: Hook, socket: &Socket, name: u64, length: u64, kind: u64) -> i32 {
    if kind == NOTHING {
        return 0;
    }
    judge(socket.sock, name, Call::new(hook, length, socket.protocol, kind))
}

/// connect(2) and io_uring, of any family (security/security.c, Linux 5.7). Not fast open, which is a
/// sendmsg.
#[lsm(hook = "socket_connect")]
pub fn lsm_connect(context: LsmContext) -> i32 {
    let [socket, name, length, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    if task_scope::levels() == 0 {
        return 0;
    }
    let Some(socket) = socket_of(socket) else {
        return 0;
    };
    if is_local(socket.family) {
        return 0;
    }
    let length = length & 0xff;
    if length < 2 || read::<u16>(name) as u64 == AF_UNSPEC {
        // It takes the peer away.
        return 0;
    }
    if socket.protocol.0 == Protocol::TCP.0 && socket.state != TCP_CLOSE && is_peer(&socket, name) {
        // Asked before: a second call, of io_uring for example, waits for the first. Any other destination is judged: the
        // socket may be taken from its peer by another thread before the kernel looks.
        return 0;
    }
    let kind = kind_of_name(&socket, name, length);
    judge_kind(Hook::LsmConnect, &socket, name, length, kind)
}

/// Whatever sends: send(2) and its kin, write(2), io_uring (Linux 5.7).
#[lsm(hook = "socket_sendmsg")]
pub fn lsm_sendmsg(context: LsmContext) -> i32 {
    let [socket, message, _size, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    if task_scope::levels() == 0 {
        return 0;
    }
    let Some(socket) = socket_of(socket) else {
        return 0;
    };
    if is_local(socket.family) {
        return 0;
    }
    let name: u64 = field(message, features::msghdr_name());
    let length = field::<u32>(message, features::msghdr_namelen()) as u64 & 0xff;
    let is_named = name != 0 && length >= 2;
    // TCP ignores names but for fast open; an IPv6 socket takes one without family for none (`udpv6_sendmsg`).
    let flags: u32 = field(message, features::msghdr_flags());
    let by_name = is_named
        && (socket.protocol.0 != Protocol::TCP.0 || flags & MSG_FASTOPEN != 0)
        && !(socket.family == AF_INET6 && read::<u16>(name) as u64 == AF_UNSPEC);
    let kind = if by_name {
        kind_of_name(&socket, name, length)
    } else {
        kind_of_peer(&socket)
    };
    judge_kind(Hook::LsmSendmsg, &socket, name, length, kind)
}

/// socket(2), of any family (Linux 5.7).
#[lsm(hook = "socket_create")]
pub fn lsm_create(context: LsmContext) -> i32 {
    let [family, kind, protocol, by_kernel, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    let (family, kind) = (family & 0xffff_ffff, kind & 0xf);
    if by_kernel as u32 != 0 || is_local(family) {
        return 0;
    }
    let mut protocol = protocol_of(family, kind, protocol as u16);
    if protocol.0 == 0 {
        // By the type: TCP and UDP, or one of these.
        protocol = match kind {
            SOCK_SEQPACKET => Protocol::SCTP,
            SOCK_DCCP => Protocol::DCCP,
            _ => protocol,
        };
    }
    if protocol.has_address_hook() || protocol.0 == 0 {
        return 0;
    }
    let question = if family == AF_INET { SOCKET } else { SOCKET6 };
    judge(0, 0, Call::new(Hook::LsmCreate, 0, protocol, question))
}

/// Associations of SCTP that are made by socket options and while sending (Linux 4.17; as LSM program 5.7).
#[lsm(hook = "sctp_bind_connect")]
pub fn lsm_sctp(context: LsmContext) -> i32 {
    let [sock, option, _name, _length, before] = arguments(&context);
    if is_denied(before) {
        return denied(before);
    }
    if matches!(option as u32, SCTP_PARAM_ADD_IP | SCTP_PARAM_SET_PRIMARY) {
        // No call of the current task, which is whoever the packet met.
        return 0;
    }
    if task_scope::levels() == 0 {
        return 0;
    }
    let socket = socket_at(sock);
    let kind = if socket.family == AF_INET { SOCKET } else { SOCKET6 };
    judge_kind(Hook::LsmSctp, &socket, 0, 0, kind)
}
