//! The test client: runs one task and prints its result as one line of JSON. The exit code is 0 even if an attempt is
//! denied.

mod clone_into_cgroup;
mod flood;
mod load;
mod pass_socket;
mod route;
mod scripted;
mod server;
mod source;
mod unix;

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use integration::egress_method::EgressMethod;
use integration::selftest::client::{result_line, run_method};

#[derive(Parser)]
enum Task {
    /// Run an egress method.
    Run {
        method: EgressMethod,
        to: SocketAddr,
        /// The destination to connect to first.
        #[arg(long)]
        via: Option<SocketAddr>,
        /// After printing the result, wait for the end of standard input.
        #[arg(long)]
        stay: bool,
    },
    /// Receive a datagram socket over a unix socket and send over it.
    TakeSocket { from: PathBuf, to: SocketAddr },
    /// Create a datagram socket, send it over a unix socket, and wait until that is closed.
    GiveSocket { to: PathBuf },
    /// Connect many times; print how many attempts were made and refused.
    Flood { to: SocketAddr, times: u64 },
    /// Connect and send to all destinations from four threads until standard input ends, and print the counts.
    Load { destinations: Vec<SocketAddr> },
    /// Run one step per line of standard input, and print its result.
    Scripted,
}

fn main() -> ExitCode {
    let task = Task::parse();
    let stay = matches!(task, Task::Run { stay: true, .. });
    let line = match task {
        Task::Run { method, to, via, .. } => result_line(method.name(), run_method(method, to, via)),
        Task::TakeSocket { from, to } => result_line("take-socket", pass_socket::take(&from, to)),
        Task::GiveSocket { to } => result_line("give-socket", pass_socket::give(&to)),
        Task::Flood { to, times } => flood::flood(to, times),
        Task::Load { destinations } => load::generate_load(&destinations, 4),
        Task::Scripted => return scripted::run_script(),
    };
    // The test fails without a result.
    if writeln!(std::io::stdout(), "{line}").is_err() {
        return ExitCode::FAILURE;
    }
    if stay {
        // Errors end the wait too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    }
    ExitCode::SUCCESS
}
