//! One destination as people type it: `198.51.100.7:443/tcp`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use engine_common::Protocol;

use super::{model::UnixName, port, unix};

/// A destination to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address, as typed.
    pub address: IpAddr,
    /// Port; 0 for protocols without ports.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What may be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A destination on the network.
    Destination(Target),
    /// A unix socket.
    Unix(UnixName),
}

/// Why a text is no [`Target`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The address cannot be read.
    #[error("`{text}` does not start with an address: write 198.51.100.7:443 or [2001:db8::1]:443")]
    Address {
        /// What was typed.
        text: String,
    },
    /// There is no port where the protocol has ports.
    #[error("`{text}` has no port: write ADDRESS:PORT, such as {example}")]
    NoPort {
        /// What was typed.
        text: String,
        /// How to write it.
        example: String,
    },
    /// The port cannot be read.
    #[error("`{text}` does not have a port from 0 to 65535 behind its address")]
    Port {
        /// What was typed.
        text: String,
    },
    /// A port where the protocol has none.
    #[error("{protocol} has no ports: write {address}/{protocol}")]
    PortOfPortless {
        /// The protocol, as typed.
        protocol: String,
        /// The address.
        address: IpAddr,
    },
    /// The name of a unix socket cannot be read.
    #[error("`{text}` does not name a unix socket: {help}")]
    Unix {
        /// What was typed.
        text: String,
        /// What to write instead.
        help: String,
    },
    /// The protocol cannot be read.
    #[error("{message}: {help}")]
    Protocol {
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: String,
    },
}

/// Reads `unix:PATH` or `unix:@NAME`, or what [`parse_target`] reads.
///
/// # Errors
/// When the text is none of these.
pub fn parse_asked(text: &str) -> Result<Asked, TargetError> {
    match text.strip_prefix("unix:") {
        None => parse_target(text).map(Asked::Destination),
        Some(name) => unix::name(name)
            .map(Asked::Unix)
            .map_err(|help| TargetError::Unix {
                text: text.to_owned(),
                help,
            }),
    }
}

/// Reads `ADDRESS:PORT[/PROTOCOL]` or, for protocols without ports, `ADDRESS/PROTOCOL`. The protocol is
/// tcp unless written; `icmp` is that of the address's family.
///
/// # Errors
/// When the text is none of these.
pub fn parse_target(text: &str) -> Result<Target, TargetError> {
    let owned = || text.to_owned();
    let (place, name) = match text.split_once('/') {
        None => (text, None),
        Some((place, name)) => (place, Some(name)),
    };
    let (address, port) = split_port(place).ok_or_else(|| TargetError::Address { text: owned() })?;
    let protocols = match name {
        None => &[Protocol::TCP][..],
        Some(name) => port::protocols(name).map_err(|fault| TargetError::Protocol {
            message: fault.message,
            help: fault.help,
        })?,
    };
    let protocol = match (protocols, address) {
        ([_, v6], IpAddr::V6(_)) => *v6,
        ([first, ..], _) => *first,
        ([], _) => Protocol::TCP,
    };
    let port = match port {
        Some(_) if !protocol.has_ports() => {
            return Err(TargetError::PortOfPortless {
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
    Ok(Target {
        address,
        port,
        protocol,
    })
}

/// Address and port of `1.2.3.4:5`, `1.2.3.4`, `[::1]:5`, `[::1]`, `::1`. A bare IPv6 address has no port.
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
    fn destinations_are_read() {
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
            let target = Target {
                address,
                port,
                protocol,
            };
            assert_eq!(parse_target(text), Ok(target), "{text}");
        }
    }

    #[test]
    fn unix_sockets_are_asked_about_too() {
        let path = Asked::Unix(UnixName::Path("/run/docker.sock".into()));
        assert_eq!(parse_asked("unix:/run/docker.sock"), Ok(path));
        assert_eq!(
            parse_asked("unix:@a"),
            Ok(Asked::Unix(UnixName::Abstract(b"a".to_vec())))
        );
        assert!(matches!(parse_asked("10.0.0.1:443"), Ok(Asked::Destination(_))));
        let error = parse_asked("unix:docker.sock").unwrap_err().to_string();
        assert!(error.contains("from the root on"), "{error}");
    }

    #[test]
    fn faults_say_what_to_type() {
        for (text, part) in [
            ("github.com:443", "198.51.100.7:443"),
            ("10.0.0.1", "10.0.0.1:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("10.0.0.1:443/icmp", "10.0.0.1/icmp"),
            ("10.0.0.1:99999", "65535"),
            ("10.0.0.1:443/tpc", "write tcp"),
            ("", "198.51.100.7:443"),
        ] {
            let error = parse_target(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
