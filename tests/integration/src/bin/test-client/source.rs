//! What makes the kernel choose another source address or device: socket options and control messages.

use std::net::{IpAddr, SocketAddr};

use integration::selftest::client::{Failure, Socket};
use integration::{client_result::Step, egress_method::MARKER};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};
use std::{io::IoSlice, os::fd::AsRawFd};

fn index_of(device: &str) -> Result<u32, Failure> {
    if_nametoindex(device).map_err(|errno| Failure::of(Step::Preparation, errno))
}

/// Binds a socket to a device (SO_BINDTODEVICE).
pub(crate) fn bind_to_device(socket: &Socket, device: &str) -> Result<(), Failure> {
    // SAFETY: the name lives through the call and has the length given.
    let answer = unsafe {
        libc::setsockopt(
            socket.fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            device.len() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(Failure::of(Step::Preparation, Errno::last()));
    }
    Ok(())
}

/// Chooses the device of unicast packets (IP_UNICAST_IF, IPV6_UNICAST_IF).
pub(crate) fn unicast_device(socket: &Socket, level: i32, device: &str) -> Result<(), Failure> {
    /// Not in the crate `libc` (linux/in.h, linux/in6.h).
    const IP_UNICAST_IF: i32 = 50;
    const IPV6_UNICAST_IF: i32 = 76;
    let option = if level == libc::IPPROTO_IP {
        IP_UNICAST_IF
    } else {
        IPV6_UNICAST_IF
    };
    socket.set(level, option, index_of(device)?.to_be() as i32)
}

/// Sends a datagram with a source address and a device (`-` for none) in a control message (IP_PKTINFO, IPV6_PKTINFO).
pub(crate) fn send_with(
    socket: &Socket,
    to: SocketAddr,
    source: IpAddr,
    device: &str,
) -> Result<(), Failure> {
    let index = match device {
        "-" => 0,
        name => index_of(name)?,
    };
    let (mut v4, mut v6);
    let control = match source {
        IpAddr::V4(source) => {
            v4 = libc::in_pktinfo {
                ipi_ifindex: index as i32,
                ipi_spec_dst: libc::in_addr { s_addr: 0 },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            v4.ipi_spec_dst.s_addr = u32::from(source).to_be();
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(source) => {
            v6 = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: [0; 16] },
                ipi6_ifindex: index as _,
            };
            v6.ipi6_addr.s6_addr = source.octets();
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let to = SockaddrStorage::from(to);
    let sent = sendmsg(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(MARKER)],
        &[control],
        MsgFlags::MSG_NOSIGNAL,
        Some(&to),
    );
    sent.map(drop).map_err(|errno| Failure::of(Step::Send, errno))
}
