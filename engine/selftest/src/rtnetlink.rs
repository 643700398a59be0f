//! Configures the loopback device over rtnetlink, without ip(8).

use std::{
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
    },
};

/// Index of `lo` in a fresh namespace.
const LOOPBACK: u32 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address is usable immediately.
const IFA_F_NODAD: u8 = 0x02;

const RTM_NEWROUTE: u16 = 24;
/// Multicast group of IPv6 route changes (RTMGRP_IPV6_ROUTE).
const GROUP_V6_ROUTES: u32 = 0x400;
const RTN_LOCAL: u8 = 2;

/// Time limit for a route to appear, in milliseconds.
const TIMEOUT: u16 = 20_000;

/// A socket for requests, and one that is subscribed to route changes.
#[derive(Debug)]
pub(super) struct Rtnetlink {
    requests: OwnedFd,
    routes: OwnedFd,
}

impl Rtnetlink {
    pub(super) fn open() -> Result<Rtnetlink, Errno> {
        let routes = netlink()?;
        bind(routes.as_raw_fd(), &NetlinkAddr::new(0, GROUP_V6_ROUTES))?;
        Ok(Rtnetlink {
            requests: netlink()?,
            routes,
        })
    }

    /// Sets the loopback device up.
    pub(super) fn up(&self) -> Result<(), Errno> {
        let mut body = vec![0; 4];
        body.extend(LOOPBACK.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        self.request(RTM_NEWLINK, 0, &body)
    }

    /// Adds an address to the loopback device. Every address of an IPv4 network on it becomes local.
    pub(super) fn add(&self, address: IpAddr, prefix: u8) -> Result<(), Errno> {
        let (family, bytes) = match address {
            IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
        };
        let mut body = vec![family, prefix, IFA_F_NODAD, 0];
        body.extend(LOOPBACK.to_ne_bytes());
        for kind in [IFA_LOCAL, IFA_ADDRESS] {
            body.extend((4 + bytes.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(&bytes);
        }
        self.request(RTM_NEWADDR, NLM_F_CREATE, &body)?;
        match address {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(v6) => self.wait_for_route(v6),
        }
    }

    /// Waits until an IPv6 address is reachable: a kernel worker adds its route later
    /// (`addrconf_dad_work`, net/ipv6/addrconf.c).
    fn wait_for_route(&self, address: Ipv6Addr) -> Result<(), Errno> {
        let mut buffer = [0; 4096];
        loop {
            let mut fds = [PollFd::new(self.routes.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(TIMEOUT))? == 0 {
                return Err(Errno::ETIMEDOUT);
            }
            let length = recv(self.routes.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if is_route_to(&buffer[..length], address) {
                return Ok(());
            }
        }
    }

    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        let mut message = Vec::new();
        message.extend((16 + body.len() as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.requests.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        let mut reply = [0; 512];
        let length = recv(self.requests.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        // struct nlmsghdr (16 bytes), then struct nlmsgerr: a negative errno, or 0.
        if length < 20 || u16::from_ne_bytes([reply[4], reply[5]]) != NLMSG_ERROR {
            return Err(Errno::EPROTO);
        }
        match i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]) {
            0 => Ok(()),
            error => Err(Errno::from_raw(-error)),
        }
    }
}

fn netlink() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
}

/// Whether a message (`nlmsghdr`, `rtmsg`, attributes) announces a local route to an address.
fn is_route_to(message: &[u8], address: Ipv6Addr) -> bool {
    if message.len() < 28 || u16::from_ne_bytes([message[4], message[5]]) != RTM_NEWROUTE {
        return false;
    }
    let (family, prefix, kind) = (message[16], message[17], message[23]);
    family == libc::AF_INET6 as u8
        && prefix == 128
        && kind == RTN_LOCAL
        && message[28..].windows(16).any(|bytes| bytes == address.octets())
}
