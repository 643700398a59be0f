//! `tidegate run`: what `selftest` starts inside its cgroup. Not for people.

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

/// Go one way out, and tell how far it came
#[derive(Clone, Debug, clap::Args)]
pub struct SelftestClientArgs {
    /// The descriptor to tell it to
    #[arg(long, value_name = "FD")]
    pub tell: RawFd,

    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub task: Task,
}

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Task {
    /// Go one way
    Go {
        /// The way
        way: EgressMethod,
        /// Where to
        to: SocketAddr,
        /// Where to go first
        #[arg(long)]
        via: Option<SocketAddr>,
    },
    /// Send over a socket that was handed in
    Send {
        /// Its descriptor
        fd: RawFd,
    },
}

/// Goes, and tells; refused is no failure.
///
/// # Errors
/// When a descriptor is not open, or nobody listens to what is told.
pub fn run(args: &SelftestClientArgs) -> Result<ExitCode, Failure> {
    let tell = open(args.tell)?;
    let line = match args.task {
        Task::Go { way, to, via } => told(way.name(), go(way, to, via)),
        Task::Send { fd } => {
            let socket = open(fd)?;
            told("send", send_over(socket))
        }
    };
    writeln!(File::from(tell), "{line}")
        .map_err(|error| Failure::of(Exit::CouldNotRun, "cannot tell how it went").because(&error))?;
    Ok(Exit::Fine.into())
}

fn open(fd: RawFd) -> Result<std::os::fd::OwnedFd, Failure> {
    let not_there = || Failure::of(Exit::Usage, format!("descriptor {fd} was not handed in"));
    if fd <= libc::STDERR_FILENO {
        return Err(not_there());
    }
    // SAFETY: borrowed for this call only, which fails for a number that is not open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_GETFD).map_err(|_| not_there())?;
    // SAFETY: it is open, came with exec, and is named for us: nothing in this process opened it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}
