//! Socket addresses in the layout of the kernel.

use std::net::SocketAddr;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The name in row names.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        }
    }

    /// `AF_INET` or `AF_INET6`.
    pub(crate) const fn number(self) -> libc::c_int {
        match self {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        }
    }
}

/// A compact socket address: a long list of them must not evict the maps from the cache.
#[derive(Clone, Copy)]
pub(crate) enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Address {
    pub(crate) fn of(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(v4) => Address::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*v4.ip()).to_be(),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Address::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: 0,
            }),
        }
    }

    #[inline(always)]
    pub(crate) fn pointer(&self) -> *const libc::sockaddr {
        match self {
            Address::V4(v4) => (&raw const *v4).cast(),
            Address::V6(v6) => (&raw const *v6).cast(),
        }
    }

    #[inline(always)]
    pub(crate) fn length(&self) -> libc::socklen_t {
        match self {
            Address::V4(_) => size_of::<libc::sockaddr_in>() as libc::socklen_t,
            Address::V6(_) => size_of::<libc::sockaddr_in6>() as libc::socklen_t,
        }
    }
}
