//! Parses one address or network. Errors suggest what was probably meant.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Subnets};

use super::diagnostic::{Code, Problem, quoted};

/// Parses `10.0.0.0/8`, `10.0.0.1`, `2001:db8::/32`, `2001:db8::1`. Host bits must be zero.
pub(super) fn parse(text: &str) -> Result<IpNet, Box<Problem>> {
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((address, prefix)) => (address, Some(prefix)),
    };
    let Ok(address) = IpAddr::from_str(address) else {
        return Err(Box::new(not_an_address(text, address, prefix)));
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    let Some(prefix) = prefix else {
        return IpNet::new(address, width)
            .map_err(|_| Box::new(bad(text, "write 10.0.0.0/8 or 2001:db8::/32")));
    };
    // `u8::from_str` accepts a sign.
    let length = match prefix.parse::<u8>() {
        Ok(length) if prefix.bytes().all(|b| b.is_ascii_digit()) => length,
        _ => return Err(Box::new(bad_length(text, address, prefix))),
    };
    let Ok(network) = IpNet::new(address, length) else {
        return Err(Box::new(bad_length(text, address, prefix)));
    };
    if network.network() != address {
        return Err(Box::new(Problem::new(
            Code::HostBits,
            format!("{} has host bits set", quoted(text)),
            format!(
                "write {} for the network, or {address} for a single address",
                network.trunc()
            ),
        )));
    }
    Ok(network)
}

fn bad(text: &str, help: impl Into<String>) -> Problem {
    Problem::new(
        Code::BadAddress,
        format!("invalid address or network {}", quoted(text)),
        help,
    )
}

fn bad_length(text: &str, address: IpAddr, prefix: &str) -> Problem {
    let width = if address.is_ipv4() { 32 } else { 128 };
    let help = match prefix.parse::<Ipv4Addr>() {
        Ok(mask) if address.is_ipv4() => match ipnet::ipv4_mask_to_prefix(mask) {
            Ok(length) => format!("write a prefix length: {address}/{length}"),
            Err(_) => "write a prefix length: 10.0.0.0/8".to_owned(),
        },
        _ => format!("an {} prefix length is 0 to {width}", family(address)),
    };
    bad(text, help)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The error for a text whose part before the `/` is not an address.
fn not_an_address(text: &str, address: &str, prefix: Option<&str>) -> Problem {
    if address.is_empty() {
        return bad(text, "write an address or network: 10.0.0.0/8");
    }
    if text == "any" || text == "*" {
        return bad(text, "write `to: any`, without a list");
    }
    if text == "localhost" {
        return bad(text, "write \"@loopback\", or 127.0.0.1 and \"::1\"");
    }
    if text.contains("://") {
        return bad(
            text,
            "write the addresses of the host, and put the port into `ports`",
        );
    }
    if let Some((first, last)) = text.split_once('-')
        && let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse())
    {
        return range(text, first, last);
    }
    if let Some(inner) = address.strip_prefix('[').and_then(|a| a.split(']').next())
        && inner.parse::<Ipv6Addr>().is_ok()
    {
        return bad(
            text,
            format!("write {inner} without brackets, and put ports into `ports`"),
        );
    }
    if let Some((bare, _)) = address.split_once('%')
        && bare.parse::<Ipv6Addr>().is_ok()
    {
        return bad(text, format!("write {bare}: rules ignore scope ids"));
    }
    if let Some((host, port)) = address.rsplit_once(':')
        && host.parse::<Ipv4Addr>().is_ok()
    {
        return bad(
            text,
            format!("write {host}, and put the port into `ports: [{port}]`"),
        );
    }
    let parts: Vec<&str> = address.trim_end_matches('.').split('.').collect();
    if parts
        .iter()
        .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit() || b == b'*'))
    {
        return bad(text, numbers(&parts, prefix));
    }
    let is_name = address
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*'));
    if is_name && address.contains(|c: char| c.is_ascii_alphabetic()) && !address.contains(':') {
        return bad(
            text,
            "policies do not resolve names: write the addresses, or use `tidegate exec --allow NAME`",
        );
    }
    bad(
        text,
        "write an address or network: 10.0.0.0/8, 192.0.2.7, 2001:db8::/32",
    )
}

