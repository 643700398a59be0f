//! `tidegate selftest-client`: hidden command that `selftest` runs inside its cgroup.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    os::fd::{FromRawFd, RawFd},
    process::ExitCode,
};

use nix::fcntl::{FcntlArg, fcntl};

use crate::{
    cli::{Exit, Failure},
    selftest::{
        client::{go, send_over, told},
        egress_method::EgressMethod,
    },
};

/// Send by one egress method, and report the result (used by selftest)
#[derive(Clone, Debug, clap::Args)]
pub struct SelftestClientArgs {
    /// File descriptor to write the result to
    #[arg(long, value_name = "FD")]
    pub tell: RawFd,

    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub task: Task,
}

/// What to send.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Task {
    /// Send by an egress method
    Go {
        /// The egress method
        way: EgressMethod,
        /// Destination
        to: SocketAddr,
        /// Intermediate destination, such as a first connection or a source route
        #[arg(long)]
        via: Option<SocketAddr>,
    },
    /// Send on an inherited socket
    Send {
        /// File descriptor of the socket
        fd: RawFd,
    },
}

/// Sends and reports the result. A denied call is a result, not a failure.
///
/// # Errors
/// When a file descriptor is not open, or the result cannot be written.
pub fn run(args: &SelftestClientArgs) -> Result<ExitCode, Failure> {
    let results = open(args.tell)?;
    let line = match args.task {
        Task::Go { way, to, via } => told(way.name(), go(way, to, via)),
        Task::Send { fd } => {
            let socket = open(fd)?;
            told("send", send_over(socket))
        }
    };
    writeln!(File::from(results), "{line}")
        .map_err(|error| Failure::of(Exit::CouldNotRun, "cannot write the result").because(&error))?;
    Ok(Exit::Success.into())
}

fn open(fd: RawFd) -> Result<std::os::fd::OwnedFd, Failure> {
    let not_open = || Failure::of(Exit::Usage, format!("file descriptor {fd} was not inherited"));
    if fd <= libc::STDERR_FILENO {
        return Err(not_open());
    }
    // SAFETY: borrowed for this call only, which fails when the descriptor is not open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_GETFD).map_err(|_| not_open())?;
    // SAFETY: it is open, inherited across exec, and passed for this use: nothing in this process opened it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}
