//! Attempts faster than events can be read.

use std::net::SocketAddr;

use integration::selftest::client::{Address, Socket, family};

/// Connects datagram sockets (which sends nothing) and returns the counts as JSON.
pub(crate) fn flood(to: SocketAddr, times: u64) -> String {
    let to_bytes = Address::of(to);
    let (mut attempts, mut refused) = (0u64, 0u64);
    for _ in 0..times {
        let Ok(socket) = Socket::new(family(to), libc::SOCK_DGRAM, libc::IPPROTO_UDP) else {
            break;
        };
        attempts += 1;
        refused += u64::from(socket.connect(&to_bytes).is_err());
    }
    serde_json::json!({ "attempts": attempts, "refused": refused }).to_string()
}
