//! Calls of our own that trial programs must see: sockets that talk to nobody but this process.

use std::{
    ffi::CStr,
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, RawFd},
        linux::net::SocketAddrExt,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    time::Duration,
};

use nix::{
    sys::{
        prctl,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};

/// Hooks whose programs must have been called by [`in_cgroup`] if sockets of both families can be made.
const OF_A_SOCKET: u8 = 1;
const OF_IPV4: u8 = 2;
const OF_IPV6: u8 = 4;
const OF_A_PACKET: u8 = 8;

/// What was done, by the hooks that had to see it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exercised {
    cgroup: u8,
    tcp: bool,
    unix: bool,
    unix_connected: bool,
    disconnected: bool,
    cgroup_made: bool,
}

impl Exercised {
    /// Whether a program on this hook must have been called.
    pub(super) fn concerns(&self, hook: &str) -> bool {
        match hook {
            "cgroup/sock_create" | "cgroup/sock_release" => self.cgroup & OF_A_SOCKET != 0,
            "cgroup/connect4" | "cgroup/sendmsg4" => self.cgroup & OF_IPV4 != 0,
            "cgroup/connect6" | "cgroup/sendmsg6" => self.cgroup & OF_IPV6 != 0,
            "cgroup_skb/egress" => self.cgroup & OF_A_PACKET != 0,
            "lsm/socket_create" | "lsm/socket_sendmsg" | "lsm/unix_may_send" => self.unix,
            "lsm/unix_stream_connect" => self.unix_connected,
            "lsm/socket_connect" => self.disconnected,
            "kprobe/tcp_connect" | "raw_tp/inet_sock_set_state" => self.tcp,
            // The child of `in_cgroup` was made and has moved.
            "fentry/cgroup_attach_task" | "fentry/cgroup_post_fork" => self.cgroup & OF_A_SOCKET != 0,
            "raw_tp/cgroup_mkdir" => self.cgroup_made,
            _ => false,
        }
    }

    /// Makes all the calls: in the cgroup by a child, for the others by this thread; both under a name.
    /// `processes` is the cgroup's `cgroup.procs`, opened for writing.
    pub(super) fn make(processes: &File, name: [u8; 8], make_cgroup: impl FnOnce() -> bool) -> Exercised {
        let named = Named::as_(name);
        let exercised = Exercised {
            cgroup: in_cgroup(processes).unwrap_or(0),
            tcp: connect_to_ourselves().is_ok(),
            unix: send_to_ourselves().is_ok(),
            unix_connected: connect_by_name().is_ok(),
            disconnected: disconnect().is_ok(),
            cgroup_made: make_cgroup(),
        };
        drop(named);
        exercised
    }
}

/// The name of the calling thread, until this is dropped.
struct Named {
    before: Option<std::ffi::CString>,
}

impl Named {
    fn as_(name: [u8; 8]) -> Named {
        let before = prctl::get_name().ok();
        let mut bytes = [0; 9];
        bytes[..8].copy_from_slice(&name);
        if let Ok(name) = CStr::from_bytes_until_nul(&bytes) {
            // Refused, the calls are not recognised: "not called" would be told, loudly.
            let _ = prctl::set_name(name);
        }
        Named { before }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = prctl::set_name(before);
        }
    }
}

/// A connection over loopback, to a listener of our own.
fn connect_to_ourselves() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(1)).map(drop)
}

fn send_to_ourselves() -> io::Result<()> {
    let (one, _other) = UnixDatagram::pair()?;
    one.send(&[0]).map(drop)
}

/// A connection over a unix socket with a name.
fn connect_by_name() -> io::Result<()> {
    let name = format!("tidegate-probe-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let _listener = UnixListener::bind_addr(&address)?;
    UnixStream::connect_addr(&address).map(drop)
}

/// connect(2) to no address: asked for like any other, and sends nothing.
fn disconnect() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let nowhere = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: the address is of the size given and lives through the call.
    let done = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            &raw const nowhere,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child in the cgroup makes sockets there: a cgroup's hooks go by where a socket was made. Gives
/// what it could do.
fn in_cgroup(processes: &File) -> io::Result<u8> {
    // What it sends comes here, and is not read.
    let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let there = here.local_addr()?;
    let here6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0));
    let there6 = match &here6 {
        Ok(here6) => here6.local_addr()?,
        // Without an address nothing arrives there, but the hooks are asked before that is found out.
        Err(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, there.port())),
    };
    let (there, there6) = (Address::of(there), Address::of(there6));
    let processes = processes.as_raw_fd();
    // SAFETY: the child makes system calls only, on values made before, and ends without coming back.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, done) => Ok(done as u8),
            _ => Ok(0),
        },
        ForkResult::Child => {
            let done = travel(processes, &there, &there6);
            // SAFETY: ends the process; nothing of it is cleaned up twice.
            unsafe { libc::_exit(i32::from(done)) }
        }
    }
}

/// A socket address as system calls take it.
struct Address {
    family: i32,
    bytes: [u8; 28],
    length: libc::socklen_t,
}

impl Address {
    fn of(address: SocketAddr) -> Address {
        let mut bytes = [0; 28];
        let port = address.port().to_be_bytes();
        bytes[2..4].copy_from_slice(&port);
        let (family, length) = match address {
            // sockaddr_in: family, port, address, padding.
            SocketAddr::V4(address) => {
                bytes[4..8].copy_from_slice(&address.ip().octets());
                (libc::AF_INET, 16)
            }
            // sockaddr_in6: family, port, flow, address, scope.
            SocketAddr::V6(address) => {
                bytes[8..24].copy_from_slice(&address.ip().octets());
                (libc::AF_INET6, 28)
            }
        };
        bytes[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        Address {
            family,
            bytes,
            length,
        }
    }
}

/// System calls only: this runs between fork and exit.
fn travel(processes: RawFd, there: &Address, there6: &Address) -> u8 {
    let itself = b"0";
    // SAFETY: the bytes live through the call.
    if unsafe { libc::write(processes, itself.as_ptr().cast(), 1) } != 1 {
        return 0;
    }
    let mut done = 0;
    for (address, of_family) in [(there, OF_IPV4), (there6, OF_IPV6)] {
        // SAFETY: plain numbers.
        let socket = unsafe { libc::socket(address.family, libc::SOCK_DGRAM, 0) };
        if socket < 0 {
            continue;
        }
        let (to, byte) = (address.bytes.as_ptr(), [0u8; 1]);
        // SAFETY: the byte and the address, of the length given, live through the call.
        let sent = unsafe { libc::sendto(socket, byte.as_ptr().cast(), 1, 0, to.cast(), address.length) };
        // SAFETY: as before. Whether it succeeds does not matter: the hook is asked first.
        unsafe { libc::connect(socket, to.cast(), address.length) };
        // SAFETY: our own descriptor, not used after this.
        unsafe { libc::close(socket) };
        done |= OF_A_SOCKET | of_family;
        if sent == 1 {
            done |= OF_A_PACKET;
        }
    }
    done
}
