//! Network namespaces in which every address is local, so that no packet leaves.

use std::{
    fs::File,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::address::{Address, Family};

/// The port of every destination.
pub(crate) const PORT: u16 = 9999;

/// A network namespace in which every destination answers at [`PORT`].
pub(crate) struct Network {
    namespace: File,
    listeners: [TcpListener; 2],
    _sinks: [UdpSocket; 2],
}

impl Network {
    /// Creates a namespace and moves this thread into it.
    pub(crate) fn make() -> Result<Network> {
        unshare(CloneFlags::CLONE_NEWNET).context("no network namespace")?;
        ip("link set lo up")?;
        // All addresses are local: connects succeed, and packets are delivered immediately.
        ip("route add local 0.0.0.0/0 dev lo")?;
        ip("-6 route add local ::/0 dev lo")?;
        let sinks = [
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?,
            UdpSocket::from(only_v6(libc::SOCK_DGRAM)?),
        ];
        for sink in &sinks {
            discard_all(sink)?;
        }
        let listeners = [
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?,
            TcpListener::from(only_v6(libc::SOCK_STREAM)?),
        ];
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        Ok(Network {
            namespace: File::open("/proc/thread-self/ns/net")?,
            listeners,
            _sinks: sinks,
        })
    }

    /// Moves this thread into the namespace: new sockets belong to it.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
    }

    /// Accepts and closes all pending connections.
    pub(crate) fn close_accepted(&self, family: Family) {
        let listener = &self.listeners[usize::from(family == Family::V6)];
        while let Ok((stream, _)) = listener.accept() {
            drop(stream);
        }
    }
}

/// A socket bound to [`PORT`] of all IPv6 addresses only; std binds to IPv4 too.
fn only_v6(kind: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let fd = unsafe { libc::socket(libc::AF_INET6, kind | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and owned here.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let on: libc::c_int = 1;
    set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &on)?;
    let address = Address::of(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)));
    // SAFETY: the address is valid through the call and has the length given.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), address.pointer(), address.length()) };
    ensure!(bound == 0, "bind: {}", std::io::Error::last_os_error());
    if kind == libc::SOCK_STREAM {
        // SAFETY: a call without pointers.
        let listening = unsafe { libc::listen(fd.as_raw_fd(), 4096) };
        ensure!(listening == 0, "listen: {}", std::io::Error::last_os_error());
    }
    Ok(fd)
}

/// Drops everything that arrives by a socket filter: the cost of a call must not depend on how full the queue is.
fn discard_all(sink: &UdpSocket) -> Result<()> {
    let mut return_zero = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut return_zero,
    };
    set_option(sink, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Sets a socket option.
pub(crate) fn set_option<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) -> Result<()> {
    // SAFETY: the value is valid through the call and has the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    ensure!(result == 0, "setsockopt: {}", std::io::Error::last_os_error());
    Ok(())
}

fn ip(args: &str) -> Result<()> {
    let status = Command::new("ip").args(args.split(' ')).status();
    let status = status.context("failed to run ip (Debian package iproute2)")?;
    ensure!(status.success(), "`ip {args}` failed");
    Ok(())
}
