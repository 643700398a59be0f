//! Methods whose destinations no cgroup address hook sees: SCTP, UDP-Lite, raw IP, ping, packet sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::errno::Errno;

use super::{
    super::{
        client_result::Step,
        egress_method::{EXPERIMENTAL_PROTOCOL, MARKER},
    },
    address::{Address, family},
    socket::{Failure, Socket},
};

pub(super) fn sctp_connect(to: SocketAddr) -> Result<(), Failure> {
    let socket = Socket::new(family(to), libc::SOCK_STREAM, libc::IPPROTO_SCTP)?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

fn udplite(to: SocketAddr) -> Result<Socket, Failure> {
    Socket::new(family(to), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)
}

pub(super) fn udplite_connect_send(to: SocketAddr) -> Result<(), Failure> {
    let socket = udplite(to)?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

pub(super) fn udplite_send_to(to: SocketAddr) -> Result<(), Failure> {
    udplite(to)?.send_to(MARKER, &Address::of(to), 0)
}

fn raw(to: SocketAddr) -> Result<Socket, Failure> {
    Socket::new(family(to), libc::SOCK_RAW, EXPERIMENTAL_PROTOCOL)
}

pub(super) fn raw_connect_send(to: SocketAddr) -> Result<(), Failure> {
    let socket = raw(to)?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

pub(super) fn raw_send_to(to: SocketAddr) -> Result<(), Failure> {
    raw(to)?.send_to(MARKER, &Address::of(to), 0)
}

pub(super) fn raw_own_header(to: SocketAddr) -> Result<(), Failure> {
    let socket = Socket::new(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    socket.send_to(&packet_for(to), &Address::of(to), 0)
}

/// The IP protocol and an echo request; the kernel sets identifier and checksum.
pub(super) fn echo(to: SocketAddr) -> (i32, Vec<u8>) {
    let (protocol, request) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_ICMP, 8),
        SocketAddr::V6(_) => (libc::IPPROTO_ICMPV6, 128),
    };
    (protocol, [&[request, 0, 0, 0, 0, 0, 0, 1], MARKER].concat())
}

fn ping(to: SocketAddr) -> Result<(Socket, Vec<u8>), Failure> {
    let (protocol, request) = echo(to);
    Ok((Socket::new(family(to), libc::SOCK_DGRAM, protocol)?, request))
}

pub(super) fn ping_connect_send(to: SocketAddr) -> Result<(), Failure> {
    let (socket, request) = ping(to)?;
    socket.connect(&Address::of(to))?;
    socket.send(&request)
}

pub(super) fn ping_send_to(to: SocketAddr) -> Result<(), Failure> {
    let (socket, request) = ping(to)?;
    socket.send_to(&request, &Address::of(to), 0)
}

/// A datagram socket of AF_PACKET: the kernel writes the link header, this function the IP header.
pub(super) fn packet(to: SocketAddr) -> Result<(), Failure> {
    let protocol = (libc::ETH_P_IP as u16).to_be();
    let socket = Socket::new(libc::AF_PACKET, libc::SOCK_DGRAM, i32::from(protocol))?;
    // SAFETY: plain integers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    // The loopback device is the first one of a namespace.
    address.sll_ifindex = 1;
    address.sll_halen = 6;
    let packet = packet_for(to);
    // SAFETY: packet and address live through the call and have the lengths given.
    let result = unsafe {
        libc::sendto(
            socket.fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(Failure::of(Step::Send, Errno::last()));
    }
    Ok(())
}

/// An IPv4 packet of the experimental protocol. Its source address is its destination, which loopback accepts.
pub fn packet_for(to: SocketAddr) -> Vec<u8> {
    let to = match to.ip() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let length = 20 + MARKER.len() as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0, 0, 64, EXPERIMENTAL_PROTOCOL as u8, 0, 0]);
    header.extend(to.octets());
    header.extend(to.octets());
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    [header.as_slice(), MARKER].concat()
}
