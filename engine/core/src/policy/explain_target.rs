//! Parses the target of `explain`: `198.51.100.7:443/tcp`, `unix:/run/docker.sock`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use engine_common::Protocol;

use super::{model::UnixName, port, unix};

use crate::hint::Hint;

/// A network destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Address, not made canonical.
    pub address: IpAddr,
    /// Port; 0 for protocols without ports.
    pub port: u16,
    /// IP protocol.
    pub protocol: Protocol,
}

/// The target of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A network destination.
    Destination(Destination),
    /// A unix socket.
    Unix(UnixName),
}

/// Why a string is not a valid [`Target`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The address is invalid.
    #[error("invalid address in `{text}`: write 198.51.100.7:443 or [2001:db8::1]:443")]
    Address {
        /// The string.
        text: String,
    },
    /// The port is missing, and the protocol has ports.
    #[error("missing port in `{text}`: write ADDRESS:PORT, such as {example}")]
    NoPort {
        /// The string.
        text: String,
        /// A valid string.
        example: String,
    },
    /// The port is invalid.
    #[error("invalid port in `{text}`: must be 0 to 65535")]
    Port {
        /// The string.
        text: String,
    },
    /// A port with a protocol that has no ports.
    #[error("protocol {protocol} has no ports: write {address}/{protocol}")]
    UnexpectedPort {
        /// The protocol, as in the string.
        protocol: String,
        /// The address.
        address: IpAddr,
    },
    /// The name of the unix socket is invalid.
    #[error("invalid unix socket `{text}`: {help}")]
    Unix {
        /// The string.
        text: String,
        /// What to write instead.
        help: String,
    },
    /// The protocol is invalid.
    #[error("{message}: {help}")]
    Protocol {
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: String,
    },
}

impl Hint for TargetError {}

/// Parses `unix:PATH`, `unix:@NAME`, or a network destination ([`parse_destination`]).
///
/// # Errors
/// If the string is none of these.
pub fn parse_target(text: &str) -> Result<Target, TargetError> {
    match text.strip_prefix("unix:") {
        None => parse_destination(text).map(Target::Destination),
        Some(name) => unix::name(name)
            .map(Target::Unix)
            .map_err(|help| TargetError::Unix {
                text: text.to_owned(),
                help,
            }),
    }
}

/// Parses `ADDRESS:PORT[/PROTOCOL]` or, for protocols without ports, `ADDRESS/PROTOCOL`. The default protocol
/// is tcp. `icmp` means ICMPv6 for an IPv6 address.
///
/// # Errors
/// If the string is neither.
pub fn parse_destination(text: &str) -> Result<Destination, TargetError> {
    let owned = || text.to_owned();
    let (host, name) = match text.split_once('/') {
        None => (text, None),
        Some((host, name)) => (host, Some(name)),
    };
    let (address, port) = split_port(host).ok_or_else(|| TargetError::Address { text: owned() })?;
    let protocols = match name {
        None => &[Protocol::TCP][..],
        Some(name) => port::protocols(name).map_err(|problem| TargetError::Protocol {
            message: problem.message,
            help: problem.help,
        })?,
    };
    let protocol = match (protocols, address) {
        ([_, v6], IpAddr::V6(_)) => *v6,
        ([first, ..], _) => *first,
        ([], _) => Protocol::TCP,
    };
    let port = match port {
        Some(_) if !protocol.has_ports() => {
            return Err(TargetError::UnexpectedPort {
                protocol: name.unwrap_or_default().to_owned(),
                address,
            });
        }
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if digits.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err(TargetError::Port { text: owned() }),
        },
        None if protocol.has_ports() => {
            let example = match address {
                IpAddr::V4(v4) => format!("{v4}:443"),
                IpAddr::V6(v6) => format!("[{v6}]:443"),
            };
            return Err(TargetError::NoPort {
                text: owned(),
                example,
            });
        }
        None => 0,
    };
    Ok(Destination {
        address,
        port,
        protocol,
    })
}

/// Splits `1.2.3.4:5`, `1.2.3.4`, `[::1]:5`, `[::1]`, `::1` into address and port. An IPv6 address without
/// brackets has no port.
fn split_port(text: &str) -> Option<(IpAddr, Option<&str>)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (address, rest) = inner.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        return Some((address.into(), port));
    }
    if let Ok(address) = text.parse() {
        return Some((address, None));
    }
    let (address, port) = text.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    Some((address.into(), Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_parsed() {
        for (text, address, port, protocol) in [
            ("10.0.0.1:443", "10.0.0.1", 443, Protocol::TCP),
            ("10.0.0.1:53/udp", "10.0.0.1", 53, Protocol::UDP),
            ("[2001:db8::1]:443", "2001:db8::1", 443, Protocol::TCP),
            ("10.0.0.1/icmp", "10.0.0.1", 0, Protocol::ICMP),
            ("2001:db8::1/icmp", "2001:db8::1", 0, Protocol::ICMPV6),
            ("[::1]/raw", "::1", 0, Protocol::RAW),
            ("10.0.0.1/47", "10.0.0.1", 0, Protocol(47)),
        ] {
            let address = address.parse().unwrap();
            let target = Destination {
                address,
                port,
                protocol,
            };
            assert_eq!(parse_destination(text), Ok(target), "{text}");
        }
    }

    #[test]
    fn unix_sockets_are_parsed() {
        let path = Target::Unix(UnixName::Path("/run/docker.sock".into()));
        assert_eq!(parse_target("unix:/run/docker.sock"), Ok(path));
        assert_eq!(
            parse_target("unix:@a"),
            Ok(Target::Unix(UnixName::Abstract(b"a".to_vec())))
        );
        assert!(matches!(parse_target("10.0.0.1:443"), Ok(Target::Destination(_))));
        let error = parse_target("unix:docker.sock").unwrap_err().to_string();
        assert!(error.contains("absolute path"), "{error}");
    }

    #[test]
    fn errors_suggest_what_to_write() {
        for (text, part) in [
            ("www.example.com:443", "198.51.100.7:443"),
            ("10.0.0.1", "10.0.0.1:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("10.0.0.1:443/icmp", "10.0.0.1/icmp"),
            ("10.0.0.1:99999", "65535"),
            ("10.0.0.1:443/tpc", "write tcp"),
            ("", "198.51.100.7:443"),
        ] {
            let error = parse_destination(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
