//! TCP methods.

use std::net::SocketAddr;

use super::{
    super::{
        client_result::Step,
        egress_method::{EgressMethod, MARKER},
    },
    address::{Address, family},
    socket::{Failure, Socket},
};

fn socket(family: i32) -> Result<Socket, Failure> {
    Socket::new(family, libc::SOCK_STREAM, libc::IPPROTO_TCP)
}

pub(super) fn connect(to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(family(to))?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

pub(super) fn mapped(to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(libc::AF_INET6)?;
    socket.connect(&Address::mapped(to))?;
    socket.send(MARKER)
}

/// A socket with an address of its own sends to that address instead of an unspecified one.
pub(super) fn bound_to_unspecified(method: EgressMethod, to: SocketAddr) -> Result<(), Failure> {
    let at = SocketAddr::new(to.ip(), 0);
    let given = method.requested(to);
    let socket = socket(family(given))?;
    socket.bind(&if method.is_mapped() {
        Address::mapped(at)
    } else {
        Address::of(at)
    })?;
    socket.connect(&Address::of(given))?;
    socket.send(MARKER)
}

pub(super) fn multipath(to: SocketAddr) -> Result<(), Failure> {
    let socket = Socket::new(family(to), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}

/// sendto(2) with MSG_FASTOPEN connects and sends.
pub(super) fn fast_open_send(to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(family(to))?;
    match socket.send_to(MARKER, &Address::of(to), libc::MSG_FASTOPEN) {
        // Without a cookie the kernel sends a normal SYN and accepts no data yet.
        Err(failure) if failure.errno == "EINPROGRESS" => {
            socket.wait_writable(Step::Connect)?;
            socket.send(MARKER)
        }
        Ok(()) => socket.wait_writable(Step::Send),
        other => other,
    }
}

/// connect(2) only stores the destination; the first send connects.
pub(super) fn fast_open_connect(to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(family(to))?;
    socket.set(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    socket.connect(&Address::of(to))?;
    match socket.send(MARKER) {
        Err(failure) if failure.errno == "EINPROGRESS" => {
            socket.wait_writable(Step::Send)?;
            socket.send(MARKER)
        }
        Ok(()) => socket.wait_writable(Step::Send),
        other => other,
    }
}

pub(super) fn disconnect_and_reconnect(via: SocketAddr, to: SocketAddr) -> Result<(), Failure> {
    let socket = socket(family(to))?;
    socket
        .connect(&Address::of(via))
        .map_err(Failure::in_preparation)?;
    socket
        .connect(&Address::unspecified())
        .map_err(Failure::in_preparation)?;
    socket.connect(&Address::of(to))?;
    socket.send(MARKER)
}
