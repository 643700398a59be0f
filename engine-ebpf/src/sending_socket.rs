//! The socket that sends a packet.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_addr},
    helpers::{bpf_probe_read_kernel, generated::bpf_sk_fullsock},
};

use crate::features;

const SOCK_RAW: u32 = 3;
const IPPROTO_TCP: u32 = 6;
/// BPF_TCP_LISTEN.
const LISTEN: u32 = 10;

/// Kinds of sockets; integers, since a global function returns them.
pub(crate) mod kind {
    /// A socket for which the kernel writes the headers.
    pub(crate) const ORDINARY: u32 = 0;
    /// A raw socket: the process writes the headers.
    pub(crate) const RAW: u32 = 1;
    /// A TCP connection that the peer opened: a listening socket, or one that was accepted from it.
    pub(crate) const ACCEPTED: u32 = 2;
    /// A socket of the kernel, for neighbour discovery, resets and ICMP errors.
    pub(crate) const KERNEL: u32 = 3;
}

/// The kind of the packet's socket.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn sender_kind(context: *mut __sk_buff) -> u32 {
    // SAFETY: the context is valid while the program runs; the helper takes the context's socket if it
    // is not null, and each field is read whole and once, as the verifier requires.
    let (socket, type_, protocol, state) = unsafe {
        let socket = read_volatile(addr_of!((*context).__bindgen_anon_2.sk));
        if socket.is_null() {
            return kind::ORDINARY;
        }
        let socket: *mut bpf_sock = bpf_sk_fullsock(socket);
        if socket.is_null() {
            return kind::ORDINARY;
        }
        (
            socket,
            read_volatile(addr_of!((*socket).type_)),
            read_volatile(addr_of!((*socket).protocol)),
            read_volatile(addr_of!((*socket).state)),
        )
    };
    if type_ == SOCK_RAW {
        return if is_kernel_socket(address_of(socket)) {
            kind::KERNEL
        } else {
            kind::RAW
        };
    }
    if protocol == IPPROTO_TCP && (state == LISTEN || has_backlog(address_of(socket))) {
        return kind::ACCEPTED;
    }
    kind::ORDINARY
}

/// Whether a TCP socket that is about to connect has listened before, or was accepted: the egress filter would take
/// its packets for replies. A socket that is connected or connecting cannot listen any more:
/// `inet_listen` requires SS_UNCONNECTED and takes the lock that is held while the hook runs.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn has_listened(context: *mut bpf_sock_addr) -> u32 {
    // SAFETY: the context is valid while the program runs.
    let (protocol, socket) = unsafe {
        (
            read_volatile(addr_of!((*context).protocol)),
            read_volatile(addr_of!((*context).__bindgen_anon_1.sk)),
        )
    };
    if protocol != IPPROTO_TCP || socket.is_null() {
        return 0;
    }
    has_backlog(address_of(socket)) as u32
}

/// The address of a socket as a scalar, since the verifier allows no arithmetic on typed pointers: a pointer that a
/// helper copies from the stack loses its type. Zero if that fails.
#[inline(always)]
fn address_of(socket: *mut bpf_sock) -> u64 {
    let pointer = socket as u64;
    // SAFETY: reads eight bytes of this program's stack.
    unsafe { bpf_probe_read_kernel(addr_of!(pointer)) }.unwrap_or(0)
}

/// `sk_max_ack_backlog`, which listen(2) sets, nothing resets, and accepted sockets inherit
/// (`inet_listen`, `sk_clone_lock`). A server that listens with a backlog of 0 is not detected.
#[inline(always)]
fn has_backlog(socket: u64) -> bool {
    let at = socket + features::sock_max_backlog() as u64;
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(at as *const u32) }.unwrap_or(0) != 0
}

/// Sockets of a process have a file from socket(2) until they are released. The control sockets of a
/// network namespace (`inet_ctl_sock_create`) have none, and belong to the cgroup of the task that created
/// the namespace.
#[inline(always)]
fn is_kernel_socket(socket: u64) -> bool {
    let at = socket + features::sock_socket() as u64;
    // SAFETY: the helper checks the address and fails instead of faulting.
    let outer: u64 = unsafe { bpf_probe_read_kernel(at as *const u64) }.unwrap_or(0);
    if outer == 0 {
        return false;
    }
    let at = outer + features::socket_file() as u64;
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(at as *const u64) }.unwrap_or(1) == 0
}
