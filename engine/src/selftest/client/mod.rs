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
    client_result::{ClientResult, Step},
    egress_method::{EgressMethod, MARKER},
};

/// Goes one way; `via` is where some go first.
///
/// # Errors
/// How far it came.
pub fn go(way: EgressMethod, to: SocketAddr, via: Option<SocketAddr>) -> Result<(), Failure> {
    let via = || via.ok_or_else(|| Failure::named(Step::Preparation, "NO-VIA"));
    match way {
        EgressMethod::TcpConnect => tcp::connect(to),
        EgressMethod::TcpFastopenSendto => tcp::fast_open_send(to),
        EgressMethod::TcpFastopenConnect => tcp::fast_open_connect(to),
        EgressMethod::MptcpConnect => tcp::multipath(to),
        EgressMethod::MappedTcpConnect => tcp::mapped(to),
        EgressMethod::UnspecTcpReconnect => tcp::disconnect_and_reconnect(via()?, to),
        EgressMethod::UdpConnectSend => udp::connect_send(to),
        EgressMethod::UdpSendto => udp::send_to(to),
        EgressMethod::UdpSendmsg => udp::send_message(to),
        EgressMethod::UdpSendmmsg => udp::send_messages(to),
        EgressMethod::UdpConnectedSendto => udp::connected_send_to(via()?, to),
        EgressMethod::UdpReconnect => udp::reconnect(via()?, to),
        EgressMethod::MappedUdpConnect => udp::mapped_connect_send(to),
        EgressMethod::MappedUdpSendto => udp::mapped_send_to(to),
        EgressMethod::InetOnUdp6Connect => udp::inet_connect_on_inet6(to),
        EgressMethod::InetOnUdp6Sendto => udp::inet_send_on_inet6(to),
        EgressMethod::UnspecDisconnectSendto => udp::disconnect_and_send_to(via()?, to),
        EgressMethod::UnspecFamilySendto => udp::send_to_unspecified_family(to),
        EgressMethod::IoUringConnect => uring::connect(to),
        EgressMethod::IoUringSendmsg => uring::send_message(to),
        EgressMethod::IoUringPing => uring::ping(to),
        EgressMethod::SctpConnect => portless::sctp_connect(to),
        EgressMethod::UdpliteConnectSend => portless::udplite_connect_send(to),
        EgressMethod::UdpliteSendto => portless::udplite_send_to(to),
        EgressMethod::RawConnectSend => portless::raw_connect_send(to),
        EgressMethod::RawSendto => portless::raw_send_to(to),
        EgressMethod::RawOwnHeader => portless::raw_own_header(to),
        EgressMethod::PingConnectSend => portless::ping_connect_send(to),
        EgressMethod::PingSendto => portless::ping_send_to(to),
        EgressMethod::Packet => portless::packet(to),
        EgressMethod::ThreadConnect => relation::in_thread(to),
        EgressMethod::GrandchildConnect => relation::in_grandchild(to),
    }
}

/// Sends over a socket that was handed in.
///
/// # Errors
/// How far it came.
pub fn send_over(socket: OwnedFd) -> Result<(), Failure> {
    Socket::from_fd(socket).send(MARKER)
}

/// What became of a run, as one line of JSON.
pub fn told(way: &str, result: Result<(), Failure>) -> String {
    let result = match result {
        Ok(()) => ClientResult::done(way),
        Err(failure) => ClientResult::ended(way, failure.step, &failure.errno),
    };
    serde_json::json!(result).to_string()
}
