//! A netlink socket for sock_diag requests in one network namespace.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    thread,
};

use engine_common::{Protocol, SocketFamily};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};
use thiserror::Error;

use super::{
    message::{self, MessageError, Part},
    network_namespace::Network,
    socket::{Socket, State},
};

/// Time limit for one reply. Some kernels do not reply when modules are missing.
const TIMEOUT_SECONDS: i64 = 5;
/// More than the kernel puts into one reply (`netlink_dump`: at most 32 KiB).
const REPLY_BYTES: usize = 64 * 1024;

/// A sock_diag request failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiagError {
    /// A system call on the netlink socket or a namespace failed.
    #[error("cannot {step}")]
    Io {
        /// The operation.
        step: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// No reply within the time limit.
    #[error("the kernel does not reply: its modules inet_diag, tcp_diag and udp_diag may be missing")]
    NoReply,
    /// The kernel cannot list sockets of this protocol.
    #[error(
        "the kernel cannot list sockets of this protocol: its module tcp_diag, udp_diag or raw_diag is missing"
    )]
    Absent,
    /// The kernel replied with an error.
    #[error("the kernel refused the request")]
    Refused(#[source] io::Error),
    /// The reply is malformed.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// A socket of NETLINK_SOCK_DIAG. It stays in the network namespace in which it was created.
pub struct Diag {
    socket: OwnedFd,
    sequence: u32,
}

fn io(step: &'static str) -> impl Fn(Errno) -> DiagError {
    move |errno| DiagError::Io {
        step,
        source: errno.into(),
    }
}

impl Diag {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub fn open() -> Result<Diag, DiagError> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )
        .map_err(io("open a NETLINK_SOCK_DIAG socket"))?;
        let timeout = TimeVal::seconds(TIMEOUT_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(io("set a time limit"))?;
        Ok(Diag { socket, sequence: 0 })
    }

    /// Opens a socket in another network namespace. A temporary thread enters it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the socket cannot be created.
    pub fn open_in(network: &Network) -> Result<Diag, DiagError> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, || {
                setns(network.file(), CloneFlags::CLONE_NEWNET).map_err(io("enter the network namespace"))?;
                Diag::open()
            });
            let thread = thread.map_err(|source| DiagError::Io {
                step: "start a thread",
                source,
            })?;
            thread.join().unwrap_or(Err(DiagError::NoReply))
        })
    }

    /// Whether the kernel can list the sockets of a protocol.
    ///
    /// # Errors
    /// With the reason why it cannot.
    pub fn can_list(&mut self, protocol: Protocol) -> Result<(), DiagError> {
        self.list_in(SocketFamily::Inet, protocol, 0, |_| {})
    }

    /// Whether the kernel can destroy sockets, and this process may.
    ///
    /// # Errors
    /// With the reason why it cannot.
    pub fn can_destroy(&mut self) -> Result<(), DiagError> {
        match self.destroy(&Socket::nonexistent()) {
            // It searched for the socket.
            Err(DiagError::Refused(cause)) if cause.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Calls `each` for every socket of a family and protocol that is connected, connecting or listening; for protocols
    /// without an address hook, for every socket.
    ///
    /// # Errors
    /// [`DiagError::Absent`] when the kernel does not have the protocol or cannot list it; otherwise when the request
    /// fails.
    pub fn list(
        &mut self,
        family: SocketFamily,
        protocol: Protocol,
        each: impl FnMut(Socket),
    ) -> Result<(), DiagError> {
        self.list_in(family, protocol, states(protocol), each)
    }

    fn list_in(
        &mut self,
        family: SocketFamily,
        protocol: Protocol,
        states: u32,
        each: impl FnMut(Socket),
    ) -> Result<(), DiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message::list(family, protocol, states, self.sequence);
        self.request(&request, protocol, each)
            .map_err(|error| match error {
                DiagError::Refused(cause) if cause.raw_os_error() == Some(libc::ENOENT) => DiagError::Absent,
                error => error,
            })
    }

    /// Destroys a socket (Linux 4.5; UDP 4.9): its process gets ECONNABORTED, its peer a reset if the protocol has one.
    ///
    /// # Errors
    /// When the socket does not exist any more, or the kernel refuses.
    pub fn destroy(&mut self, socket: &Socket) -> Result<(), DiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message::destroy(socket, self.sequence);
        self.request(&request, socket.protocol, |_| {})
    }

    fn request(
        &mut self,
        request: &[u8],
        protocol: Protocol,
        mut each: impl FnMut(Socket),
    ) -> Result<(), DiagError> {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty()).map_err(io("send a sock_diag request"))?;
        let mut buffer = vec![0; REPLY_BYTES];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(DiagError::NoReply),
                length => length.map_err(io("receive a sock_diag reply"))?,
            };
            let reply = buffer.get(..length).ok_or(MessageError::Overrun)?;
            let mut end = None;
            message::read(reply, self.sequence, protocol, |part| match part {
                Part::Socket(socket) => each(*socket),
                Part::End(errno) => end = Some(errno),
            })?;
            match end {
                None => {}
                Some(0) => return Ok(()),
                Some(errno) => return Err(DiagError::Refused(io::Error::from_raw_os_error(errno))),
            }
        }
    }
}

/// States in which a socket can send without calling a hook, and LISTEN.
fn states(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::TCP => [
            State::ESTABLISHED,
            State::SYN_SENT,
            State::SYN_RECV,
            State::FIN_WAIT1,
            State::FIN_WAIT2,
            State::CLOSE_WAIT,
            State::LAST_ACK,
            State::LISTEN,
            State::CLOSING,
        ]
        .iter()
        .fold(0, |set, state| set | state.bit()),
        Protocol::UDP => State::ESTABLISHED.bit(),
        _ => u32::MAX,
    }
}
