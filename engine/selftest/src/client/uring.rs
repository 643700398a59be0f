//! Methods that submit requests to an io_uring instead of calling connect(2) or sendmsg(2).

use std::{
    net::SocketAddr,
    os::fd::{FromRawFd, OwnedFd},
};

use io_uring::{
    IoUring, opcode, squeue,
    types::{Fd, SubmitArgs, Timespec},
};
use nix::errno::Errno;

use super::{
    super::{client_result::Step, egress_method::MARKER},
    address::{Address, family},
    no_address_hook::echo,
    socket::{Failure, Socket, message, part},
};

/// Time limit for a completion, in seconds.
const TIMEOUT: u64 = 20;

fn ring() -> Result<IoUring, Failure> {
    IoUring::new(4).map_err(|error| failure(Step::Preparation, &error))
}

fn failure(step: Step, error: &std::io::Error) -> Failure {
    Failure::of(step, Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// Submits one entry and waits for its result.
///
/// # Safety
/// Everything that the entry points to must be valid until this function returns.
unsafe fn submit(ring: &mut IoUring, step: Step, entry: &squeue::Entry) -> Result<i32, Failure> {
    // SAFETY: the caller guarantees it.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_| Failure::named(Step::Preparation, "RING-FULL"))?;
    let timeout = Timespec::new().sec(TIMEOUT);
    let arguments = SubmitArgs::new().timespec(&timeout);
    let submitted = ring.submitter().submit_with_args(1, &arguments);
    submitted.map_err(|error| failure(step, &error))?;
    let Some(completion) = ring.completion().next() else {
        return Err(Failure::named(step, "TIMEOUT"));
    };
    match completion.result() {
        negative @ ..0 => Err(Failure::of(step, Errno::from_raw(-negative))),
        result => Ok(result),
    }
}

pub(super) fn connect(to: SocketAddr) -> Result<(), Failure> {
    let socket = Socket::new(family(to), libc::SOCK_STREAM, libc::IPPROTO_TCP)?;
    connect_by_uring(&socket, &Address::of(to))?;
    socket.send(MARKER)
}

/// Connects a socket by an io_uring, and waits for the result.
///
/// # Errors
/// When the kernel has no io_uring, or the connection fails.
pub fn connect_by_uring(socket: &Socket, to: &Address) -> Result<(), Failure> {
    let mut ring = ring()?;
    let entry = opcode::Connect::new(Fd(socket.fd()), to.pointer(), to.length()).build();
    // SAFETY: the address is valid to the end of this function.
    match unsafe { submit(&mut ring, Step::Connect, &entry) } {
        Err(failure) if failure.errno == "EINPROGRESS" => socket.wait_writable(Step::Connect),
        other => other.map(drop),
    }
}

pub(super) fn send_message(to: SocketAddr) -> Result<(), Failure> {
    let mut ring = ring()?;
    let socket = Socket::new(family(to), libc::SOCK_DGRAM, libc::IPPROTO_UDP)?;
    let to = Address::of(to);
    let mut part = part(MARKER);
    let message = message(&mut part, &to);
    let entry = opcode::SendMsg::new(Fd(socket.fd()), &raw const message).build();
    // SAFETY: the message and everything it points to are valid to the end of this function.
    unsafe { submit(&mut ring, Step::Send, &entry) }.map(drop)
}

/// The io_uring creates the socket too (IORING_OP_SOCKET, Linux 5.19). Older kernels return EINVAL.
pub(super) fn ping(to: SocketAddr) -> Result<(), Failure> {
    let mut ring = ring()?;
    let (protocol, request) = echo(to);
    let entry = opcode::Socket::new(family(to), libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol).build();
    // SAFETY: the entry points to nothing.
    let fd = match unsafe { submit(&mut ring, Step::Socket, &entry) } {
        Err(failure) if failure.errno == "EINVAL" => Err(Failure::named(Step::Socket, "ENOSYS")),
        other => other,
    }?;
    // SAFETY: the kernel has just created this descriptor.
    let socket = Socket::from_fd(unsafe { OwnedFd::from_raw_fd(fd) });
    socket.send_to(&request, &Address::of(to), 0)
}
