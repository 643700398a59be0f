//! The socket that a packet leaves from.

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

/// What kind of socket it is; numbers, since a global function returns them.
pub(crate) mod kind {
    /// One whose packets are what its user says.
    pub(crate) const ORDINARY: u32 = 0;
    /// A raw socket: its user writes the headers.
    pub(crate) const RAW: u32 = 1;
    /// TCP that somebody else opened: a listening socket, or one that was accepted from it.
    pub(crate) const ACCEPTED: u32 = 2;
    /// The kernel's own, for what it has to say by itself (neighbour discovery, resets, ICMP errors).
    pub(crate) const KERNEL: u32 = 3;
}

/// The kind of the packet's socket.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn sender_kind(context: *mut __sk_buff) -> u32 {
    // SAFETY: the context is valid while the program runs; the helper takes what the context holds,
    // once it is not null, and fields are read as the verifier wants them, whole and once.
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
        return if is_kernels(address_of(socket)) {
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

/// Whether a TCP socket that is about to connect has listened before, or was accepted: from then on its
/// packets would pass for answers. listen(2) comes too late for one that is connected or about to be:
/// `inet_listen` wants SS_UNCONNECTED, under the lock that the hook runs under.
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

/// The address of a socket as a plain number: the verifier allows no arithmetic on its typed pointers.
/// Read back from the stack by a helper, it has forgotten what it is. Zero where that fails.
#[inline(always)]
fn address_of(socket: *mut bpf_sock) -> u64 {
    let pointer = socket as u64;
    // SAFETY: reads eight bytes of this program's stack.
    unsafe { bpf_probe_read_kernel(addr_of!(pointer)) }.unwrap_or(0)
}

/// `sk_max_ack_backlog`, which listen(2) sets, nothing takes back, and accepted sockets are copied with
/// (`inet_listen`, `sk_clone_lock`). A server that listens with a backlog of 0 is not known as one.
#[inline(always)]
fn has_backlog(socket: u64) -> bool {
    let at = socket + features::sock_max_backlog() as u64;
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(at as *const u32) }.unwrap_or(0) != 0
}

/// Sockets of a user have a file from socket(2) until they are released; the control sockets of a
/// network namespace (`inet_ctl_sock_create`) never have one, and belong to the cgroup of whoever made
/// the namespace.
#[inline(always)]
fn is_kernels(socket: u64) -> bool {
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
