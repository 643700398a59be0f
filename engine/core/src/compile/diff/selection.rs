//! The services and user ids that a rule gains or loses, in policy syntax.

use std::{collections::HashMap, fmt};

use engine_common::Protocol;
use serde::Serialize;

use crate::compile::key_ranges::LAST_PORT_KEY;

/// A shortened list of services or user ids. `any` has `all_but` and no items.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// Whether `items` lists what is *not* selected.
    pub all_but: bool,
    /// The first items: `443/tcp`, `6000-6010/udp`, `icmp`, `protocol 47`; `443` for a port of every protocol
    /// that has ports; `1000`, `1000-1010` for user ids.
    pub items: Vec<String>,
    /// Number of further items.
    pub omitted: usize,
}

impl Selection {
    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        *self == Selection::default()
    }

    fn of(all_but: bool, items: impl Iterator<Item = String>, limit: usize) -> Selection {
        let mut items = items.fuse();
        Selection {
            all_but,
            items: items.by_ref().take(limit).collect(),
            omitted: items.count(),
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_any = self.items.is_empty() && self.omitted == 0;
        f.write_str(match (self.all_but, is_any) {
            (true, true) => "any",
            (true, false) => "any but ",
            (false, _) => "",
        })?;
        f.write_str(&self.items.join(", "))?;
        match self.omitted {
            0 => Ok(()),
            more if self.items.is_empty() => write!(f, "{more}"),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The sorted ranges of keys from 0 to `last`, or the gaps between them if the ranges cover more than half
/// of the keys.
fn shorter(ranges: &[(u32, u32)], last: u32) -> (bool, Vec<(u32, u32)>) {
    let keys: u64 = ranges
        .iter()
        .map(|&(start, end)| u64::from(end - start) + 1)
        .sum();
    if 2 * keys <= u64::from(last) + 1 {
        return (false, ranges.to_vec());
    }
    let mut gaps = Vec::with_capacity(ranges.len() + 1);
    let mut next = Some(0);
    for &(start, end) in ranges {
        if let (Some(from), Some(to)) = (next, start.checked_sub(1))
            && from <= to
        {
            gaps.push((from, to));
        }
        next = end.checked_add(1);
    }
    if let Some(from) = next.filter(|&from| from <= last) {
        gaps.push((from, last));
    }
    (true, gaps)
}

/// Sorted ranges of user ids.
pub(super) fn uids(ranges: &[(u32, u32)], limit: usize) -> Selection {
    let (all_but, ranges) = shorter(ranges, u32::MAX);
    let items = ranges.into_iter().map(|(first, last)| range(first, last));
    Selection::of(all_but, items, limit)
}

/// Sorted ranges of services: `protocol << 16 | port`.
pub(super) fn services(ranges: &[(u32, u32)], limit: usize) -> Selection {
    let (all_but, ranges) = shorter(ranges, LAST_PORT_KEY);
    let pieces: Vec<ProtocolPorts> = ranges.into_iter().flat_map(pieces).collect();
    let mut protocols: HashMap<Ports, usize> = HashMap::new();
    for piece in pieces.iter().filter(|piece| piece.has_some_ports()) {
        *protocols.entry(piece.ports).or_default() += 1;
    }
    let with_ports = (0..Protocol::COUNT).filter(|&number| Protocol(number).has_ports());
    let with_ports = with_ports.count();
    let items = pieces.iter().filter_map(|piece| {
        let (first, last) = piece.ports;
        let name = || piece.protocol.to_string();
        if !piece.has_some_ports() {
            Some(match name() {
                // An integer alone would be a port.
                number if number.starts_with(|c: char| c.is_ascii_digit()) => format!("protocol {number}"),
                name => name,
            })
        } else if protocols.get(&piece.ports) != Some(&with_ports) {
            Some(format!("{}/{}", range(first.into(), last.into()), name()))
        } else {
            // The same ports of all protocols: listed once, without protocol.
            (piece.protocol == Protocol::TCP).then(|| range(first.into(), last.into()))
        }
    });
    Selection::of(all_but, items, limit)
}

type Ports = (u16, u16);

/// A port range of one protocol.
#[derive(Clone, Copy, Debug)]
struct ProtocolPorts {
    protocol: Protocol,
    ports: Ports,
}

impl ProtocolPorts {
    /// Whether this is a part of the protocol's ports, not all of them.
    fn has_some_ports(&self) -> bool {
        self.protocol.has_ports() && self.ports != (0, u16::MAX)
    }
}

/// Splits a range of services by protocol.
fn pieces((start, end): (u32, u32)) -> impl Iterator<Item = ProtocolPorts> {
    (start >> 16..=end >> 16).map(move |number| {
        let (first, last) = (number << 16, number << 16 | 0xffff);
        ProtocolPorts {
            protocol: Protocol(number as u16),
            ports: (start.max(first) as u16, end.min(last) as u16),
        }
    })
}

fn range(first: u32, last: u32) -> String {
    if first == last {
        return first.to_string();
    }
    format!("{first}-{last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u32 = 6 << 16;
    const UDP: u32 = 17 << 16;
    const RAW: u32 = 511 << 16;

    #[test]
    fn services_are_listed_in_policy_syntax() {
        for (ranges, text) in [
            (&[][..], ""),
            (&[(TCP | 443, TCP | 443)], "443/tcp"),
            (
                &[(TCP | 443, TCP | 443), (UDP | 6000, UDP | 6010)],
                "443/tcp, 6000-6010/udp",
            ),
            (&[(TCP, TCP | 0xffff)], "tcp"),
            (&[(1 << 16, 1 << 16 | 0xffff), (RAW, RAW | 0xffff)], "icmp, raw"),
            // A range over several protocols.
            (
                &[(TCP | 65000, 9 << 16 | 0xffff)],
                "65000-65535/tcp, protocol 7, protocol 8, protocol 9",
            ),
            (&[(0, LAST_PORT_KEY)], "any"),
            (&[(0, TCP | 442), (TCP | 444, LAST_PORT_KEY)], "any but 443/tcp"),
            (
                &[(TCP + 0x1_0000, LAST_PORT_KEY)],
                "any but protocol 0, icmp, protocol 2, protocol 3, protocol 4, protocol 5, tcp",
            ),
            (&[(0, RAW - 1)], "any but raw"),
        ] {
            assert_eq!(services(ranges, usize::MAX).to_string(), text);
        }
    }

    #[test]
    fn ports_of_all_protocols_are_listed_once() {
        let on_all = |first: u32, last: u32| {
            [6u32, 17, 33, 132, 136].map(|number| (number << 16 | first, number << 16 | last))
        };
        let mut ranges = [on_all(53, 53), on_all(443, 450)].concat();
        ranges.push((UDP | 9, UDP | 9));
        ranges.sort_unstable();
        assert_eq!(services(&ranges, usize::MAX).to_string(), "53, 443-450, 9/udp");
        ranges.retain(|range| range.0 != (UDP | 53));
        let without = "53/tcp, 443-450, 9/udp, 53/dccp, 53/sctp, 53/udplite";
        assert_eq!(services(&ranges, usize::MAX).to_string(), without);
    }

    #[test]
    fn user_ids() {
        for (ranges, text) in [
            (&[][..], ""),
            (&[(0, 0), (1000, 1003)], "0, 1000-1003"),
            (&[(0, u32::MAX)], "any"),
            (&[(0, 999), (1001, u32::MAX)], "any but 1000"),
            (&[(1, u32::MAX - 1)], "any but 0, 4294967295"),
        ] {
            assert_eq!(uids(ranges, usize::MAX).to_string(), text);
        }
    }

    #[test]
    fn the_list_is_limited() {
        let ranges: Vec<(u32, u32)> = (0..10).map(|i| (2 * i, 2 * i)).collect();
        assert_eq!(uids(&ranges, 3).to_string(), "0, 2, 4 and 7 more");
        assert_eq!(uids(&ranges, 0).to_string(), "10");
        assert!(!uids(&ranges, 0).is_empty());
    }
}
