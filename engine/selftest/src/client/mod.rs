//! The test client: performs one egress method by system calls and reports how far it came. The result explains
//! what the receiver saw; it does not replace it.

mod address;
mod no_address_hook;
mod other_task;
mod socket;
mod tcp;
mod udp;
mod uring;

use std::{net::SocketAddr, os::fd::OwnedFd};

pub use self::{
    address::{Address, family},
    no_address_hook::packet_for,
    socket::{Failure, Socket, TIMEOUT, join},
    uring::connect_by_uring,
};
use super::{
    client_result::{ClientResult, Step},
    egress_method::{EgressMethod, MARKER},
};

/// Runs an egress method; `via` is the destination that some methods connect to first.
///
/// # Errors
/// The step that failed, with its errno.
pub fn run_method(method: EgressMethod, to: SocketAddr, via: Option<SocketAddr>) -> Result<(), Failure> {
    let via = || via.ok_or_else(|| Failure::named(Step::Preparation, "VIA-MISSING"));
    match method {
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
        EgressMethod::BoundTcpUnspecified | EgressMethod::MappedBoundTcpUnspecified => {
            tcp::bound_to_unspecified(method, to)
        }
        EgressMethod::BoundUdpUnspecified => udp::bound_send_to_unspecified(method, to),
        EgressMethod::IoUringConnect => uring::connect(to),
        EgressMethod::IoUringSendmsg => uring::send_message(to),
        EgressMethod::IoUringPing => uring::ping(to),
        EgressMethod::SctpConnect => no_address_hook::sctp_connect(to),
        EgressMethod::UdpliteConnectSend => no_address_hook::udplite_connect_send(to),
        EgressMethod::UdpliteSendto => no_address_hook::udplite_send_to(to),
        EgressMethod::RawConnectSend => no_address_hook::raw_connect_send(to),
        EgressMethod::RawSendto => no_address_hook::raw_send_to(to),
        EgressMethod::RawOwnHeader => no_address_hook::raw_own_header(to),
        EgressMethod::PingConnectSend => no_address_hook::ping_connect_send(to),
        EgressMethod::PingSendto => no_address_hook::ping_send_to(to),
        EgressMethod::Packet => no_address_hook::packet(to),
        EgressMethod::ThreadConnect => other_task::in_thread(to),
        EgressMethod::GrandchildConnect => other_task::in_grandchild(to),
    }
}

/// Sends over an inherited socket.
///
/// # Errors
/// When the kernel refuses to send.
pub fn send_over(socket: OwnedFd) -> Result<(), Failure> {
    Socket::from_fd(socket).send(MARKER)
}

/// The result of a run, as one line of JSON.
pub fn result_line(method: &str, result: Result<(), Failure>) -> String {
    let result = match result {
        Ok(()) => ClientResult::success(method),
        Err(failure) => ClientResult::failure(method, failure.step, &failure.errno),
    };
    serde_json::json!(result).to_string()
}
