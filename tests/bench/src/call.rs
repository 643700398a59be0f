//! The calls that are timed, in batches.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    address::{Address, Family},
    bpf::Hook,
    network::{Network, set_option},
};

/// The system calls that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// connect(2) of one datagram socket, repeatedly.
    UdpConnect,
    /// sendto(2) with an address.
    UdpSendto,
    /// connect(2) and send(2): address hooks do not see the send, and nftables does not see the connect.
    UdpConnectSend,
    /// connect(2) of a new stream socket to a listener.
    TcpConnect,
}

impl Call {
    /// The name in row names.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Call::UdpConnect => "udp-connect",
            Call::UdpSendto => "udp-sendto",
            Call::UdpConnectSend => "udp-connect-send",
            Call::TcpConnect => "tcp-connect",
        }
    }

    /// Calls per batch.
    pub(crate) const fn batch(self) -> usize {
        match self {
            Call::TcpConnect => 16,
            _ => 64,
        }
    }

    /// The cgroup hook that it triggers.
    pub(crate) const fn hook(self, family: Family) -> Hook {
        match (self, family) {
            (Call::UdpSendto, Family::V4) => Hook::Sendmsg4,
            (Call::UdpSendto, Family::V6) => Hook::Sendmsg6,
            (_, Family::V4) => Hook::Connect4,
            (_, Family::V6) => Hook::Connect6,
        }
    }
}

/// The measurement of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) took: Duration,
    /// Calls that failed.
    pub(crate) refused: usize,
}

/// Sockets in one cgroup and network, enough for a number of batches.
pub(crate) struct Caller {
    call: Call,
    family: Family,
    network: Rc<Network>,
    sockets: Vec<OwnedFd>,
}

impl Caller {
    /// Creates sockets for `batches` batches, in the current cgroup and network of the thread.
    pub(crate) fn prepare(
        call: Call,
        family: Family,
        network: &Rc<Network>,
        batches: usize,
    ) -> Result<Caller> {
        let (kind, count) = match call {
            Call::TcpConnect => (libc::SOCK_STREAM, batches * call.batch()),
            _ => (libc::SOCK_DGRAM, 1),
        };
        let sockets: Result<Vec<OwnedFd>> = (0..count).map(|_| socket(family, kind)).collect();
        Ok(Caller {
            call,
            family,
            network: Rc::clone(network),
            sockets: sockets?,
        })
    }

    /// Makes one call to each target.
    pub(crate) fn batch(&mut self, targets: &[Address]) -> Result<Batch> {
        match self.call {
            Call::TcpConnect => self.tcp_batch(targets),
            _ => {
                let socket = self.sockets[0].as_raw_fd();
                Ok(timed(targets, |to| match self.call {
                    Call::UdpSendto => send_to(socket, to),
                    Call::UdpConnectSend => connect(socket, to) && send(socket),
                    _ => connect(socket, to),
                }))
            }
        }
    }

    fn tcp_batch(&mut self, targets: &[Address]) -> Result<Batch> {
        ensure!(self.sockets.len() >= targets.len(), "no socket is left");
        let used = self.sockets.split_off(self.sockets.len() - targets.len());
        let mut fresh = used.iter();
        let batch = timed(targets, |to| {
            let socket = fresh.next().map_or(-1, AsRawFd::as_raw_fd);
            connect(socket, to)
        });
        for socket in used {
            // Close by a reset, so that no socket stays in TIME_WAIT.
            let at_once = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            set_option(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &at_once)?;
        }
        self.network.close_accepted(self.family);
        Ok(batch)
    }
}

/// Measures the time of one call to each target.
#[inline(always)]
fn timed(targets: &[Address], mut call: impl FnMut(&Address) -> bool) -> Batch {
    let mut refused = 0;
    let start = Instant::now();
    for target in targets {
        refused += usize::from(!call(target));
    }
    Batch {
        took: start.elapsed(),
        refused,
    }
}

fn socket(family: Family, kind: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let fd = unsafe { libc::socket(family.number(), kind | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and owned here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[inline(always)]
fn connect(socket: RawFd, to: &Address) -> bool {
    // SAFETY: the address is valid through the call and has the length given.
    unsafe { libc::connect(socket, to.pointer(), to.length()) == 0 }
}

const PAYLOAD: [u8; 16] = [0; 16];

#[inline(always)]
fn send(socket: RawFd) -> bool {
    // SAFETY: the bytes are valid through the call and have the length given.
    unsafe { libc::send(socket, PAYLOAD.as_ptr().cast(), PAYLOAD.len(), 0) >= 0 }
}

#[inline(always)]
fn send_to(socket: RawFd, to: &Address) -> bool {
    // SAFETY: address and bytes are valid through the call and have the lengths given.
    unsafe {
        libc::sendto(
            socket,
            PAYLOAD.as_ptr().cast(),
            PAYLOAD.len(),
            0,
            to.pointer(),
            to.length(),
        ) >= 0
    }
}
