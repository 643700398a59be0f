//! Reading one address or network, with a fault that says what was probably meant.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Subnets};

use super::diagnostic::{Code, Fault, quoted};

/// Reads `10.0.0.0/8`, `10.0.0.1`, `2001:db8::/32`, `2001:db8::1`. No bits may be set behind the prefix.
pub(super) fn parse(text: &str) -> Result<IpNet, Box<Fault>> {
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
    // `u8::from_str` takes a sign.
    let length = match prefix.parse::<u8>() {
        Ok(length) if prefix.bytes().all(|b| b.is_ascii_digit()) => length,
        _ => return Err(Box::new(bad_length(text, address, prefix))),
    };
    let Ok(network) = IpNet::new(address, length) else {
        return Err(Box::new(bad_length(text, address, prefix)));
    };
    if network.network() != address {
        return Err(Box::new(Fault::new(
            Code::HostBits,
            format!("{} has bits set behind its prefix", quoted(text)),
            format!(
                "write {} for the network, or {address} for the one address",
                network.trunc()
            ),
        )));
    }
    Ok(network)
}

fn bad(text: &str, help: impl Into<String>) -> Fault {
    Fault::new(
        Code::BadAddress,
        format!("{} is not an address or network", quoted(text)),
        help,
    )
}

fn bad_length(text: &str, address: IpAddr, prefix: &str) -> Fault {
    let width = if address.is_ipv4() { 32 } else { 128 };
    let help = match prefix.parse::<Ipv4Addr>() {
        Ok(mask) if address.is_ipv4() => match ipnet::ipv4_mask_to_prefix(mask) {
            Ok(length) => format!("write the length of the prefix: {address}/{length}"),
            Err(_) => "write the length of the prefix: 10.0.0.0/8".to_owned(),
        },
        _ => format!("the length of an {} prefix is 0 to {width}", family(address)),
    };
    bad(text, help)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// What to say about a text whose part before the `/` is no address.
fn not_an_address(text: &str, address: &str, prefix: Option<&str>) -> Fault {
    if address.is_empty() {
        return bad(text, "write an address or network: 10.0.0.0/8");
    }
    if text == "any" || text == "*" {
        return bad(text, "`any` stands alone, without a list: `to: any`");
    }
    if text == "localhost" {
        return bad(text, "write \"@loopback\", or 127.0.0.1 and \"::1\"");
    }
    if text.contains("://") {
        return bad(text, "write the addresses of the host, and its port into `ports`");
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
            format!("write {inner} without brackets; ports go into `ports`"),
        );
    }
    if let Some((bare, _)) = address.split_once('%')
        && bare.parse::<Ipv6Addr>().is_ok()
    {
        return bad(text, format!("write {bare}: scope ids are not looked at"));
    }
    if let Some((host, port)) = address.rsplit_once(':')
        && host.parse::<Ipv4Addr>().is_ok()
    {
        return bad(text, format!("write {host} here and `ports: [{port}]` beside it"));
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
            "policies hold addresses, not names: write the addresses, or give the name to `tidegate exec --allow`",
        );
    }
    bad(
        text,
        "write an address or network: 10.0.0.0/8, 192.0.2.7, 2001:db8::/32",
    )
}

/// Help for dotted numbers that are no address.
fn numbers(parts: &[&str], prefix: Option<&str>) -> String {
    if parts.iter().any(|p| p.len() > 1 && p.starts_with('0')) {
        return "write the numbers without leading zeros: some programs read those as octal".to_owned();
    }
    let stars = parts.iter().rev().take_while(|p| **p == "*").count();
    let octets: Option<Vec<u8>> = parts[..parts.len() - stars]
        .iter()
        .map(|p| p.parse().ok())
        .collect();
    let Some(octets) = octets.filter(|o| !o.is_empty() && parts.len() <= 4) else {
        return "an IPv4 address is four numbers from 0 to 255".to_owned();
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

/// Help for `first-last`: the networks that make it up.
fn range(text: &str, first: IpAddr, last: IpAddr) -> Fault {
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
            return Fault::new(
                Code::ReversedRange,
                format!("the range {} is reversed", quoted(text)),
                format!("write the networks from {last} to {first}; ranges of addresses are not taken"),
            );
        }
        _ => return bad(text, "write networks of one family: 10.0.0.0/8"),
    };
    let dots = if networks.len() > SHOWN { ", ..." } else { "" };
    let shown = &networks[..networks.len().min(SHOWN)];
    bad(
        text,
        format!("write the range as networks: {}{dots}", shown.join(", ")),
    )
}

/// Why no attempt has a destination in this network, and what to write: addresses are made
/// canonical before rules are asked.
pub(super) fn never_met(network: IpNet) -> Option<(String, String)> {
    let first = match network {
        IpNet::V4(n) if n.addr().is_unspecified() && n.prefix_len() == 32 => {
            return Some((
                "a connect to 0.0.0.0 is judged as one to 127.0.0.1".to_owned(),
                "write 127.0.0.1".to_owned(),
            ));
        }
        IpNet::V4(_) => return None,
        IpNet::V6(n) if n.prefix_len() > 96 => n.network(),
        IpNet::V6(_) => return None,
    };
    if first == Ipv6Addr::UNSPECIFIED && network.prefix_len() == 128 {
        return Some((
            "a connect to :: is judged as one to ::1".to_owned(),
            "write \"::1\"".to_owned(),
        ));
    }
    let bits = u128::from(first);
    // Up to /126 a network at the start of ::/96 has ::1 in it.
    if bits >> 32 == 0 && bits != 1 && !(bits == 0 && network.prefix_len() < 128) {
        let inside = Ipv4Addr::from(bits as u32);
        return Some((
            format!("an IPv4-compatible address is judged as the IPv4 address in it, {inside}"),
            format!("write {inside}/{}", network.prefix_len() - 96),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(text: &str) -> String {
        parse(text).unwrap_err().help
    }

    #[test]
    fn addresses_and_networks_are_read() {
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
    fn faults_say_what_was_meant() {
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
            ("github.com", "--allow"),
            ("any", "to: any"),
        ] {
            assert!(help(text).contains(part), "{text}: {}", help(text));
        }
    }

    #[test]
    fn spellings_that_no_attempt_has() {
        let never = |text: &str| never_met(parse(text).unwrap()).map(|(_, help)| help);
        assert_eq!(never("0.0.0.0"), Some("write 127.0.0.1".to_owned()));
        assert_eq!(never("::"), Some("write \"::1\"".to_owned()));
        assert_eq!(never("::10.0.0.0/104"), Some("write 10.0.0.0/8".to_owned()));
        for text in [
            "::1",
            "::/0",
            "::/96",
            "::/127",
            "0.0.0.0/8",
            "::ffff:10.0.0.1",
            "2001:db8::1",
        ] {
            assert_eq!(never(text), None, "{text}");
        }
    }
}
