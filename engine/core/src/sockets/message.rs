//! Messages of NETLINK_SOCK_DIAG (include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h). Integers are in host byte
//! order, addresses and ports in network byte order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use engine_common::{Protocol, SocketFamily};
use thiserror::Error;

use super::socket::{Counters, Socket, State};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// NLM_F_ROOT | NLM_F_MATCH.
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_INFO: u16 = 2;
/// Always sent for full sockets (`inet_diag_msg_attrs_fill`, net/ipv4/inet_diag.c).
const INET_DIAG_CGROUP_ID: u16 = 21;
const IPPROTO_RAW: u8 = 255;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Length of `struct inet_diag_msg`.
const DESCRIPTION: usize = 72;
/// Where `struct inet_diag_sockid` starts in it.
const ID: usize = 4;

/// A malformed reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A message or attribute is longer than the reply, or shorter than its header.
    #[error("sock_diag: invalid length in a reply")]
    Length,
    /// The reply did not fit into a buffer.
    #[error("sock_diag: part of the reply was lost")]
    Overrun,
    /// A family that was not requested.
    #[error("sock_diag: unexpected address family {0}")]
    Family(u8),
}

/// A part of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A socket.
    Socket(Box<Socket>),
    /// The end of the reply: 0 or a positive errno.
    End(i32),
}

/// The protocol number of a request.
fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::RAW => IPPROTO_RAW,
        Protocol(number) => number as u8,
    }
}

const fn family_number(family: SocketFamily) -> u8 {
    match family {
        SocketFamily::Inet => libc::AF_INET as u8,
        SocketFamily::Inet6 => libc::AF_INET6 as u8,
    }
}

fn request(kind: u16, flags: u16, sequence: u32, body: [u8; REQUEST]) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    bytes[0..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[HEADER..].copy_from_slice(&body);
    bytes
}

/// A request for all sockets of a family and protocol in one of the states.
pub(super) fn list(
    family: SocketFamily,
    protocol: Protocol,
    states: u32,
    sequence: u32,
) -> [u8; HEADER + REQUEST] {
    let mut body = [0; REQUEST];
    body[0] = family_number(family);
    body[1] = protocol_number(protocol);
    body[2] = 1 << (INET_DIAG_INFO - 1);
    body[4..8].copy_from_slice(&states.to_ne_bytes());
    request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sequence, body)
}

/// A request to destroy a socket.
pub(super) fn destroy(socket: &Socket, sequence: u32) -> [u8; HEADER + REQUEST] {
    let mut body = [0; REQUEST];
    body[0] = family_number(socket.family);
    body[1] = protocol_number(socket.protocol);
    if socket.protocol == Protocol::RAW {
        // `sdiag_raw_protocol`: the kernel finds raw sockets by their IP protocol.
        body[3] = socket.local.port() as u8;
    }
    body[4..8].copy_from_slice(&socket.state.bit().to_ne_bytes());
    body[8..].copy_from_slice(&socket.id);
    request(SOCK_DESTROY, NLM_F_ACK, sequence, body)
}

/// Parses the messages of one recv(2), and calls `part` for those that reply to the request with this sequence number.
pub(super) fn read(
    bytes: &[u8],
    sequence: u32,
    protocol: Protocol,
    mut part: impl FnMut(Part),
) -> Result<(), MessageError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = word(rest, 0)? as usize;
        if length < HEADER {
            return Err(MessageError::Length);
        }
        let message = rest.get(..length).ok_or(MessageError::Length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        if word(message, 8)? != sequence {
            // A late reply to a request that timed out.
            continue;
        }
        match half(message, 4)? {
            NLMSG_ERROR => part(Part::End(errno(message)?)),
            // Holds the error of a failed dump.
            NLMSG_DONE => part(Part::End(if message.len() < HEADER + 4 {
                0
            } else {
                errno(message)?
            })),
            NLMSG_OVERRUN => return Err(MessageError::Overrun),
            SOCK_DIAG_BY_FAMILY => part(Part::Socket(Box::new(socket(&message[HEADER..], protocol)?))),
            _ => {}
        }
    }
    Ok(())
}

/// The errno of a message, as a positive integer.
fn errno(message: &[u8]) -> Result<i32, MessageError> {
    Ok((word(message, HEADER)? as i32).wrapping_neg())
}

fn socket(bytes: &[u8], protocol: Protocol) -> Result<Socket, MessageError> {
    let (description, attributes) = bytes.split_at_checked(DESCRIPTION).ok_or(MessageError::Length)?;
    let family = match i32::from(description[0]) {
        libc::AF_INET => SocketFamily::Inet,
        libc::AF_INET6 => SocketFamily::Inet6,
        _ => return Err(MessageError::Family(description[0])),
    };
    let id: [u8; 48] = array(description, ID)?;
    let local = SocketAddr::new(address(family, array(&id, 4)?), port(&id, 0)?);
    let peer = SocketAddr::new(address(family, array(&id, 20)?), port(&id, 2)?);
    let mut socket = Socket {
        protocol,
        family,
        state: State(description[1]),
        local,
        peer: (!peer.ip().is_unspecified() || peer.port() != 0).then_some(peer),
        queued: word(description, 60)?,
        uid: word(description, 64)?,
        inode: word(description, 68)?,
        cgroup: None,
        counters: None,
        id,
    };
    let mut rest = attributes;
    while !rest.is_empty() {
        let length = usize::from(half(rest, 0)?);
        if length < 4 {
            return Err(MessageError::Length);
        }
        let value = rest.get(4..length).ok_or(MessageError::Length)?;
        match half(rest, 2)? {
            INET_DIAG_CGROUP_ID => socket.cgroup = Some(long(value, 0)?),
            // Older kernels have fewer counters.
            INET_DIAG_INFO if protocol == Protocol::TCP => socket.counters = counters(value).ok(),
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(socket)
}

/// Offsets in `struct tcp_info`, which is only extended at its end.
fn counters(info: &[u8]) -> Result<Counters, MessageError> {
    Ok(Counters {
        acked: long(info, 120)?,
        unsent: word(info, 144)?,
        sent: long(info, 200)?,
        sent_again: long(info, 208)?,
    })
}

/// Netlink pads to four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], MessageError> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().ok_or(MessageError::Length)
}

fn half(bytes: &[u8], at: usize) -> Result<u16, MessageError> {
    array(bytes, at).map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, MessageError> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> Result<u64, MessageError> {
    array(bytes, at).map(u64::from_ne_bytes)
}

fn port(id: &[u8], at: usize) -> Result<u16, MessageError> {
    array(id, at).map(u16::from_be_bytes)
}

fn address(family: SocketFamily, bytes: [u8; 16]) -> IpAddr {
    match family {
        SocketFamily::Inet => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        SocketFamily::Inet6 => IpAddr::V6(Ipv6Addr::from(bytes)),
    }
}
