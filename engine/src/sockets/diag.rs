//! Asking the kernel, in one network.

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
    network::Network,
    socket::{Socket, State},
};

/// How long the kernel may take for one answer. Some answer nothing at all where modules are missing.
const PATIENCE_SECONDS: i64 = 5;
/// More than the kernel puts into one answer (`netlink_dump`: 32 KiB at most).
const ANSWER_BYTES: usize = 64 * 1024;

/// Why the kernel could not be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiagError {
    /// There is no such socket.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing came.
    #[error("the kernel does not answer: its modules inet_diag, tcp_diag and udp_diag may be missing")]
    Silent,
    /// The kernel cannot tell of this protocol.
    #[error(
        "the kernel cannot list sockets of this protocol: its module tcp_diag, udp_diag or raw_diag is missing"
    )]
    Absent,
    /// It said no.
    #[error("the kernel refuses")]
    Refused(#[source] io::Error),
    /// What came is no answer.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// A socket of NETLINK_SOCK_DIAG. It stays in the network it was made in, whoever uses it.
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
    /// In this thread's network.
    ///
    /// # Errors
    /// [`DiagError`].
    pub fn here() -> Result<Diag, DiagError> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )
        .map_err(io("open a NETLINK_SOCK_DIAG socket"))?;
        let patience = TimeVal::seconds(PATIENCE_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).map_err(io("set a time limit"))?;
        Ok(Diag { socket, sequence: 0 })
    }

    /// In another network. Only a thread that ends at once goes there.
    ///
    /// # Errors
    /// [`DiagError`].
    pub fn within(network: &Network) -> Result<Diag, DiagError> {
        thread::scope(|scope| {
            let there = thread::Builder::new().spawn_scoped(scope, || {
                setns(network.file(), CloneFlags::CLONE_NEWNET).map_err(io("enter the network namespace"))?;
                Diag::here()
            });
            let there = there.map_err(|source| DiagError::Io {
                step: "start a thread",
                source,
            })?;
            there.join().unwrap_or(Err(DiagError::Silent))
        })
    }

    /// Whether the kernel can list the sockets of a protocol.
    ///
    /// # Errors
    /// [`DiagError`] that says why not.
    pub fn can_list(&mut self, protocol: Protocol) -> Result<(), DiagError> {
        self.list_in(SocketFamily::Inet, protocol, 0, |_| {})
    }

    /// Whether the kernel can end sockets, and lets us.
    ///
    /// # Errors
    /// [`DiagError`] that says why not.
    pub fn can_destroy(&mut self) -> Result<(), DiagError> {
        match self.destroy(&Socket::nobodys()) {
            // It looked for one.
            Err(DiagError::Refused(cause)) if cause.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            answer => answer,
        }
    }

    /// Hands out all sockets of a family and protocol that go somewhere or listen; of protocols without an
    /// address hook, all.
    ///
    /// # Errors
    /// [`DiagError`]; [`DiagError::Absent`] where the kernel does not have the protocol, or cannot tell.
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
        self.ask(&request, protocol, each).map_err(|error| match error {
            DiagError::Refused(cause) if cause.raw_os_error() == Some(libc::ENOENT) => DiagError::Absent,
            error => error,
        })
    }

    /// Ends a socket (Linux 4.5, 4.9 for UDP): its process sees ECONNABORTED, its peer a reset where the
    /// protocol has such a thing.
    ///
    /// # Errors
    /// [`DiagError`].
    pub fn destroy(&mut self, socket: &Socket) -> Result<(), DiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message::destroy(socket, self.sequence);
        self.ask(&request, socket.protocol, |_| {})
    }

    fn ask(
        &mut self,
        request: &[u8],
        protocol: Protocol,
        mut each: impl FnMut(Socket),
    ) -> Result<(), DiagError> {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty()).map_err(io("ask the kernel"))?;
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(DiagError::Silent),
                length => length.map_err(io("read the kernel's answer"))?,
            };
            let answer = buffer.get(..length).ok_or(MessageError::Overrun)?;
            let mut end = None;
            message::read(answer, self.sequence, protocol, |part| match part {
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

/// States in which a socket can send to somebody without asking a hook, and LISTEN.
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
