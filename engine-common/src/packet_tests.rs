extern crate std;

use std::{vec, vec::Vec};

use super::*;

struct Packet(Vec<u8>);

impl Bytes for Packet {
    fn byte(&self, offset: u64) -> u64 {
        let byte = usize::try_from(offset).ok().and_then(|at| self.0.get(at));
        byte.map_or(UNREADABLE, |&byte| u64::from(byte))
    }

    fn word(&self, offset: u64) -> u64 {
        let mut word = 0;
        for i in 0..4 {
            let byte = self.byte(offset + i);
            if byte == UNREADABLE {
                return UNREADABLE;
            }
            word = word << 8 | byte;
        }
        word
    }
}

const PORTS: [u8; 8] = [0x9c, 0x40, 0x01, 0xbb, 0, 8, 0, 0];
const UDP: u8 = 17;

/// An IPv4 packet; `fragment` is the word of flags and offset.
fn v4(protocol: u8, fragment: u16, options: &[u8], rest: &[u8]) -> Reading {
    let words = 5 + options.len().div_ceil(4);
    let mut packet = vec![0x40 | words as u8, 0, 0, 0, 0, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1]);
    packet.extend(options);
    packet.resize(words * 4, 0);
    packet.extend(rest);
    read(&Packet(packet), 0)
}

/// An IPv6 packet with this value in the next-header field.
fn v6(next: u8, rest: &[u8]) -> Reading {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet.extend([0; 32]);
    packet.extend(rest);
    read(&Packet(packet), 0)
}

fn read_as(reading: Reading) -> (u16, u16, Option<u64>) {
    assert!(!reading.is_fault(), "{reading:?}");
    let last = reading.is_routed().then(|| reading.last_destination());
    (reading.protocol(), reading.port(), last)
}

#[test]
fn plain_packets() {
    assert_eq!(read_as(v4(UDP, 0, &[], &PORTS)), (17, 443, None));
    assert_eq!(read_as(v4(1, 0, &[], &[8, 0])), (1, 0, None));
    let packet = v6(6, &PORTS);
    assert_eq!(read_as(packet), (6, 443, None));
    assert_eq!((packet.is_v6(), packet.destination()), (true, 24));
    assert_eq!(read_as(v6(58, &[128])), (58, 0, None));
    assert_eq!(read_as(v6(59, &[])), (59, 0, None));
}

#[test]
fn truncated_headers_are_a_fault() {
    assert!(read(&Packet(vec![]), 0).is_fault());
    assert!(read(&Packet(vec![0x55; 40]), 0).is_fault());
    assert!(v4(UDP, 0, &[], &PORTS[..3]).is_fault());
    assert!(v6(6, &PORTS[..3]).is_fault());
    assert!(v6(0, &[6, 0]).is_fault());
    // A header of less than 20 bytes.
    assert!(read(&Packet([&[0x44][..], &[0; 30]].concat()), 0).is_fault());
}

#[test]
fn only_the_first_fragment_has_ports() {
    assert_eq!(read_as(v4(UDP, 0x2000, &[], &PORTS)), (17, 443, None));
    assert_eq!(read_as(v4(UDP, 0x2001, &[], &PORTS)), (17, 0, None));
    assert_eq!(read_as(v4(UDP, 1, &[], &[])), (17, 0, None));
    let fragment = |offset: u16| {
        let [high, low] = offset.to_be_bytes();
        v6(44, &[&[UDP, 0, high, low, 0, 0, 0, 1], &PORTS[..]].concat())
    };
    assert_eq!(read_as(fragment(1)), (17, 443, None));
    assert_eq!(read_as(fragment(8)), (17, 0, None));
}

