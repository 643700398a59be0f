//! Whoever goes out: performs one way by system calls, and tells how far it came. What arrives is what
//! counts; what is told explains it.

mod address;
mod portless;
mod relation;
mod socket;
mod tcp;
mod udp;
mod uring;

use std::{net::SocketAddr, os::fd::OwnedFd};

pub use self::{
    address::{Address, family},
    portless::packet_for,
    socket::{Failure, PATIENCE, Socket, joined},
};
use super::{
    voyage::{Step, Voyage},
    way::{MARKER, Way},
};

/// Goes one way; `via` is where some go first.
///
/// # Errors
/// How far it came.
pub fn go(way: Way, to: SocketAddr, via: Option<SocketAddr>) -> Result<(), Failure> {
    let via = || via.ok_or_else(|| Failure::named(Step::Preparation, "NO-VIA"));
    match way {
        Way::TcpConnect => tcp::connect(to),
        Way::TcpFastopenSendto => tcp::fast_open_send(to),
        Way::TcpFastopenConnect => tcp::fast_open_connect(to),
        Way::MptcpConnect => tcp::multipath(to),
        Way::MappedTcpConnect => tcp::mapped(to),
        Way::UnspecTcpReconnect => tcp::disconnect_and_reconnect(via()?, to),
        Way::UdpConnectSend => udp::connect_send(to),
        Way::UdpSendto => udp::send_to(to),
        Way::UdpSendmsg => udp::send_message(to),
        Way::UdpSendmmsg => udp::send_messages(to),
        Way::UdpConnectedSendto => udp::connected_send_to(via()?, to),
        Way::UdpReconnect => udp::reconnect(via()?, to),
        Way::MappedUdpConnect => udp::mapped_connect_send(to),
        Way::MappedUdpSendto => udp::mapped_send_to(to),
        Way::InetOnUdp6Connect => udp::inet_connect_on_inet6(to),
        Way::InetOnUdp6Sendto => udp::inet_send_on_inet6(to),
        Way::UnspecDisconnectSendto => udp::disconnect_and_send_to(via()?, to),
        Way::UnspecFamilySendto => udp::send_to_unspecified_family(to),
        Way::IoUringConnect => uring::connect(to),
        Way::IoUringSendmsg => uring::send_message(to),
        Way::IoUringPing => uring::ping(to),
        Way::SctpConnect => portless::sctp_connect(to),
        Way::UdpliteConnectSend => portless::udplite_connect_send(to),
        Way::UdpliteSendto => portless::udplite_send_to(to),
        Way::RawConnectSend => portless::raw_connect_send(to),
        Way::RawSendto => portless::raw_send_to(to),
        Way::RawOwnHeader => portless::raw_own_header(to),
        Way::PingConnectSend => portless::ping_connect_send(to),
        Way::PingSendto => portless::ping_send_to(to),
        Way::Packet => portless::packet(to),
        Way::ThreadConnect => relation::in_thread(to),
        Way::GrandchildConnect => relation::in_grandchild(to),
    }
}

/// Sends over a socket that was handed in.
///
/// # Errors
/// How far it came.
pub fn send_over(socket: OwnedFd) -> Result<(), Failure> {
    Socket::from_fd(socket).send(MARKER)
}

/// What became of a voyage, as one line of JSON.
pub fn told(way: &str, result: Result<(), Failure>) -> String {
    let voyage = match result {
        Ok(()) => Voyage::done(way),
        Err(failure) => Voyage::ended(way, failure.step, &failure.errno),
    };
    serde_json::json!(voyage).to_string()
}
