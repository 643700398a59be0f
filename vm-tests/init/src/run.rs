//! Runs one test program with a time limit, and copies its output to the console.

use std::{
    io::{self, PipeReader, Read, Write},
    os::fd::{AsFd, AsRawFd},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{order::Test, processes::Processes};

/// Runs a program, then kills all remaining processes.
///
/// # Errors
/// When a system call of init fails. A failed test is not an error.
pub(crate) fn run(
    test: &Test,
    environment: &[(String, String)],
    dir: &str,
    processes: &Processes,
) -> Result<()> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block().context("signal mask")?;
    let ended = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("signalfd")?;
    let (mut output, input) = io::pipe().context("pipe")?;
    let (program, arguments) = test.args.split_first().context("no program")?;
    println!("TEST-BEGIN {}", test.name);
    let start = Instant::now();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(input.try_clone().context("pipe")?)
        .stderr(input);
    // A signal mask is inherited. dash waits for this signal with the mask that it started with.
    let unblock = move || children.thread_unblock().map_err(io::Error::from);
    // SAFETY: between fork and exec only a system call is made.
    unsafe { command.pre_exec(unblock) };
    processes.include(&mut command)?;
    let child = command.spawn();
    // It holds the write end of the pipe.
    drop(command);
    let how = match child {
        Ok(child) => {
            fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("pipe")?;
            let child = Pid::from_raw(child.id().cast_signed());
            await_end(child, test, start, &ended, &mut output)?
        }
        Err(error) => format!("does not start: {error}"),
    };
    processes.kill();
    drain(&mut output)?;
    let took = start.elapsed().as_secs_f64();
    println!("TEST-END {} {took:.1} {how}", test.name);
    Ok(())
}

/// Waits for the end of the program: its exit code, or a description.
fn await_end(
    child: Pid,
    test: &Test,
    start: Instant,
    ended: &SignalFd,
    output: &mut PipeReader,
) -> Result<String> {
    loop {
        let Some(left) = test.limit.checked_sub(start.elapsed()) else {
            return Ok(format!("took longer than {} seconds", test.limit.as_secs()));
        };
        let mut fds = [
            PollFd::new(output.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        // Rounded up, so that less than a millisecond is waited for too.
        let timeout = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(timeout)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        drain(output)?;
        // Drained before waitpid, so that a later exit wakes poll again.
        while let Ok(Some(_)) = ended.read_signal() {}
        if let Some(how) = reap(child)? {
            return Ok(how);
        }
    }
}

/// Reaps all ended processes, including orphans of tests; returns the result of `child` if it has ended.
fn reap(child: Pid) -> Result<Option<String>> {
    let mut how = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => how = Some(code.to_string()),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                how = Some(format!("ended by {signal}"));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(how),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waitpid"),
        }
    }
}

/// Copies the available output to the console.
fn drain(output: &mut PipeReader) -> Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut console = io::stdout().lock();
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => console.write_all(&buffer[..length]).context("console")?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return console.flush().context("console");
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("pipe {}", output.as_raw_fd())),
        }
    }
}
