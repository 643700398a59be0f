//! Steps of servers: listen, shut down, send much data.

use integration::client_result::Step;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use integration::selftest::client::{Address, Failure, Socket, TIMEOUT};

fn check(result: i32) -> Result<(), Failure> {
    if result < 0 {
        return Err(Failure::of(Step::Preparation, Errno::last()));
    }
    Ok(())
}

/// Binds to an address and listens.
pub(crate) fn listen(socket: &Socket, at: &Address, backlog: i32) -> Result<(), Failure> {
    socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    // SAFETY: the address lives through the call and has the length given.
    check(unsafe { libc::bind(socket.fd(), at.pointer(), at.length()) })?;
    // SAFETY: integers only.
    check(unsafe { libc::listen(socket.fd(), backlog) })
}

fn wait(socket: &Socket, what: PollFlags) -> Result<(), Failure> {
    match poll(
        &mut [PollFd::new(socket.as_fd(), what)],
        PollTimeout::from(TIMEOUT),
    ) {
        Ok(0) => Err(Failure::named(Step::Preparation, "TIMEOUT")),
        Ok(_) => Ok(()),
        Err(errno) => Err(Failure::of(Step::Preparation, errno)),
    }
}

/// Shuts down both directions; a listening socket stops listening.
pub(crate) fn shutdown(socket: &Socket) -> Result<(), Failure> {
    // SAFETY: integers only.
    check(unsafe { libc::shutdown(socket.fd(), libc::SHUT_RDWR) })
}

/// Sends this many bytes, waiting for the other end to read them.
pub(crate) fn send_all(socket: &Socket, mut bytes: usize) -> Result<(), Failure> {
    let block = [0x55; 65536];
    while bytes > 0 {
        wait(socket, PollFlags::POLLOUT)?;
        let length = bytes.min(block.len());
        // SAFETY: the bytes live through the call.
        let sent = unsafe { libc::send(socket.fd(), block.as_ptr().cast(), length, libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => bytes -= sent,
            Err(_) if Errno::last() == Errno::EAGAIN => {}
            Err(_) => return Err(Failure::of(Step::Send, Errno::last())),
        }
    }
    Ok(())
}
