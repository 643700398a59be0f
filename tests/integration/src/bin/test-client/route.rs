//! Source routes: packets go to a hop first, which no address hook sees.

use std::net::IpAddr;

use integration::client_result::Step;
use integration::selftest::client::{Failure, Socket};
use nix::errno::Errno;

/// Routes later packets of a socket over a hop. IPv4: a loose source route (RFC 791); newer kernels require
/// CAP_NET_RAW for it. IPv6: a segment routing header (RFC 8754) by IPV6_RTHDR, which needs no privilege.
pub(crate) fn by(socket: &Socket, hop: IpAddr) -> Result<(), Failure> {
    match hop {
        IpAddr::V4(hop) => {
            let route = [&[131, 7, 4][..], &hop.octets(), &[0]].concat();
            set(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)
        }
        IpAddr::V6(hop) => {
            // Length in units of 8 bytes minus one, type, segments left, last segment, flags, tag.
            let mut route = vec![0, 4, 4, 1, 1, 0, 0, 0];
            // The kernel fills in the destination as the first segment.
            route.extend([0; 16]);
            route.extend(hop.octets());
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &route)
        }
    }
}

fn set(socket: &Socket, level: i32, name: i32, value: &[u8]) -> Result<(), Failure> {
    // SAFETY: the value lives through the call and has the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(Failure::of(Step::Preparation, Errno::last()));
    }
    Ok(())
}
