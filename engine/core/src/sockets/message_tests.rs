//! Valid and malformed replies.

use engine_common::{Protocol, SocketFamily};
use proptest::prelude::*;

use super::{
    message::{MessageError, Part, destroy, list, read},
    socket::{Counters, State},
};

const SEQUENCE: u32 = 7;

fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((16 + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(2_u16.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// 198.51.100.9:40000 to 198.51.100.1:443, or the same as IPv4-mapped addresses.
fn description(family: i32) -> Vec<u8> {
    let address = |last: u8| {
        let v4 = [198, 51, 100, last];
        let mut bytes = [0; 16];
        if family == libc::AF_INET {
            bytes[..4].copy_from_slice(&v4);
        } else {
            bytes[10..12].fill(0xff);
            bytes[12..].copy_from_slice(&v4);
        }
        bytes
    };
    let mut bytes = vec![family as u8, 1, 0, 0];
    bytes.extend(40_000_u16.to_be_bytes());
    bytes.extend(443_u16.to_be_bytes());
    bytes.extend(address(9));
    bytes.extend(address(1));
    bytes.extend(3_u32.to_ne_bytes());
    bytes.extend(0x1122_3344_5566_7788_u64.to_ne_bytes());
    for number in [0_u32, 0, 5, 1000, 4711] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

fn parts(bytes: &[u8]) -> Result<Vec<Part>, MessageError> {
    let mut parts = Vec::new();
    read(bytes, SEQUENCE, Protocol::TCP, |part| parts.push(part))?;
    Ok(parts)
}

#[test]
fn a_socket_is_parsed_with_its_cgroup_and_counters() {
    let mut info = vec![0; 232];
    info[120..128].copy_from_slice(&11_u64.to_ne_bytes());
    info[144..148].copy_from_slice(&12_u32.to_ne_bytes());
    info[200..208].copy_from_slice(&13_u64.to_ne_bytes());
    info[208..216].copy_from_slice(&14_u64.to_ne_bytes());
    for (family, expected) in [
        (libc::AF_INET, SocketFamily::Inet),
        (libc::AF_INET6, SocketFamily::Inet6),
    ] {
        let body = [
            description(family),
            attribute(8, &[0]),
            attribute(2, &info),
            attribute(21, &99_u64.to_ne_bytes()),
        ]
        .concat();
        let bytes = [message(20, SEQUENCE, &body), message(3, SEQUENCE, &[0; 4])].concat();
        let found = parts(&bytes).unwrap();
        let [Part::Socket(socket), Part::End(0)] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((socket.family, socket.state), (expected, State::ESTABLISHED));
        assert_eq!(socket.local.ip().to_canonical().to_string(), "198.51.100.9");
        assert_eq!(socket.local.port(), 40_000);
        let peer = socket.peer.unwrap();
        assert_eq!(
            (peer.ip().to_canonical().to_string(), peer.port()),
            ("198.51.100.1".into(), 443)
        );
        assert_eq!((socket.queued, socket.uid, socket.inode), (5, 1000, 4711));
        assert_eq!(socket.cookie(), 0x1122_3344_5566_7788);
        assert_eq!(socket.cgroup, Some(99));
        let counters = Counters {
            acked: 11,
            unsent: 12,
            sent: 13,
            sent_again: 14,
        };
        assert_eq!(socket.counters, Some(counters));
        // A request identifies it by the same fields.
        assert_eq!(destroy(socket, 1)[16 + 8..], description(family)[4..52]);
    }
}

#[test]
fn ends_and_errors_are_parsed() {
    let end = |bytes: &[u8]| parts(bytes).unwrap();
    assert_eq!(
        end(&message(2, SEQUENCE, &(-2_i32).to_ne_bytes())),
        [Part::End(2)]
    );
    assert_eq!(end(&message(2, SEQUENCE, &[0; 20])), [Part::End(0)]);
    assert_eq!(
        end(&message(3, SEQUENCE, &(-2_i32).to_ne_bytes())),
        [Part::End(2)]
    );
    assert_eq!(end(&message(3, SEQUENCE, &[])), [Part::End(0)]);
    assert_eq!(
        end(&message(2, SEQUENCE - 1, &[0; 20])),
        [],
        "a reply to another request"
    );
    assert_eq!(end(&[]), []);
    assert_eq!(parts(&message(4, SEQUENCE, &[])), Err(MessageError::Overrun));
}

#[test]
fn wrong_lengths_are_errors() {
    let whole = message(
        20,
        SEQUENCE,
        &[description(libc::AF_INET), attribute(21, &[0; 8])].concat(),
    );
    assert!(parts(&whole).is_ok());
    for cut in [1, 12, 17, 60, 90, whole.len() - 1] {
        assert_eq!(parts(&whole[..cut]), Err(MessageError::Length), "cut at {cut}");
    }
    for length in [0_u32, 15, 17, 87, whole.len() as u32 + 1, u32::MAX] {
        let mut bytes = whole.clone();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(parts(&bytes), Err(MessageError::Length), "a message of {length}");
    }
    for length in [0_u16, 3, 4, 11, 13, u16::MAX] {
        let mut bytes = whole.clone();
        bytes[88..90].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(
            parts(&bytes),
            Err(MessageError::Length),
            "an attribute of {length}"
        );
    }
    let mut bytes = whole;
    bytes[16] = 1;
    assert_eq!(parts(&bytes), Err(MessageError::Family(1)));
    // An error without an errno.
    assert_eq!(parts(&message(2, SEQUENCE, &[])), Err(MessageError::Length));
}

#[test]
fn requests_have_the_layout_of_the_kernel() {
    let bytes = list(SocketFamily::Inet6, Protocol::UDP, 0b10, 9);
    assert_eq!(bytes.len(), 72);
    assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
    assert_eq!(bytes[4..6], 20_u16.to_ne_bytes());
    assert_eq!(bytes[6..8], 0x301_u16.to_ne_bytes());
    assert_eq!(bytes[8..12], 9_u32.to_ne_bytes());
    assert_eq!(bytes[16..19], [10, 17, 2]);
    assert_eq!(bytes[20..24], 2_u32.to_ne_bytes());
    assert_eq!(list(SocketFamily::Inet, Protocol::RAW, 1, 9)[17], 255);
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parts(&bytes);
    }

    #[test]
    fn changed_bytes_do_not_panic(at in 0_usize..120, value: u8, cut in 0_usize..120) {
        let body = [description(libc::AF_INET6), attribute(21, &[0; 8]), attribute(2, &[0; 12])].concat();
        let mut bytes = message(20, SEQUENCE, &body);
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = parts(&bytes);
    }
}
