//! Tries one way out and tells, in one line of JSON, how far it came. Ends with 0 even when refused:
//! what it tells is the result.

mod address;
mod flood;
mod obey;
mod passing;
mod portless;
mod relation;
mod route;
mod server;
mod socket;
mod storm;
mod tcp;
mod udp;
mod uring;

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use integration::{voyage::Voyage, way::Way};

use crate::socket::Failure;

#[derive(Parser)]
enum Task {
    /// Go one way.
    Go {
        way: Way,
        to: SocketAddr,
        /// Where to go first.
        #[arg(long)]
        via: Option<SocketAddr>,
        /// Stay, once all is told, until standard input ends.
        #[arg(long)]
        stay: bool,
    },
    /// Send a datagram over a socket that is handed in through a unix socket.
    TakeSocket { from: PathBuf, to: SocketAddr },
    /// Make a datagram socket, hand it out through a unix socket, and stay until that is closed.
    GiveSocket { to: PathBuf },
    /// Try to connect many times; tell how often and how many were refused.
    Flood { to: SocketAddr, times: u64 },
    /// Connect and send to all places from four threads until standard input ends, and tell the results.
    Storm { places: Vec<SocketAddr> },
    /// Do what each line of standard input says, and tell how it went.
    Obey,
}

fn main() -> ExitCode {
    let task = Task::parse();
    let stay = matches!(task, Task::Go { stay: true, .. });
    let line = match task {
        Task::Go { way, to, via, .. } => told(&way.name(), go(way, to, via)),
        Task::TakeSocket { from, to } => told("take-socket", passing::take(&from, to)),
        Task::GiveSocket { to } => told("give-socket", passing::give(&to)),
        Task::Flood { to, times } => flood::flood(to, times),
        Task::Storm { places } => storm::rage(&places, 4),
        Task::Obey => return obey::obey(),
    };
    // Whoever reads sees a missing line as a failure.
    if writeln!(std::io::stdout(), "{line}").is_err() {
        return ExitCode::FAILURE;
    }
    if stay {
        // Ends with the input, however that ends.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    }
    ExitCode::SUCCESS
}

fn told(way: &str, result: Result<(), Failure>) -> String {
    let voyage = match result {
        Ok(()) => Voyage::done(way),
        Err(failure) => Voyage::ended(way, failure.step, &failure.errno),
    };
    serde_json::json!(voyage).to_string()
}

/// Goes one way.
pub(crate) fn go(way: Way, to: SocketAddr, via: Option<SocketAddr>) -> Result<(), Failure> {
    let via = || via.ok_or_else(|| Failure::named(integration::voyage::Step::Preparation, "NO-VIA"));
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
