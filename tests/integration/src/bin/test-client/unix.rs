//! Unix sockets, by path or by abstract name (with a leading `@`).

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixStream},
    },
};

use integration::selftest::client::Failure;
use integration::{client_result::Step, egress_method::MARKER};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, send, socket},
};
use std::os::fd::AsRawFd;

/// Sends the marker from a socket of this type.
pub(crate) fn send_to(kind: &str, name: &str) -> Result<(), Failure> {
    let address = address(name).map_err(failed(Step::Preparation))?;
    match kind {
        "stream" => {
            let stream = UnixStream::connect_addr(&address).map_err(failed(Step::Connect))?;
            io::Write::write_all(&mut &stream, MARKER).map_err(failed(Step::Send))
        }
        "seqpacket" => seqpacket(name),
        "datagram" => {
            let socket = UnixDatagram::unbound().map_err(failed(Step::Socket))?;
            let sent = socket.send_to_addr(MARKER, &address);
            sent.map(drop).map_err(failed(Step::Send))
        }
        "connected-datagram" => {
            let socket = UnixDatagram::unbound().map_err(failed(Step::Socket))?;
            socket.connect_addr(&address).map_err(failed(Step::Connect))?;
            socket.send(MARKER).map(drop).map_err(failed(Step::Send))
        }
        _ => Err(Failure::named(Step::Preparation, "INVALID-STEP")),
    }
}

/// Sends from one end of a pair to the other.
pub(crate) fn pair() -> Result<(), Failure> {
    let (one, _other) = UnixDatagram::pair().map_err(failed(Step::Socket))?;
    one.send(MARKER).map(drop).map_err(failed(Step::Send))
}

/// Changes the working directory, for relative paths.
pub(crate) fn chdir(dir: &str) -> Result<(), Failure> {
    env::set_current_dir(dir).map_err(failed(Step::Preparation))
}

fn seqpacket(name: &str) -> Result<(), Failure> {
    let of = |step| move |errno| Failure::of(step, errno);
    let own = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(of(Step::Socket))?;
    let address = match name.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes()),
        None => UnixAddr::new(name),
    };
    let address = address.map_err(of(Step::Preparation))?;
    connect(own.as_raw_fd(), &address).map_err(of(Step::Connect))?;
    let sent = send(own.as_raw_fd(), MARKER, nix::sys::socket::MsgFlags::empty());
    sent.map(drop).map_err(of(Step::Send))
}

fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

fn failed(step: Step) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::of(step, Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}
