//! Parses ports and protocols.

use engine_common::Protocol;

use super::{
    diagnostic::{Code, Problem, quoted},
    model::{PortRange, Service},
};

/// The protocols with ports. A port without a protocol applies to all of them.
pub(super) const WITH_PORTS: [Protocol; 5] = [
    Protocol::TCP,
    Protocol::UDP,
    Protocol::DCCP,
    Protocol::SCTP,
    Protocol::UDPLITE,
];

/// Names of protocols. `icmp` covers ICMP of IPv4 and of IPv6.
const NAMES: [(&str, &[Protocol]); 8] = [
    ("tcp", &[Protocol::TCP]),
    ("udp", &[Protocol::UDP]),
    ("udplite", &[Protocol::UDPLITE]),
    ("sctp", &[Protocol::SCTP]),
    ("dccp", &[Protocol::DCCP]),
    ("icmp", &[Protocol::ICMP, Protocol::ICMPV6]),
    ("icmpv6", &[Protocol::ICMPV6]),
    ("raw", &[Protocol::RAW]),
];

/// A port range with an optional protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortSpec {
    pub(super) ports: PortRange,
    pub(super) protocol: Option<Protocol>,
}

/// Parses `443`, `443/tcp`, `6000-6010`, `6000-6010/udp`.
pub(super) fn parse(text: &str) -> Result<PortSpec, Box<Problem>> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, None),
        Some((ports, protocol)) => (ports, Some(protocol)),
    };
    let ports = range(text, ports)?;
    let Some(name) = protocol else {
        return Ok(PortSpec {
            ports,
            protocol: None,
        });
    };
    match protocols(name)? {
        [one] if one.has_ports() => Ok(PortSpec {
            ports,
            protocol: Some(*one),
        }),
        _ => Err(Box::new(no_ports(name))),
    }
}

/// The error for a protocol without ports in combination with ports.
pub(super) fn no_ports(name: &str) -> Problem {
    Problem::new(
        Code::PortsConflict,
        format!("protocol {} has no ports", quoted(name)),
        format!("write a second rule with `protocols: [{name}]` and without `ports`"),
    )
}

fn range(whole: &str, text: &str) -> Result<PortRange, Box<Problem>> {
    let bad = |help: String| {
        Box::new(Problem::new(
            Code::BadPort,
            format!("invalid port {}", quoted(whole)),
            help,
        ))
    };
    let port = |text: &str| -> Result<u16, Box<Problem>> {
        let digits = text.trim();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            let help = match (digits, service_port(digits)) {
                ("any" | "*", _) => "remove `ports`, or write `ports: any`".to_owned(),
                (_, Some(number)) => format!("write the port number: {number}"),
                _ => "write a port or a range, with or without a protocol: 443, \"6000-6010/udp\"".to_owned(),
            };
            return Err(bad(help));
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(bad("remove the leading zeros".to_owned()));
        }
        digits.parse().map_err(|_| bad("ports are 0 to 65535".to_owned()))
    };
    let (first, last) = match text.split_once('-') {
        None => (port(text)?, port(text)?),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    PortRange::new(first, last).ok_or_else(|| {
        Box::new(Problem::new(
            Code::ReversedRange,
            format!("reversed range {}", quoted(whole)),
            format!("write {last}-{first}"),
        ))
    })
}

/// Ports of common services, for suggestions.
fn service_port(name: &str) -> Option<u16> {
    Some(match name.to_ascii_lowercase().as_str() {
        "ssh" => 22,
        "smtp" => 25,
        "domain" | "dns" => 53,
        "http" => 80,
        "ntp" => 123,
        "https" => 443,
        "postgres" | "postgresql" => 5432,
        _ => return None,
    })
}

