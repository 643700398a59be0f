//! `tidegate selftest-client`: the test client that `selftest` starts inside its cgroups. Hidden: it is not for users.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    process::ExitCode,
};

use nix::fcntl::{FcntlArg, fcntl};

use crate::{Exit, Failure};
use tidegate_selftest::{
    client::{result_line, run_method, send_over},
    egress_method::EgressMethod,
};

/// Run one egress method and report the result
#[derive(Clone, Debug, clap::Args)]
pub struct SelftestClientArgs {
    /// The file descriptor to write the result to
    #[arg(long, value_name = "FD")]
    pub result_fd: RawFd,

    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub task: Task,
}

/// What the test client does.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Task {
    /// Run an egress method
    Run {
        /// The egress method
        method: EgressMethod,
        /// The destination
        to: SocketAddr,
        /// The destination to connect to first
        #[arg(long)]
        via: Option<SocketAddr>,
    },
    /// Send over an inherited socket
    Send {
        /// Its file descriptor
        fd: RawFd,
    },
}

/// Runs the task and writes its result. A denied attempt is a result, not an error.
///
/// # Errors
/// When a descriptor is not open, or the result cannot be written.
pub fn run(args: &SelftestClientArgs) -> Result<ExitCode, Failure> {
    let results = open(args.result_fd)?;
    let line = match args.task {
        Task::Run { method, to, via } => result_line(method.name(), run_method(method, to, via)),
        Task::Send { fd } => {
            let socket = open(fd)?;
            result_line("send", send_over(socket))
        }
    };
    writeln!(File::from(results), "{line}")
        .map_err(|error| Failure::of(Exit::CouldNotRun, "failed to write the result").because(&error))?;
    Ok(Exit::Success.into())
}

fn open(fd: RawFd) -> Result<OwnedFd, Failure> {
    let not_open = || Failure::of(Exit::Usage, format!("file descriptor {fd} is not open"));
    if fd <= libc::STDERR_FILENO {
        return Err(not_open());
    }
    // SAFETY: borrowed for this call only, which fails if the descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_GETFD).map_err(|_| not_open())?;
    // SAFETY: it is open, inherited through execve, and passed for this use: nothing in this process opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
