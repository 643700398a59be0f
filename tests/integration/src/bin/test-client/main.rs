//! Tries one way out and tells, in one line of JSON, how far it came. Ends with 0 even when refused:
//! what it tells is the result.

mod clone_into_cgroup;
mod flood;
mod pass_socket;
mod route;
mod scripted;
mod server;
mod storm;
mod unix;

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use integration::egress_method::EgressMethod;
use tidegate::selftest::client::{go, told};

#[derive(Parser)]
enum Task {
    /// Go one way.
    Go {
        way: EgressMethod,
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
        Task::Go { way, to, via, .. } => told(way.name(), go(way, to, via)),
        Task::TakeSocket { from, to } => told("take-socket", pass_socket::take(&from, to)),
        Task::GiveSocket { to } => told("give-socket", pass_socket::give(&to)),
        Task::Flood { to, times } => flood::flood(to, times),
        Task::Storm { places } => storm::rage(&places, 4),
        Task::Obey => return scripted::obey(),
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