/// Parses the name or the id of a protocol. `icmp` gives two protocols.
pub(super) fn protocols(text: &str) -> Result<&'static [Protocol], Box<Problem>> {
    /// Every value of the IP protocol field.
    const NUMBERS: [Protocol; 256] = {
        let mut numbers = [Protocol(0); 256];
        let mut i = 0;
        while i < numbers.len() {
            numbers[i] = Protocol(i as u16);
            i += 1;
        }
        numbers
    };
    static BY_NUMBER: [Protocol; 256] = NUMBERS;

    let lower = text.to_ascii_lowercase();
    if let Some((_, of)) = NAMES.iter().find(|(name, _)| *name == lower) {
        return Ok(of);
    }
    let bad = |help: String| {
        Box::new(Problem::new(
            Code::BadProtocol,
            format!("invalid protocol {}", quoted(text)),
            help,
        ))
    };
    if lower == "mptcp" || lower == "262" {
        return Err(bad("write tcp: the hooks see MPTCP as TCP".to_owned()));
    }
    if !lower.is_empty() && lower.bytes().all(|b| b.is_ascii_digit()) {
        return match lower.parse::<usize>().ok().and_then(|n| BY_NUMBER.get(n..=n)) {
            Some(one) => Ok(one),
            None => Err(bad("protocol numbers are 0 to 255".to_owned())),
        };
    }
    let names = NAMES.iter().map(|(name, _)| *name);
    let help = match lower.as_str() {
        "any" | "*" => "remove `protocols`, or write `protocols: any`".to_owned(),
        "ping" => "write icmp".to_owned(),
        "icmp6" | "ping6" => "write icmpv6".to_owned(),
        "quic" | "dns" => "write udp, and put the port into `ports`".to_owned(),
        _ => match super::nearest::nearest(&lower, names.clone()) {
            Some(near) => format!("write {near}"),
            None => format!(
                "valid protocols: {}, or a protocol number",
                names.collect::<Vec<_>>().join(", ")
            ),
        },
    };
    Err(bad(help))
}

/// Sorts services and merges overlapping and adjacent port ranges of one protocol.
pub(super) fn merged(mut services: Vec<Service>) -> Vec<Service> {
    services.sort_unstable();
    let mut out: Vec<Service> = Vec::with_capacity(services.len());
    for service in services {
        if let Some(before) = out.last_mut()
            && before.protocol == service.protocol
            && u32::from(service.ports.first()) <= u32::from(before.ports.last()) + 1
        {
            let last = before.ports.last().max(service.ports.last());
            if let Some(ports) = PortRange::new(before.ports.first(), last) {
                before.ports = ports;
                continue;
            }
        }
        out.push(service);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_parsed() {
        let spec = parse("6000-6010/udp").unwrap();
        assert_eq!((spec.ports.first(), spec.ports.last()), (6000, 6010));
        assert_eq!(spec.protocol, Some(Protocol::UDP));
        assert_eq!(parse("443").unwrap().protocol, None);
    }

    #[test]
    fn errors_suggest_what_to_write() {
        for (text, part) in [
            ("https", "443"),
            ("65536", "0 to 65535"),
            ("90-80", "80-90"),
            ("22:30", "port or a range"),
            ("80/icmp", "protocols: [icmp]"),
            ("80/tpc", "write tcp"),
            ("-1", "port or a range"),
            ("0443", "leading zeros"),
            ("", "port or a range"),
        ] {
            let help = parse(text).unwrap_err().help;
            assert!(help.contains(part), "{text}: {help}");
        }
        assert!(protocols("mptcp").unwrap_err().help.contains("write tcp"));
        assert!(protocols("256").is_err());
        assert_eq!(protocols("47").unwrap(), [Protocol(47)]);
        assert_eq!(protocols("icmp").unwrap(), [Protocol::ICMP, Protocol::ICMPV6]);
    }

    #[test]
    fn adjacent_ranges_are_merged() {
        let service = |first, last| Service {
            protocol: Protocol::TCP,
            ports: PortRange::new(first, last).unwrap(),
        };
        assert_eq!(
            merged(vec![service(5, 9), service(1, 4), service(11, 12)]),
            [service(1, 9), service(11, 12)]
        );
        assert_eq!(
            merged(vec![service(0, 65535), service(65535, 65535)]),
            [service(0, 65535)]
        );
    }
}
