//! The other side: listening, sending a lot.

use integration::client_result::Step;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use tidegate::selftest::client::{Address, Failure, PATIENCE, Socket};

fn done(answer: i32) -> Result<(), Failure> {
    if answer < 0 {
        return Err(Failure::of(Step::Preparation, Errno::last()));
    }
    Ok(())
}

/// Listens at an address.
pub(crate) fn listen(socket: &Socket, at: &Address, backlog: i32) -> Result<(), Failure> {
    socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    // SAFETY: the address lives through the call and has the length given.
    done(unsafe { libc::bind(socket.fd(), at.pointer(), at.length()) })?;
    // SAFETY: numbers only.
    done(unsafe { libc::listen(socket.fd(), backlog) })
}

fn wait(socket: &Socket, what: PollFlags) -> Result<(), Failure> {
    match poll(
        &mut [PollFd::new(socket.as_fd(), what)],
        PollTimeout::from(PATIENCE),
    ) {
        Ok(0) => Err(Failure::named(Step::Preparation, "STALLED")),
        Ok(_) => Ok(()),
        Err(errno) => Err(Failure::of(Step::Preparation, errno)),
    }
}

/// Ends both directions; of a listening socket, the listening.
pub(crate) fn shutdown(socket: &Socket) -> Result<(), Failure> {
    // SAFETY: numbers only.
    done(unsafe { libc::shutdown(socket.fd(), libc::SHUT_RDWR) })
}

/// Sends so many bytes, however long the far end takes to read them.
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
