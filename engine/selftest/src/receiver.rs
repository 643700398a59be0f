//! Receivers of the test clients, outside of any policy.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use thiserror::Error;

use super::egress_method::{EXPERIMENTAL_PROTOCOL, Transport};

/// Time limit for something that happens immediately if it happens at all.
const TIMEOUT: Duration = Duration::from_secs(20);

const SENTINEL: &[u8] = b"tidegate sentinel";

/// ICMP and ICMPv6 types of echo requests. Identifier and sequence number are zero.
const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

/// Why a receiver could not listen, or not receive.
#[derive(Debug, Error)]
#[error("the receiver on {address} failed to {step}")]
pub struct ReceiverError {
    step: &'static str,
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// A listening socket.
#[derive(Debug)]
pub struct Receiver {
    transport: Transport,
    address: SocketAddr,
    socket: Socket,
}

impl Receiver {
    /// Listens on an address; with port 0 the kernel chooses a port. `None` if the kernel does not support the
    /// protocol.
    ///
    /// # Errors
    /// When the kernel supports the protocol but refuses to listen.
    pub fn listen(transport: Transport, address: SocketAddr) -> Result<Option<Receiver>, ReceiverError> {
        let failed = |step| {
            move |source| ReceiverError {
                step,
                address,
                source,
            }
        };
        let socket = match new_socket(transport, address.ip()) {
            Ok(socket) => socket,
            Err(error) => {
                let unsupported = [
                    libc::EPROTONOSUPPORT,
                    libc::ESOCKTNOSUPPORT,
                    libc::EAFNOSUPPORT,
                    libc::EINVAL,
                    libc::ENOPROTOOPT,
                ];
                return match error.raw_os_error() {
                    Some(errno) if unsupported.contains(&errno) => Ok(None),
                    _ => Err(failed("create a socket")(error)),
                };
            }
        };
        socket.bind(&address.into()).map_err(failed("bind"))?;
        if is_stream(transport) {
            socket.listen(128).map_err(failed("listen"))?;
        }
        // No method uses it with MPTCP, and Linux 6.1 refuses it for MPTCP sockets.
        if transport == Transport::Tcp {
            accept_fast_open(&socket).map_err(failed("enable TCP fast open"))?;
        }
        socket
            .set_read_timeout(Some(TIMEOUT))
            .map_err(failed("set a timeout"))?;
        let bound = if has_ports(transport) {
            let bound = socket.local_addr().map_err(failed("read its address"))?;
            bound.as_socket().unwrap_or(address)
        } else {
            address
        };
        Ok(Some(Receiver {
            transport,
            address: bound,
            socket,
        }))
    }

    /// The address it listens on; port 0 for protocols without ports.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that arrived since the last call: the bytes of each connection, and the payload of each
    /// datagram.
    ///
    /// Does not wait for a fixed time: it sends a sentinel to itself, and everything sent earlier arrives before
    /// the sentinel, because loopback delivers in order.
    ///
    /// # Errors
    /// When the sentinel does not arrive.
    pub fn arrived(&self) -> Result<Vec<Vec<u8>>, ReceiverError> {
        let failed = |step| {
            move |source| ReceiverError {
                step,
                address: self.address,
                source,
            }
        };
        let connection = self.send_sentinel().map_err(failed("send its sentinel"))?;
        let mut arrived = Vec::new();
        loop {
            let message = self.next().map_err(failed("receive its sentinel"))?;
            if message == SENTINEL {
                drop(connection);
                return Ok(arrived);
            }
            arrived.push(message);
        }
    }

    fn next(&self) -> std::io::Result<Vec<u8>> {
        if is_stream(self.transport) {
            let (mut stream, _) = self.socket.accept()?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            let mut message = Vec::new();
            return match stream.read_to_end(&mut message) {
                // A connection that was reset was established before. SCTP says *not connected* of an association that was
                // aborted (sctp_recvmsg, net/sctp/socket.c).
                Err(error)
                    if !matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::NotConnected) =>
                {
                    Err(error)
                }
                _ => Ok(message),
            };
        }
        loop {
            let mut buffer = [0; 2048];
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let packet = &buffer[..length];
            if let Some(message) = self.message(packet) {
                return Ok(message.to_vec());
            }
        }
    }

    /// The payload of a received packet; `None` for packets that are not echo requests, such as the kernel's echo
    /// replies.
    fn message<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let is_v4 = self.address.is_ipv4();
        let payload = match self.transport {
            // Raw IPv4 sockets receive the IP header too; its length is in units of four bytes.
            Transport::Raw | Transport::Echo if is_v4 => packet.get(usize::from(packet[0] & 15) * 4..)?,
            _ => packet,
        };
        if self.transport != Transport::Echo {
            return Some(payload);
        }
        let request = if is_v4 { ECHO_V4 } else { ECHO_V6 };
        (payload.first() == Some(&request))
            .then(|| payload.get(8..))
            .flatten()
    }

    fn send_sentinel(&self) -> std::io::Result<Option<Socket>> {
        if is_stream(self.transport) {
            let mut stream = new_socket(self.transport, self.address.ip())?;
            stream.connect(&self.address.into())?;
            stream.write_all(SENTINEL)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            return Ok(Some(stream));
        }
        let socket = new_socket(self.transport, self.address.ip())?;
        let message = match (self.transport, self.address) {
            (Transport::Echo, SocketAddr::V4(_)) => echo_v4(SENTINEL),
            (Transport::Echo, SocketAddr::V6(_)) => [&[ECHO_V6, 0, 0, 0, 0, 0, 0, 0], SENTINEL].concat(),
            _ => SENTINEL.to_vec(),
        };
        socket.send_to(&message, &SockAddr::from(self.address))?;
        Ok(None)
    }
}

fn is_stream(transport: Transport) -> bool {
    matches!(transport, Transport::Tcp | Transport::Mptcp | Transport::Sctp)
}

fn has_ports(transport: Transport) -> bool {
    !matches!(transport, Transport::Raw | Transport::Echo)
}

fn new_socket(transport: Transport, address: IpAddr) -> std::io::Result<Socket> {
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, libc::IPPROTO_TCP),
        Transport::Mptcp => (Type::STREAM, libc::IPPROTO_MPTCP),
        Transport::Sctp => (Type::STREAM, libc::IPPROTO_SCTP),
        Transport::Udp => (Type::DGRAM, libc::IPPROTO_UDP),
        Transport::Udplite => (Type::DGRAM, libc::IPPROTO_UDPLITE),
        Transport::Raw => (Type::RAW, EXPERIMENTAL_PROTOCOL),
        Transport::Echo if address.is_ipv4() => (Type::RAW, libc::IPPROTO_ICMP),
        Transport::Echo => (Type::RAW, libc::IPPROTO_ICMPV6),
    };
    Socket::new(domain, kind, Some(Protocol::from(protocol)))
}

/// Accepts data in the SYN (TCP_FASTOPEN, net/ipv4/tcp_fastopen.c).
fn accept_fast_open(socket: &Socket) -> std::io::Result<()> {
    let queue: libc::c_int = 16;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option takes an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const queue).cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// An echo request with its checksum (RFC 792), which raw IPv4 sockets do not compute.
fn echo_v4(payload: &[u8]) -> Vec<u8> {
    let mut packet = [&[ECHO_V4, 0, 0, 0, 0, 0, 0, 0], payload].concat();
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    packet[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}
