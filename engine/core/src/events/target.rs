//! The target of an attempt, and its text form.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use engine_common::{Protocol, SocketFamily, UnixSocketId};

use super::bound_name::BoundName;

/// The target of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Destination {
        /// Canonical address, which the policy was evaluated for.
        address: IpAddr,
        /// The address as the caller passed it.
        original: IpAddr,
        /// Port; 0 for protocols without.
        port: u16,
    },
    /// A socket of this family, when it is created or used without a destination.
    Socket(SocketFamily),
    /// A socket of another address family that is being created; the value of its AF constant.
    Family(u16),
    /// A unix socket.
    Unix {
        /// The name it is bound to.
        name: BoundName,
        /// Its identity, which the policy was evaluated for.
        id: UnixSocketId,
    },
}

impl Target {
    /// The target as text: `198.51.100.7:443/tcp`, `[2001:db8::1]:53/udp`,
    /// `192.0.2.1/icmp`, `unix:/run/docker.sock`; `ipv4 socket/raw` or `vsock socket` without an address.
    pub fn display(&self, protocol: Protocol) -> impl fmt::Display {
        Written {
            target: *self,
            protocol,
        }
    }

    /// The address as the caller passed it, if it is not the canonical one.
    pub fn original(&self) -> Option<IpAddr> {
        match *self {
            Target::Destination {
                address, original, ..
            } if address != original => Some(original),
            _ => None,
        }
    }
}

struct Written {
    target: Target,
    protocol: Protocol,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Destination { address, port, .. } if self.protocol.has_ports() => {
                write!(f, "{}", SocketAddr::new(address, port))?;
            }
            Target::Destination { address, .. } => write!(f, "{address}")?,
            Target::Family(family) => return write!(f, "{} socket", Protocol::of_family(family)),
            Target::Unix { name, .. } => return name.fmt(f),
            Target::Socket(SocketFamily::Inet) => f.write_str("ipv4 socket")?,
            Target::Socket(SocketFamily::Inet6) => f.write_str("ipv6 socket")?,
        }
        write!(f, "/{}", self.protocol)
    }
}