#[test]
fn ipv4_source_routes() {
    let lone = [131, 7, 4, 198, 51, 100, 1];
    assert_eq!(read_as(v4(UDP, 0, &lone, &PORTS)), (17, 443, Some(23)));
    let strict = [137, 7, 4, 198, 51, 100, 1];
    assert_eq!(read_as(v4(UDP, 0, &strict, &PORTS)), (17, 443, Some(23)));
    // Behind a record-route option and padding.
    let behind = [&[7, 7, 4, 0, 0, 0, 0, 1, 1][..], &lone].concat();
    assert_eq!(read_as(v4(UDP, 0, &behind, &PORTS)), (17, 443, Some(32)));
    // It also applies to fragments.
    assert_eq!(read_as(v4(UDP, 5, &lone, &[])), (17, 0, Some(23)));
    // No hops left.
    assert_eq!(
        read_as(v4(UDP, 0, &[131, 7, 8, 198, 51, 100, 1], &PORTS)),
        (17, 443, None)
    );
    // Bytes behind the end-of-options option are ignored.
    assert_eq!(
        read_as(v4(UDP, 0, &[0, 131, 7, 4, 1, 1, 1, 1], &PORTS)),
        (17, 443, None)
    );
    let full: Vec<u8> = [&[1; 33][..], &lone].concat();
    assert_eq!(read_as(v4(UDP, 0, &full, &PORTS)), (17, 443, Some(56)));
}

#[test]
fn malformed_ipv4_routes_are_a_fault() {
    for options in [
        &[131, 11, 4, 198, 51, 100, 1, 198, 51, 100, 2][..],
        &[131, 7, 4, 1, 1, 1, 1, 137, 7, 4, 1, 1, 1, 1],
        &[131, 6, 4, 1, 1, 1],
        &[131, 7, 5, 1, 1, 1, 1],
        &[131, 7, 0, 1, 1, 1, 1],
        &[131, 2, 1],
        &[131, 40, 4, 1, 1, 1, 1],
        &[7, 0, 0, 0],
        &[7, 1, 0, 0],
        &[1, 1, 1, 7],
    ] {
        assert!(v4(UDP, 0, options, &PORTS).is_fault(), "{options:?}");
    }
}

#[test]
fn ipv6_extension_headers() {
    let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination = [51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Six words, which the length field of AH encodes as four.
    let authentication = [
        UDP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let all = [&hop_by_hop[..], &destination, &authentication, &PORTS].concat();
    assert_eq!(read_as(v6(0, &all)), (17, 443, None));
    // The most headers that are parsed, and one more.
    let chain = |count: usize| {
        let mut rest = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count - 1);
        rest.extend([UDP, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend(PORTS);
        v6(60, &rest)
    };
    assert_eq!(read_as(chain(7)), (17, 443, None));
    assert!(chain(8).is_fault());
}

#[test]
fn ipv6_routing_headers() {
    let routed = |header: [u8; 4], addresses: usize| {
        v6(
            43,
            &[&header[..], &[0; 4], &vec![0; 16 * addresses], &PORTS].concat(),
        )
    };
    // Segments in reverse order: the last destination is first.
    assert_eq!(read_as(routed([UDP, 4, 4, 1], 2)), (17, 443, Some(48)));
    // Addresses in order: the last destination is last.
    assert_eq!(read_as(routed([UDP, 2, 2, 1], 1)), (17, 443, Some(48)));
    assert_eq!(read_as(routed([UDP, 4, 0, 1], 2)), (17, 443, Some(64)));
    // No segments left.
    assert_eq!(read_as(routed([UDP, 4, 4, 0], 2)), (17, 443, None));
    assert_eq!(read_as(routed([UDP, 2, 77, 0], 1)), (17, 443, None));
    for header in [
        [UDP, 4, 4, 2],
        [UDP, 4, 3, 1],
        [UDP, 4, 77, 1],
        [UDP, 3, 0, 1],
        [UDP, 0, 4, 1],
    ] {
        assert!(routed(header, 2).is_fault(), "{header:?}");
    }
    let again = [&[43, 2, 2, 1][..], &[0; 20], &[UDP, 2, 2, 1], &[0; 20], &PORTS].concat();
    assert!(v6(43, &again).is_fault());
}
