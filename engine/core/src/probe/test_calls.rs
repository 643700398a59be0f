//! System calls of this process that the trial programs must see. Its sockets only talk to each other.

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

/// What the child of [`in_cgroup`] did, as its exit code.
const MADE_SOCKET: u8 = 1;
const SENT_IPV4: u8 = 2;
const SENT_IPV6: u8 = 4;
const SENT_PACKET: u8 = 8;

/// The calls that succeeded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SelfCalls {
    /// A set of `MADE_SOCKET` and the like.
    in_cgroup: u8,
    tcp: bool,
    unix_datagram: bool,
    unix_connected: bool,
    disconnected: bool,
    cgroup_made: bool,
}

impl SelfCalls {
    /// Whether a program on this hook must have been called.
    pub(super) fn reach(&self, hook: &str) -> bool {
        match hook {
            "cgroup/sock_create" | "cgroup/sock_release" => self.in_cgroup & MADE_SOCKET != 0,
            "cgroup/connect4" | "cgroup/sendmsg4" => self.in_cgroup & SENT_IPV4 != 0,
            "cgroup/connect6" | "cgroup/sendmsg6" => self.in_cgroup & SENT_IPV6 != 0,
            "cgroup_skb/egress" => self.in_cgroup & SENT_PACKET != 0,
            "lsm/socket_create" | "lsm/socket_sendmsg" | "lsm/unix_may_send" => self.unix_datagram,
            "lsm/unix_stream_connect" => self.unix_connected,
            "lsm/socket_connect" => self.disconnected,
            "kprobe/tcp_connect" | "raw_tp/inet_sock_set_state" => self.tcp,
            // The child of `in_cgroup` was forked and migrated.
            "fentry/cgroup_attach_task" | "fentry/cgroup_post_fork" => self.in_cgroup & MADE_SOCKET != 0,
            "raw_tp/cgroup_mkdir" => self.cgroup_made,
            _ => false,
        }
    }

    /// Makes all calls: those for cgroup hooks by a child in the cgroup, the others by this thread. Both use the thread
    /// name `name`, by which the trial programs recognise them. `processes` is `cgroup.procs`, open for writing.
    pub(super) fn make(processes: &File, name: [u8; 8], make_cgroup: impl FnOnce() -> bool) -> SelfCalls {
        let renamed = RenamedThread::new(name);
        let calls = SelfCalls {
            in_cgroup: in_cgroup(processes).unwrap_or(0),
            tcp: connect_over_loopback().is_ok(),
            unix_datagram: send_over_socket_pair().is_ok(),
            unix_connected: connect_to_abstract_socket().is_ok(),
            disconnected: disconnect().is_ok(),
            cgroup_made: make_cgroup(),
        };
        drop(renamed);
        calls
    }
}

/// The calling thread has another name until this is dropped.
struct RenamedThread {
    before: Option<std::ffi::CString>,
}

impl RenamedThread {
    fn new(name: [u8; 8]) -> RenamedThread {
        let before = prctl::get_name().ok();
        let mut bytes = [0; 9];
        bytes[..8].copy_from_slice(&name);
        if let Ok(name) = CStr::from_bytes_until_nul(&bytes) {
            // On failure the calls are not recognised, and the hooks are reported as not called.
            let _ = prctl::set_name(name);
        }
        RenamedThread { before }
    }
}

impl Drop for RenamedThread {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = prctl::set_name(before);
        }
    }
}

/// A TCP connection to a listener of this process.
fn connect_over_loopback() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(1)).map(drop)
}

fn send_over_socket_pair() -> io::Result<()> {
    let (one, _other) = UnixDatagram::pair()?;
    one.send(&[0]).map(drop)
}

/// A connection of unix stream sockets.
fn connect_to_abstract_socket() -> io::Result<()> {
    let name = format!("tidegate-probe-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let _listener = UnixListener::bind_addr(&address)?;
    UnixStream::connect_addr(&address).map(drop)
}

/// connect(2) with AF_UNSPEC: the LSM hook sees it like any other, and nothing is sent.
fn disconnect() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let unspecified = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: the address is of the size given and lives through the call.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            &raw const unspecified,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks a child that joins the cgroup and uses sockets there: cgroup hooks run for sockets created in the cgroup.
/// Returns what it did.
fn in_cgroup(processes: &File) -> io::Result<u8> {
    // Receives what the child sends, and is not read.
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = receiver.local_addr()?;
    let receiver6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0));
    let address6 = match &receiver6 {
        Ok(receiver6) => receiver6.local_addr()?,
        // Without IPv6 addresses nothing arrives, but the hooks are called before the kernel looks for a route.
        Err(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
    };
    let (address, address6) = (RawAddress::of(address), RawAddress::of(address6));
    let processes = processes.as_raw_fd();
    // SAFETY: the child only makes system calls, on values prepared before the fork, and exits.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, done) => Ok(done as u8),
            _ => Ok(0),
        },
        ForkResult::Child => {
            let done = use_sockets(processes, &address, &address6);
            // SAFETY: exits without running destructors, which belong to the parent.
            unsafe { libc::_exit(i32::from(done)) }
        }
    }
}

/// A socket address in the form of system calls.
struct RawAddress {
    family: i32,
    bytes: [u8; 28],
    length: libc::socklen_t,
}

impl RawAddress {
    fn of(address: SocketAddr) -> RawAddress {
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
        RawAddress {
            family,
            bytes,
            length,
        }
    }
}

/// Runs in the child, between fork and exit: system calls only.
fn use_sockets(processes: RawFd, address: &RawAddress, address6: &RawAddress) -> u8 {
    let own_pid = b"0";
    // SAFETY: the bytes live through the call.
    if unsafe { libc::write(processes, own_pid.as_ptr().cast(), 1) } != 1 {
        return 0;
    }
    let mut done = 0;
    for (address, of_family) in [(address, SENT_IPV4), (address6, SENT_IPV6)] {
        // SAFETY: takes integers only.
        let socket = unsafe { libc::socket(address.family, libc::SOCK_DGRAM, 0) };
        if socket < 0 {
            continue;
        }
        let (to, byte) = (address.bytes.as_ptr(), [0u8; 1]);
        // SAFETY: the byte and the address, of the length given, live through the call.
        let sent = unsafe { libc::sendto(socket, byte.as_ptr().cast(), 1, 0, to.cast(), address.length) };
        // SAFETY: as before. The hook is called first, so the result does not matter.
        unsafe { libc::connect(socket, to.cast(), address.length) };
        // SAFETY: opened above and not used after this.
        unsafe { libc::close(socket) };
        done |= MADE_SOCKET | of_family;
        if sent == 1 {
            done |= SENT_PACKET;
        }
    }
    done
}
