//! Where an attempt wanted to go, and how that is written.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use engine_common::{Protocol, SocketFamily, UnixSocketId};

use super::{
    bound_name::BoundName,
    protocol_name::{family_name, protocol_name},
};

/// Where an attempt wanted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Destination {
        /// Canonical address: what the policy was asked about.
        address: IpAddr,
        /// The address as the caller spelled it.
        original: IpAddr,
        /// Port; 0 for protocols without.
        port: u16,
    },
    /// No address yet, or none that could be read: a socket of this family is being made or used.
    Socket(SocketFamily),
    /// A socket of another address family is being made: its AF number.
    Family(u16),
    /// A unix socket.
    Unix {
        /// What it is bound to.
        name: BoundName,
        /// What the policy was asked about.
        place: UnixSocketId,
    },
}

impl Target {
    /// The target as people write it: `198.51.100.7:443/tcp`, `[2001:db8::1]:53/udp`,
    /// `192.0.2.1/icmp`, `unix:/run/docker.sock`, `ipv4 socket/raw` or `vsock socket` where there is no address.
    pub fn display(&self, protocol: Protocol) -> impl fmt::Display {
        Written {
            target: *self,
            protocol,
        }
    }

    /// The caller's spelling of the address, where it is not the canonical one.
    pub fn other_spelling(&self) -> Option<IpAddr> {
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
            Target::Family(family) => return write!(f, "{} socket", family_name(family)),
            Target::Unix { name, .. } => return name.fmt(f),
            Target::Socket(SocketFamily::Inet) => f.write_str("ipv4 socket")?,
            Target::Socket(SocketFamily::Inet6) => f.write_str("ipv6 socket")?,
        }
        write!(f, "/{}", protocol_name(self.protocol))
    }
}
