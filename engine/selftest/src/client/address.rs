//! Socket addresses in the layout of the kernel.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libc::{sockaddr_in, sockaddr_in6, socklen_t};

/// The bytes of a `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy)]
pub struct Address {
    storage: libc::sockaddr_storage,
    length: socklen_t,
}

impl Address {
    /// The bytes of a socket address.
    pub fn of(address: SocketAddr) -> Address {
        // SAFETY: plain integers, for which zero is valid.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let pointer = &raw mut storage;
        let length = match address {
            SocketAddr::V4(v4) => {
                // SAFETY: the storage is large enough and aligned for every socket address.
                let bytes = unsafe { &mut *pointer.cast::<sockaddr_in>() };
                bytes.sin_family = libc::AF_INET as u16;
                bytes.sin_port = v4.port().to_be();
                bytes.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                size_of::<sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                // SAFETY: as above.
                let bytes = unsafe { &mut *pointer.cast::<sockaddr_in6>() };
                bytes.sin6_family = libc::AF_INET6 as u16;
                bytes.sin6_port = v6.port().to_be();
                bytes.sin6_addr.s6_addr = v6.ip().octets();
                bytes.sin6_scope_id = v6.scope_id();
                size_of::<sockaddr_in6>()
            }
        };
        Address {
            storage,
            length: length as socklen_t,
        }
    }

    /// The address as IPv6; IPv4 becomes IPv4-mapped.
    pub fn mapped(address: SocketAddr) -> Address {
        let v6 = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Address::of(SocketAddr::new(v6.into(), address.port()))
    }

    /// The same bytes with the family AF_UNSPEC.
    pub fn with_unspecified_family(mut self) -> Address {
        self.storage.ss_family = libc::AF_UNSPEC as u16;
        self
    }

    /// An AF_UNSPEC address: connect(2) to it disconnects the socket.
    pub fn unspecified() -> Address {
        Address::of(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).with_unspecified_family()
    }

    /// The pointer for system calls.
    pub fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    /// The length for system calls, in bytes.
    pub fn length(&self) -> socklen_t {
        self.length
    }
}

/// The socket family of an address.
pub fn family(address: SocketAddr) -> i32 {
    match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}
