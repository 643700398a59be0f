//! System calls on sockets, waiting bounded by poll(2).

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{super::client_result::Step, address::Address};

/// Longest wait for the far end, milliseconds.
pub const PATIENCE: u16 = 20_000;

/// Where a run ended, and why.
#[derive(Debug)]
pub struct Failure {
    /// At which step.
    pub step: Step,
    /// The kernel's name of the error, or a word of ours.
    pub errno: String,
}

impl Failure {
    /// What the kernel said.
    pub fn of(step: Step, errno: Errno) -> Failure {
        Failure::named(step, &format!("{errno:?}"))
    }

    /// Something of ours.
    pub fn named(step: Step, errno: &str) -> Failure {
        Failure {
            step,
            errno: errno.to_owned(),
        }
    }

    /// The same failure on the way to the first place.
    pub fn in_preparation(self) -> Failure {
        Failure {
            step: Step::Preparation,
            ..self
        }
    }
}

/// The answer of a system call as a result.
fn answered(step: Step, answer: libc::ssize_t) -> Result<usize, Failure> {
    usize::try_from(answer).map_err(|_| Failure::of(step, Errno::last()))
}

/// A socket that never blocks.
pub struct Socket(OwnedFd);

impl Socket {
    /// Makes one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(family: i32, kind: i32, protocol: i32) -> Result<Socket, Failure> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: numbers only.
        let fd = unsafe { libc::socket(family, kind | flags, protocol) };
        if fd < 0 {
            return Err(Failure::of(Step::Socket, Errno::last()));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// One that is there already.
    pub fn from_fd(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Its descriptor, for as long as it lives.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sets an option that takes a number.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&self, level: i32, name: i32, value: i32) -> Result<(), Failure> {
        let length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the value lives through the call and has the length given.
        let answer = unsafe { libc::setsockopt(self.fd(), level, name, (&raw const value).cast(), length) };
        answered(Step::Preparation, answer as libc::ssize_t).map(drop)
    }

    /// Connects, and waits until that has succeeded or failed.
    ///
    /// # Errors
    /// When it failed.
    pub fn connect(&self, to: &Address) -> Result<(), Failure> {
        // SAFETY: the address lives through the call and has the length given.
        let answer = unsafe { libc::connect(self.fd(), to.pointer(), to.length()) };
        match answered(Step::Connect, answer as libc::ssize_t) {
            Err(failure) if failure.errno == "EINPROGRESS" => self.settle(Step::Connect),
            other => other.map(drop),
        }
    }

    /// Starts to connect, and does not wait.
    pub fn begin(&self, to: &Address) -> Result<(), Failure> {
        // SAFETY: the address lives through the call and has the length given.
        let answer = unsafe { libc::connect(self.fd(), to.pointer(), to.length()) };
        match answered(Step::Connect, answer as libc::ssize_t) {
            Err(failure) if failure.errno == "EINPROGRESS" => Ok(()),
            other => other.map(drop),
        }
    }

    /// Binds, sharing the port with others that do.
    pub fn bind(&self, at: &Address) -> Result<(), Failure> {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        // SAFETY: the address lives through the call and has the length given.
        let answer = unsafe { libc::bind(self.fd(), at.pointer(), at.length()) };
        answered(Step::Preparation, answer as libc::ssize_t).map(drop)
    }

    /// Listens, with room for so many that connect.
    pub fn listen(&self, backlog: i32) -> Result<(), Failure> {
        // SAFETY: numbers only.
        let answer = unsafe { libc::listen(self.fd(), backlog) };
        answered(Step::Preparation, answer as libc::ssize_t).map(drop)
    }

    /// Waits for somebody who connects.
    pub fn accept(&self) -> Result<Socket, Failure> {
        self.wait_to_read()?;
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no address is asked for.
        let fd = unsafe { libc::accept4(self.fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        answered(Step::Receive, fd as libc::ssize_t)?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for something that was sent, or for the end, which is told as `END`.
    pub fn receive(&self) -> Result<(), Failure> {
        self.wait_to_read()?;
        let mut buffer = [0_u8; 256];
        // SAFETY: the buffer lives through the call and has the length given.
        let answer = unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match answered(Step::Receive, answer)? {
            0 => Err(Failure::named(Step::Receive, "END")),
            _ => Ok(()),
        }
    }

    fn wait_to_read(&self) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PATIENCE)) {
            Ok(0) => Err(Failure::named(Step::Receive, "STALLED")),
            Ok(_) => Ok(()),
            Err(errno) => Err(Failure::of(Step::Receive, errno)),
        }
    }

    /// Waits until the socket can be written, and takes its pending error.
    ///
    /// # Errors
    /// That error.
    pub fn settle(&self, step: Step) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::from(PATIENCE)) {
            Ok(0) => return Err(Failure::named(step, "STALLED")),
            Ok(_) => {}
            Err(errno) => return Err(Failure::of(step, errno)),
        }
        let mut error: i32 = 0;
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: both places live through the call, and the length is that of the value.
        let answer = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut length,
            )
        };
        answered(step, answer as libc::ssize_t)?;
        match error {
            0 => Ok(()),
            number => Err(Failure::of(step, Errno::from_raw(number))),
        }
    }

    /// Sends to where it is connected.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        // SAFETY: the bytes live through the call.
        let answer = unsafe { libc::send(self.fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        answered(Step::Send, answer).map(drop)
    }

    /// Sends to an address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send_to(&self, bytes: &[u8], to: &Address, flags: i32) -> Result<(), Failure> {
        let flags = flags | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes and the address live through the call.
        let answer = unsafe {
            libc::sendto(
                self.fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                flags,
                to.pointer(),
                to.length(),
            )
        };
        answered(Step::Send, answer).map(drop)
    }

    /// The same by sendmsg(2).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send_message(&self, bytes: &[u8], to: &Address) -> Result<(), Failure> {
        let mut part = part(bytes);
        let message = message(&mut part, to);
        // SAFETY: the message and all it points to live through the call.
        let answer = unsafe { libc::sendmsg(self.fd(), &raw const message, libc::MSG_NOSIGNAL) };
        answered(Step::Send, answer).map(drop)
    }

    /// Sends the bytes twice, in one call.
    ///
    /// # Errors
    /// When the kernel refuses one of them.
    pub fn send_messages(&self, bytes: &[u8], to: &Address) -> Result<(), Failure> {
        let mut parts = [part(bytes), part(bytes)];
        let mut messages = parts.each_mut().map(|part| libc::mmsghdr {
            msg_hdr: message(part, to),
            msg_len: 0,
        });
        let count = messages.len() as u32;
        // SAFETY: the messages and all they point to live through the call.
        let answer =
            unsafe { libc::sendmmsg(self.fd(), messages.as_mut_ptr(), count, libc::MSG_NOSIGNAL as _) };
        match answered(Step::Send, answer as libc::ssize_t)? {
            2 => Ok(()),
            sent => Err(Failure::named(Step::Send, &format!("SENT-{sent}-OF-2"))),
        }
    }
}

/// The bytes as part of a message; whoever sends it does not write to them.
pub(super) fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

/// A message of one part. It points to both arguments.
pub(super) fn message(part: &mut libc::iovec, to: &Address) -> libc::msghdr {
    // SAFETY: plain numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.pointer().cast_mut().cast();
    message.msg_namelen = to.length();
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

/// What a thread tells; a panic in it is told as `DIED`.
///
/// # Errors
/// Those of the thread.
pub fn joined(thread: thread::JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Failure::named(Step::Preparation, "DIED")))
}
