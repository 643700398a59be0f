//! Passes sockets between processes (SCM_RIGHTS).

use std::{
    io::{IoSlice, IoSliceMut, Read},
    net::SocketAddr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use integration::selftest::client::{Address, Failure, Socket};
use integration::{client_result::Step, egress_method::MARKER};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
};

fn preparation(error: &std::io::Error) -> Failure {
    Failure::of(
        Step::Preparation,
        Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    )
}

/// Receives a datagram socket from another process and sends over it.
pub(crate) fn take(from: &Path, to: SocketAddr) -> Result<(), Failure> {
    let stream = UnixStream::connect(from).map_err(|error| preparation(&error))?;
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)
        .map_err(|errno| Failure::of(Step::Preparation, errno))?;
    let mut messages = received
        .cmsgs()
        .map_err(|errno| Failure::of(Step::Preparation, errno))?;
    let Some(ControlMessageOwned::ScmRights(fds)) = messages.next() else {
        return Err(Failure::named(Step::Preparation, "NO-SOCKET"));
    };
    // SAFETY: the kernel has just created this descriptor.
    let socket = Socket::from_fd(unsafe { OwnedFd::from_raw_fd(fds[0]) });
    socket.send_to(MARKER, &Address::of(to), 0)
}

/// Creates a datagram socket, sends it to another process, and waits until that closes the connection.
pub(crate) fn give(to: &Path) -> Result<(), Failure> {
    let socket = Socket::new(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP)?;
    let mut stream = UnixStream::connect(to).map_err(|error| preparation(&error))?;
    let fds = [socket.fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let parts = [IoSlice::new(b"s")];
    sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None)
        .map_err(|errno| Failure::of(Step::Preparation, errno))?;
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .map_err(|error| preparation(&error))?;
    Ok(())
}
