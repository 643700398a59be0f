//! System calls on non-blocking sockets; every wait has a time limit.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{super::client_result::Step, address::Address};

/// Time limit for the other end, in milliseconds.
pub const TIMEOUT: u16 = 20_000;

/// The step that failed, and why.
#[derive(Debug)]
pub struct Failure {
    /// The step that failed.
    pub step: Step,
    /// The kernel's name of the error, or a name for a failure without an errno.
    pub errno: String,
}

impl Failure {
    /// An error of the kernel.
    pub fn of(step: Step, errno: Errno) -> Failure {
        Failure::named(step, &format!("{errno:?}"))
    }

    /// A failure without an errno.
    pub fn named(step: Step, errno: &str) -> Failure {
        Failure {
            step,
            errno: errno.to_owned(),
        }
    }

    /// The same failure during preparation.
    pub fn in_preparation(self) -> Failure {
        Failure {
            step: Step::Preparation,
            ..self
        }
    }
}

/// Converts the return value of a system call.
fn check(step: Step, result: libc::ssize_t) -> Result<usize, Failure> {
    usize::try_from(result).map_err(|_| Failure::of(step, Errno::last()))
}

/// A non-blocking socket.
pub struct Socket(OwnedFd);

impl Socket {
    /// Creates a socket.
    ///
    /// # Errors
    /// When the kernel refuses the family, the type or the protocol.
    pub fn new(family: i32, kind: i32, protocol: i32) -> Result<Socket, Failure> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: integers only.
        let fd = unsafe { libc::socket(family, kind | flags, protocol) };
        if fd < 0 {
            return Err(Failure::of(Step::Socket, Errno::last()));
        }
        // SAFETY: the descriptor is new and owned here.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wraps an existing socket.
    pub fn from_fd(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    /// The file descriptor.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The file descriptor, borrowed.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sets an integer option.
    ///
    /// # Errors
    /// When the kernel refuses the option.
    pub fn set(&self, level: i32, name: i32, value: i32) -> Result<(), Failure> {
        let length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the value lives through the call and has the length given.
        let result = unsafe { libc::setsockopt(self.fd(), level, name, (&raw const value).cast(), length) };
        check(Step::Preparation, result as libc::ssize_t).map(drop)
    }

    /// Connects, and waits for the result.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn connect(&self, to: &Address) -> Result<(), Failure> {
        // SAFETY: the address lives through the call and has the length given.
        let result = unsafe { libc::connect(self.fd(), to.pointer(), to.length()) };
        match check(Step::Connect, result as libc::ssize_t) {
            Err(failure) if failure.errno == "EINPROGRESS" => self.wait_writable(Step::Connect),
            other => other.map(drop),
        }
    }

    /// Starts to connect without waiting for the result.
    ///
    /// # Errors
    /// When the connection fails immediately.
    pub fn start_connect(&self, to: &Address) -> Result<(), Failure> {
        // SAFETY: the address lives through the call and has the length given.
        let result = unsafe { libc::connect(self.fd(), to.pointer(), to.length()) };
        match check(Step::Connect, result as libc::ssize_t) {
            Err(failure) if failure.errno == "EINPROGRESS" => Ok(()),
            other => other.map(drop),
        }
    }

    /// Binds with SO_REUSEADDR.
    ///
    /// # Errors
    /// When the kernel refuses the address.
    pub fn bind(&self, at: &Address) -> Result<(), Failure> {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        // SAFETY: the address lives through the call and has the length given.
        let result = unsafe { libc::bind(self.fd(), at.pointer(), at.length()) };
        check(Step::Preparation, result as libc::ssize_t).map(drop)
    }

    /// Listens with this backlog.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen(&self, backlog: i32) -> Result<(), Failure> {
        // SAFETY: integers only.
        let result = unsafe { libc::listen(self.fd(), backlog) };
        check(Step::Preparation, result as libc::ssize_t).map(drop)
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// After [`TIMEOUT`], or when the kernel refuses.
    pub fn accept(&self) -> Result<Socket, Failure> {
        self.wait_to_read()?;
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no address is requested.
        let fd = unsafe { libc::accept4(self.fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        check(Step::Receive, fd as libc::ssize_t)?;
        // SAFETY: the descriptor is new and owned here.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for data.
    ///
    /// # Errors
    /// After [`TIMEOUT`], with `EOF` at the end of the stream, or when the kernel refuses.
    pub fn receive(&self) -> Result<(), Failure> {
        self.wait_to_read()?;
        let mut buffer = [0_u8; 256];
        // SAFETY: the buffer lives through the call and has the length given.
        let result = unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match check(Step::Receive, result)? {
            0 => Err(Failure::named(Step::Receive, "EOF")),
            _ => Ok(()),
        }
    }

    fn wait_to_read(&self) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(TIMEOUT)) {
            Ok(0) => Err(Failure::named(Step::Receive, "TIMEOUT")),
            Ok(_) => Ok(()),
            Err(errno) => Err(Failure::of(Step::Receive, errno)),
        }
    }

    /// Waits until the socket is writable, and clears its pending error.
    ///
    /// # Errors
    /// The pending error.
    pub fn wait_writable(&self, step: Step) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::from(TIMEOUT)) {
            Ok(0) => return Err(Failure::named(step, "TIMEOUT")),
            Ok(_) => {}
            Err(errno) => return Err(Failure::of(step, errno)),
        }
        let mut error: i32 = 0;
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: both pointers are valid through the call, and the length is that of the value.
        let result = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut length,
            )
        };
        check(step, result as libc::ssize_t)?;
        match error {
            0 => Ok(()),
            errno => Err(Failure::of(step, Errno::from_raw(errno))),
        }
    }

    /// Sends to the connected destination.
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        // SAFETY: the bytes live through the call.
        let result = unsafe { libc::send(self.fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        check(Step::Send, result).map(drop)
    }

    /// Sends to an address by sendto(2).
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn send_to(&self, bytes: &[u8], to: &Address, flags: i32) -> Result<(), Failure> {
        let flags = flags | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes and the address live through the call.
        let result = unsafe {
            libc::sendto(
                self.fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                flags,
                to.pointer(),
                to.length(),
            )
        };
        check(Step::Send, result).map(drop)
    }

    /// Sends to an address by sendmsg(2).
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn send_message(&self, bytes: &[u8], to: &Address) -> Result<(), Failure> {
        let mut part = part(bytes);
        let message = message(&mut part, to);
        // SAFETY: the message and all it points to live through the call.
        let result = unsafe { libc::sendmsg(self.fd(), &raw const message, libc::MSG_NOSIGNAL) };
        check(Step::Send, result).map(drop)
    }

    /// Sends two messages with the same bytes by one sendmmsg(2).
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
        let result =
            unsafe { libc::sendmmsg(self.fd(), messages.as_mut_ptr(), count, libc::MSG_NOSIGNAL as _) };
        match check(Step::Send, result as libc::ssize_t)? {
            2 => Ok(()),
            sent => Err(Failure::named(Step::Send, &format!("SENT-{sent}-OF-2"))),
        }
    }
}

/// The bytes as part of a message. Sending does not write to them.
pub(super) fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

/// A message of one part. It borrows both arguments as raw pointers.
pub(super) fn message(part: &mut libc::iovec, to: &Address) -> libc::msghdr {
    // SAFETY: plain integers and pointers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.pointer().cast_mut().cast();
    message.msg_namelen = to.length();
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

/// Waits for a thread and returns its result.
///
/// # Errors
/// The failure of the thread; `DIED` when it panicked.
pub fn join(thread: thread::JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Failure::named(Step::Preparation, "DIED")))
}