/// Help for dotted integers that are not an address.
fn numbers(parts: &[&str], prefix: Option<&str>) -> String {
    if parts.iter().any(|p| p.len() > 1 && p.starts_with('0')) {
        return "remove the leading zeros: some programs read such integers as octal".to_owned();
    }
    let stars = parts.iter().rev().take_while(|p| **p == "*").count();
    let octets: Option<Vec<u8>> = parts[..parts.len() - stars]
        .iter()
        .map(|p| p.parse().ok())
        .collect();
    let Some(octets) = octets.filter(|o| !o.is_empty() && parts.len() <= 4) else {
        return "an IPv4 address has four integers from 0 to 255".to_owned();
    };
    let mut full = [0u8; 4];
    full[..octets.len()].copy_from_slice(&octets);
    let length = prefix
        .and_then(|p| p.parse().ok())
        .unwrap_or(octets.len() as u8 * 8);
    match Ipv4Net::new(full.into(), length) {
        Ok(network) => format!("write the network in full: {}", network.trunc()),
        Err(_) => "write the network in full: 10.0.0.0/8".to_owned(),
    }
}

/// The error for `first-last`, with the networks that cover the range as help.
fn range(text: &str, first: IpAddr, last: IpAddr) -> Problem {
    const SHOWN: usize = 4;
    let networks: Vec<String> = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => Ipv4Subnets::new(a, b, 0)
            .take(SHOWN + 1)
            .map(|n| n.to_string())
            .collect(),
        (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => Ipv6Subnets::new(a, b, 0)
            .take(SHOWN + 1)
            .map(|n| n.to_string())
            .collect(),
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            return Problem::new(
                Code::ReversedRange,
                format!("reversed range {}", quoted(text)),
                format!("write the networks from {last} to {first}: address ranges are not supported"),
            );
        }
        _ => return bad(text, "write networks of one address family: 10.0.0.0/8"),
    };
    let dots = if networks.len() > SHOWN { ", ..." } else { "" };
    let shown = &networks[..networks.len().min(SHOWN)];
    bad(
        text,
        format!("write the range as networks: {}{dots}", shown.join(", ")),
    )
}

/// Message and help if no destination is in this network, because another address is evaluated instead.
pub(super) fn never_matches(network: IpNet) -> Option<(String, String)> {
    if !network.addr().is_unspecified() || network.prefix_len() != network.max_prefix_len() {
        return None;
    }
    let (message, help) = match network {
        IpNet::V4(_) => (
            "0.0.0.0 never matches: the kernel sends to the address that the socket is bound to, or to 127.0.0.1",
            "write 127.0.0.1",
        ),
        IpNet::V6(_) => (
            ":: never matches: the kernel sends to ::1, or to 127.0.0.1",
            "write \"::1\"",
        ),
    };
    Some((message.to_owned(), help.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(text: &str) -> String {
        parse(text).unwrap_err().help
    }

    #[test]
    fn addresses_and_networks_are_parsed() {
        for (text, meant) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::", "::/128"),
            ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104"),
        ] {
            assert_eq!(
                parse(text).unwrap().to_string().parse::<IpNet>(),
                meant.parse(),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_suggest_what_was_meant() {
        for (text, part) in [
            ("10.20.9.7/16", "10.20.0.0/16 for the network, or 10.20.9.7"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10/8", "10.0.0.0/8"),
            ("10.1.*", "10.1.0.0/16"),
            ("10.0.0.256", "0 to 255"),
            ("010.0.0.1", "leading zeros"),
            ("10.0.0.1:443", "`ports: [443]`"),
            ("[::1]:80", "write ::1"),
            ("fe80::1%eth0", "write fe80::1"),
            ("10.0.0.0-10.0.0.5", "10.0.0.0/30, 10.0.0.4/31"),
            ("10.0.0.5-10.0.0.1", "from 10.0.0.1"),
            ("www.example.com", "--allow"),
            ("any", "to: any"),
        ] {
            assert!(help(text).contains(part), "{text}: {}", help(text));
        }
    }

    #[test]
    fn addresses_that_never_match() {
        let never = |text: &str| never_matches(parse(text).unwrap()).map(|(_, help)| help);
        assert_eq!(never("0.0.0.0"), Some("write 127.0.0.1".to_owned()));
        assert_eq!(never("::"), Some("write \"::1\"".to_owned()));
        for text in [
            "::1",
            "::/0",
            "::/96",
            "::/127",
            "::10.0.0.0/104",
            "0.0.0.0/8",
            "::ffff:10.0.0.1",
            "2001:db8::1",
        ] {
            assert_eq!(never(text), None, "{text}");
        }
    }
}
