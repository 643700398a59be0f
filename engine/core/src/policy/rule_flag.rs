//! Parses the value of one `--allow` or `--deny`: a destination with ports and protocol.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    diagnostic::Problem,
    from_flags::FlagError,
    model::{PortRange, Service, Services},
    network, port,
};

/// The destination part of a flag.
#[derive(Debug, PartialEq)]
pub(super) enum Host<'f> {
    Any,
    Network(IpNet),
    /// Name of a built-in set, without the `@`.
    Set(&'f str),
    Name(&'f str),
}

pub(super) fn part(flag: &str, message: impl Into<String>, help: impl Into<String>) -> FlagError {
    FlagError::Part {
        flag: flag.to_owned(),
        message: message.into(),
        help: help.into(),
    }
}

/// Splits a flag into its destination and its services.
pub(super) fn split(flag: &str) -> Result<(Host<'_>, Services), FlagError> {
    if flag.is_empty() {
        return Err(part(
            flag,
            "empty value",
            "write a destination: 10.0.0.0/8, any:443",
        ));
    }
    if !flag.contains([':', '.', '@', '/']) && flag.bytes().all(|b| b.is_ascii_digit()) {
        return Err(part(
            flag,
            "a single integer",
            format!("write any:{flag} for a port"),
        ));
    }
    if flag.contains("://") {
        return Err(part(
            flag,
            "URLs are not supported",
            "write the host and port: www.example.com:443",
        ));
    }
    // After the brackets come port and protocol.
    let (host, rest) = if let Some(inner) = flag.strip_prefix('[') {
        let missing = || part(flag, "missing closing bracket", "write [2001:db8::1]:443");
        inner.split_once(']').ok_or_else(missing)?
    } else if colons_are_address(flag) {
        // IPv6 without brackets: a prefix length and a protocol can follow, but no port.
        flag.split_at(flag.find('/').unwrap_or(flag.len()))
    } else {
        flag.split_at(flag.find([':', '/']).unwrap_or(flag.len()))
    };
    let bracketed = flag.starts_with('[');
    let (prefix, rest) = prefix_of(rest);
    let services = services(flag, rest)?;
    let takes_prefix = |host: &str| host.parse::<IpAddr>().is_ok();
    let bracketed_network = bracketed && host.contains('/');
    let host = match (host, prefix) {
        (host, None) if bracketed_network || takes_prefix(host) => network_of(flag, host)?,
        (host, Some(length)) if takes_prefix(host) => network_of(flag, &format!("{host}/{length}"))?,
        (_, Some(number)) => {
            // `any/47`: a protocol number.
            let services = self::services(flag, &format!("/{number}{rest}"))?;
            return Ok((named(flag, host)?, services));
        }
        (host, None) => named(flag, host)?,
    };
    Ok((host, services))
}

/// Whether the colons belong to an IPv6 address, which has at least two.
fn colons_are_address(flag: &str) -> bool {
    let host = flag.split('/').next().unwrap_or_default();
    host.bytes().filter(|&b| b == b':').count() >= 2
}

/// Splits off the prefix length: `/8:443` becomes `8` and `:443`.
fn prefix_of(rest: &str) -> (Option<&str>, &str) {
    let Some(inner) = rest.strip_prefix('/') else {
        return (None, rest);
    };
    let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
    let (length, after) = inner.split_at(digits);
    if length.is_empty() || !(after.is_empty() || after.starts_with([':', '/'])) {
        return (None, rest);
    }
    (Some(length), after)
}

fn network_of<'f>(flag: &str, text: &str) -> Result<Host<'f>, FlagError> {
    let network = network::parse(text).map_err(|problem| part(flag, problem.message, problem.help))?;
    if let Some((message, help)) = network::never_matches(network) {
        return Err(part(flag, message, help));
    }
    Ok(Host::Network(network))
}

fn named<'f>(flag: &str, host: &'f str) -> Result<Host<'f>, FlagError> {
    if matches!(host, "" | "*" | "any") {
        return Ok(Host::Any);
    }
    if let Some(name) = host.strip_prefix('@') {
        return Ok(Host::Set(name));
    }
    let is_name = host.len() <= 253
        && host.contains(|c: char| c.is_ascii_alphabetic())
        && !host.starts_with(['-', '.'])
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if is_name {
        return Ok(Host::Name(host));
    }
    if host.starts_with("*.") {
        return Err(part(
            flag,
            "name patterns are not supported",
            "write each name, or its addresses",
        ));
    }
    // Neither an address nor a name: the error for an address is the most helpful one.
    match network::parse(host) {
        Ok(network) => Ok(Host::Network(network)),
        Err(problem) => Err(part(flag, problem.message, problem.help)),
    }
}

/// Parses `:443`, `:443/tcp`, `/icmp` or an empty string.
fn services(flag: &str, rest: &str) -> Result<Services, FlagError> {
    let problem = |problem: Box<Problem>| part(flag, problem.message, problem.help);
    let of = if rest.is_empty() {
        return Ok(Services::Any);
    } else if let Some(ports) = rest.strip_prefix(':') {
        let spec = port::parse(ports).map_err(problem)?;
        let protocols = spec.protocol.map_or(port::WITH_PORTS.to_vec(), |p| vec![p]);
        let service = |protocol| Service {
            protocol,
            ports: spec.ports,
        };
        protocols.into_iter().map(service).collect()
    } else if let Some(name) = rest.strip_prefix('/') {
        let protocols = port::protocols(name).map_err(problem)?;
        let service = |&protocol: &_| Service {
            protocol,
            ports: PortRange::EVERY,
        };
        protocols.iter().map(service).collect()
    } else {
        return Err(part(
            flag,
            "unexpected text after the address",
            "write [2001:db8::1]:443/tcp",
        ));
    };
    Ok(Services::Only(port::merged(of)))
}
