//! UDP methods.

use std::net::SocketAddr;

use super::{
    super::egress_method::{EgressMethod, MARKER},
    address::{Address, family},
    socket::{Failure, Socket},
};

fn socket(family: i32) -> Result<Socket, Failure> {
    Socket::new(family, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
}

pub(super) fn connect_send(to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(family(to))?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

pub(super) fn send_to(to: SocketAddr) -> Result<(), Failure> {
    socket(family(to))?.send_to(MARKER, &Address::of(to), 0)
}

pub(super) fn send_message(to: SocketAddr) -> Result<(), Failure> {
    socket(family(to))?.send_message(MARKER, &Address::of(to))
}

pub(super) fn send_messages(to: SocketAddr) -> Result<(), Failure> {
    socket(family(to))?.send_messages(MARKER, &Address::of(to))
}

fn connected(via: SocketAddr) -> Result<Socket, Failure> {
    let socket = socket(family(via)).map_err(Failure::in_preparation)?;
    socket
        .connect(&Address::of(via))
        .map_err(Failure::in_preparation)?;
    Ok(socket)
}

pub(super) fn connected_send_to(via: SocketAddr, to: SocketAddr) -> Result<(), Failure> {
    connected(via)?.send_to(MARKER, &Address::of(to), 0)
}

pub(super) fn reconnect(via: SocketAddr, to: SocketAddr) -> Result<(), Failure> {
    let socket = connected(via)?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

pub(super) fn disconnect_and_send_to(via: SocketAddr, to: SocketAddr) -> Result<(), Failure> {
    let socket = connected(via)?;
    socket
        .connect(&Address::unspecified())
        .map_err(Failure::in_preparation)?;
    socket.send_to(MARKER, &Address::of(to), 0)
}

/// `udp_sendmsg` treats AF_UNSPEC as AF_INET.
pub(super) fn send_to_unspecified_family(to: SocketAddr) -> Result<(), Failure> {
    let to = Address::of(to).with_unspecified_family();
    socket(libc::AF_INET)?.send_to(MARKER, &to, 0)
}

/// As [`super::tcp::bound_to_unspecified`].
pub(super) fn bound_send_to_unspecified(method: EgressMethod, to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(family(to))?;
    socket.bind(&Address::of(SocketAddr::new(to.ip(), 0)))?;
    socket.send_to(MARKER, &Address::of(method.requested(to)), 0)
}

pub(super) fn mapped_connect_send(to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(libc::AF_INET6)?;
    socket.connect(&Address::mapped(to))?;
    socket.send(MARKER)
}

pub(super) fn mapped_send_to(to: SocketAddr) -> Result<(), Failure> {
    socket(libc::AF_INET6)?.send_to(MARKER, &Address::mapped(to), 0)
}

pub(super) fn inet_connect_on_inet6(to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(libc::AF_INET6)?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

pub(super) fn inet_send_on_inet6(to: SocketAddr) -> Result<(), Failure> {
    socket(libc::AF_INET6)?.send_to(MARKER, &Address::of(to), 0)
}
