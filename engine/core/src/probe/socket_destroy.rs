//! Whether existing sockets can be destroyed (SOCK_DESTROY over NETLINK_SOCK_DIAG, sock_diag(7)), tried on two sockets
//! of this process.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike},
    },
};

use super::{
    environment::HostEnvironment,
    finding::{Finding, Support},
    refused::RUN_AS_ROOT,
};

const TCP: (&str, u8) = ("destroying TCP sockets", 6);
const UDP: (&str, u8) = ("destroying UDP sockets", 17);
const PURPOSE: &str = "end connections that are older than a policy (SOCK_DESTROY)";

/// `include/uapi/linux/sock_diag.h`.
const SOCK_DESTROY: u16 = 21;
/// `include/uapi/linux/netlink.h`.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
/// A socket with these addresses and any cookie (`INET_DIAG_NOCOOKIE`).
const ANY_COOKIE: u32 = u32::MAX;
/// A kernel without the module does not reply.
const TIMEOUT_SECONDS: i64 = 2;

/// One finding for each protocol.
pub(super) fn findings(environment: &HostEnvironment, allowed: bool) -> Vec<Finding> {
    let of = |(name, protocol): (&'static str, u8), made: io::Result<(SocketAddr, SocketAddr)>| {
        let finding = |support| Finding::new(name, PURPOSE, support);
        if !allowed {
            return finding(Support::Unknown).reason("destroying sockets is disabled");
        }
        let (from, to) = match made {
            Ok(addresses) => addresses,
            Err(error) => {
                return finding(Support::Unknown)
                    .reason(format!("cannot open a socket on loopback to try it on: {error}"));
            }
        };
        match destroy(protocol, from, to) {
            Ok(()) => finding(Support::Yes),
            Err(error) => failed(finding(Support::No), &error, environment),
        }
    };
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
        socket.connect(socket.local_addr()?)?;
        Ok(socket)
    });
    // Both stay open until they are destroyed.
    let tcp = match &listener {
        Ok(listener) => listener.local_addr().map(|address| (address, unspecified)),
        Err(error) => Err(error.kind().into()),
    };
    let udp = match &socket {
        Ok(socket) => socket.local_addr().map(|address| (address, address)),
        Err(error) => Err(error.kind().into()),
    };
    vec![of(TCP, tcp), of(UDP, udp)]
}

fn failed(mut finding: Finding, error: &io::Error, environment: &HostEnvironment) -> Finding {
    let errno = error.raw_os_error();
    finding.errno = errno.map(|errno| format!("{:?}", Errno::from_raw(errno)));
    match errno {
        Some(libc::EPERM | libc::EACCES) if !environment.missing_capabilities().is_empty() => {
            finding.support = Support::Unknown;
            finding.reason(error.to_string()).hint(RUN_AS_ROOT)
        }
        Some(libc::EOPNOTSUPP) => finding
            .reason("the kernel was built without CONFIG_INET_DIAG_DESTROY")
            .hint("use a kernel built with CONFIG_INET_DIAG_DESTROY"),
        Some(libc::ENOENT) => finding
            .reason("the kernel module tcp_diag or udp_diag is missing")
            .hint("modprobe inet_diag tcp_diag udp_diag"),
        Some(libc::EAGAIN) => finding
            .reason("the kernel does not reply: the module inet_diag is missing")
            .hint("modprobe inet_diag tcp_diag udp_diag"),
        _ => finding.reason(error.to_string()),
    }
}

/// Destroys the socket with these addresses.
fn destroy(protocol: u8, from: SocketAddr, to: SocketAddr) -> io::Result<()> {
    // SAFETY: takes integers only.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_SOCK_DIAG,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor without another owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(TIMEOUT_SECONDS))?;
    let request = request(protocol, from, to);
    // SAFETY: the request lives through the call and is as long as it says.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut reply = [0u8; 512];
    // SAFETY: the buffer lives through the call and is as long as it says.
    let length = unsafe { libc::recv(socket.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    // nlmsghdr (length, type, ...: 16 bytes), then nlmsgerr: a negative errno, 0 for success.
    let kind = u16::from_ne_bytes([reply[4], reply[5]]);
    if length < 20 || kind != NLMSG_ERROR {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "unexpected message type",
        ));
    }
    match i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (include/uapi/linux/inet_diag.h).
fn request(protocol: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 16 + 8 + 48;
    let mut bytes = Vec::with_capacity(LENGTH as usize);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DESTROY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // Sequence number and port id: not used.
    bytes.extend([0; 8]);
    // Family, protocol, extensions, padding; all states.
    bytes.extend([libc::AF_INET as u8, protocol, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    for address in [from, to] {
        let mut words = [0; 16];
        if let SocketAddr::V4(address) = address {
            words[..4].copy_from_slice(&address.ip().octets());
        }
        bytes.extend(words);
    }
    // Any device.
    bytes.extend([0; 4]);
    bytes.extend(ANY_COOKIE.to_ne_bytes());
    bytes.extend(ANY_COOKIE.to_ne_bytes());
    bytes
}
