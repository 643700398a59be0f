//! The far end, outside the gate: what arrived here did get out.

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

/// How long anything may take that happens at once when it happens at all.
const PATIENCE: Duration = Duration::from_secs(20);

const SENTINEL: &[u8] = b"tidegate sentinel";

/// Echo requests of ICMP and ICMPv6 start so; identifier and number are zero, the checksum is put
/// in by whoever sends.
const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

/// What the far end could not do.
#[derive(Debug, Error)]
#[error("the receiver on {address} cannot {step}")]
pub struct ReceiverError {
    step: &'static str,
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// A socket that listens.
#[derive(Debug)]
pub struct Receiver {
    transport: Transport,
    address: SocketAddr,
    socket: Socket,
}

impl Receiver {
    /// Listens on an address; port 0 lets the kernel choose one. `None` where this kernel does not have
    /// the protocol.
    ///
    /// # Errors
    /// When it cannot listen.
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
                let absent = [
                    libc::EPROTONOSUPPORT,
                    libc::ESOCKTNOSUPPORT,
                    libc::EAFNOSUPPORT,
                    libc::EINVAL,
                    libc::ENOPROTOOPT,
                ];
                return match error.raw_os_error() {
                    Some(number) if absent.contains(&number) => Ok(None),
                    _ => Err(failed("make a socket")(error)),
                };
            }
        };
        socket.bind(&address.into()).map_err(failed("bind"))?;
        if is_stream(transport) {
            socket.listen(128).map_err(failed("listen"))?;
        }
        // No way over MPTCP asks for it, and Linux 6.1 refuses it there.
        if transport == Transport::Tcp {
            accept_fast_open(&socket).map_err(failed("take fast open"))?;
        }
        socket
            .set_read_timeout(Some(PATIENCE))
            .map_err(failed("set a timeout"))?;
        let bound = if has_ports(transport) {
            let bound = socket.local_addr().map_err(failed("tell its address"))?;
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

    /// Where it listens; port 0 for protocols without.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that arrived since the last call: for each connection what was sent over it, for each
    /// datagram what was in it.
    ///
    /// No time is waited for: a sentinel is sent from here, and what was sent before it has arrived
    /// before it, since loopback delivers in order.
    ///
    /// # Errors
    /// When the sentinel itself does not arrive.
    pub fn arrived(&self) -> Result<Vec<Vec<u8>>, ReceiverError> {
        let failed = |step| {
            move |source| ReceiverError {
                step,
                address: self.address,
                source,
            }
        };
        let connection = self.send_sentinel().map_err(failed("send to itself"))?;
        let mut arrived = Vec::new();
        loop {
            let message = self.next().map_err(failed("receive what it sent itself"))?;
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
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut message = Vec::new();
            return match stream.read_to_end(&mut message) {
                // A connection that was reset was a connection.
                Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
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

    /// The message in what the socket hands out; `None` for a packet that is not addressed to us:
    /// answers to echo requests, and what the sentinel's socket type sees beside it.
    fn message<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let is_v4 = self.address.is_ipv4();
        let payload = match self.transport {
            // Raw IPv4 sockets are given the header too; its length is in words.
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

/// Takes data in the first packet (TCP_FASTOPEN, net/ipv4/tcp_fastopen.c).
fn accept_fast_open(socket: &Socket) -> std::io::Result<()> {
    let queue: libc::c_int = 16;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option takes an int, which lives through the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const queue).cast(),
            length,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// An echo request with its checksum (RFC 792): raw IPv4 sockets leave that to the sender.
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
