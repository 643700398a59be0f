//! Reads the name servers of the machine from resolv.conf.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

/// Maximum size of resolv.conf, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The name servers in the text of resolv.conf. Scope ids (`fe80::1%eth0`) are removed, because rules ignore
/// them. Without any name server, the resolver uses the local machine (resolv.conf(5)).
pub(super) fn parse(text: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|&w| w == "nameserver").and(words.next())?;
            address.split('%').next()?.parse().ok()
        })
        .collect();
    if found.is_empty() {
        found.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    found
}

/// The name servers of this machine; empty if resolv.conf exists but cannot be read.
pub(super) fn of_system() -> Vec<IpAddr> {
    let bytes = std::fs::File::open(Path::new("/etc/resolv.conf"))
        .map_err(super::source::ReadError::Io)
        .and_then(|f| super::source::bounded(f, MAX_BYTES));
    match bytes {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)),
        Err(super::source::ReadError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => parse(""),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_does() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.53\nnameserver\tfe80::1%eth0\n;nameserver 192.0.2.1\n";
        let read: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.0.2.53", "fe80::1"]);
        assert_eq!(parse("search example.org\n"), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
}
