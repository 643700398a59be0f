//! The test programs in this executable.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::ExitCode,
};

use nix::{
    sys::{
        signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgrp, setsid, tcgetpgrp, tcsetpgrp},
};
use tidegate_core::cgroup::Hierarchy;
use tidegate_core::launch::{
    Command, Environment, KeepFds, OrphanAction, OrphanOutcome, RequiredPrivileges, SignalSource, SpawnError,
    Supervisor, TargetUser, TransientCgroup, Watch,
};

pub(crate) const SUPERVISE: &str = "supervise";
pub(crate) const JOB: &str = "job";

/// `supervise [OPTION VALUE]... -- COMMAND`: like `tidegate exec`, without policies. Writes `key: value` lines to
/// standard error.
pub(crate) fn supervise(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match try_supervise(arguments) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap()),
        Err(error) => {
            eprintln!("error: {error}");
            let code = error.downcast_ref().map_or(125, SpawnError::exit_code);
            ExitCode::from(code)
        }
    }
}

fn try_supervise(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Result<i32> {
    let environment: Environment = std::env::vars_os().collect();
    let mut command = Command::new("", environment.clone());
    let mut descendants = OrphanAction::Terminate;
    let mut user = None;
    while let Some(option) = arguments.next().filter(|argument| argument != "--") {
        let value = arguments.next().unwrap().into_string().unwrap();
        match option.to_str().unwrap() {
            "--user" => user = Some(TargetUser::parse(&value)?),
            "--keep-capability" => command.keep_capabilities = value.parse()?,
            "--keep-fds" if value == "all" => command.keep_fds = KeepFds::All,
            "--keep-fds" => command.keep_fds = KeepFds::Also(vec![value.parse()?]),
            "--isolation" => command.isolation = value == "on",
            "--set" => {
                let (name, value) = value.split_once('=').unwrap();
                command.environment.push((name.into(), Some(value.into())));
            }
            "--descendants" => {
                descendants = match value.as_str() {
                    "end" => OrphanAction::Terminate,
                    "wait" => OrphanAction::Wait,
                    _ => OrphanAction::Keep,
                }
            }
            other => panic!("unknown option {other}"),
        }
    }
    command.program = arguments.next().unwrap();
    command.args = arguments.collect();
    command.user = user.map_or_else(|| TargetUser::invoking(&environment), Ok)?;

    let signals = SignalSource::open()?;
    let hierarchy = Hierarchy::find()?;
    // Tests of failing steps skip the check to reach the step.
    if std::env::var_os("SKIP_PRIVILEGE_CHECK").is_none() {
        RequiredPrivileges::new(&command.user, command.isolates()).check(&hierarchy)?;
    }
    let cgroup = TransientCgroup::create(&hierarchy)?;
    eprintln!("cgroup: {}", cgroup.path().display());
    let child = command.spawn(cgroup.fd(), &signals)?;
    eprintln!("pid: {}", child.pid());
    // A watched descriptor: a pipe that is readable once.
    let (read, write) = nix::unistd::pipe()?;
    io::Write::write_all(&mut std::fs::File::from(write.try_clone()?), b"x")?;
    let mut ready = || {
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).unwrap();
        eprintln!("served: {}", byte[0]);
    };
    let mut watches = [Watch {
        fd: std::os::fd::AsFd::as_fd(&read),
        ready: &mut ready,
    }];
    let finished = Supervisor::new(child, &cgroup, &signals).run(descendants, &mut watches)?;
    drop(write);
    eprintln!("orphans: {:?}", finished.orphans);
    if let Ok(foreground) = tcgetpgrp(io::stdin()) {
        eprintln!("foreground: {}", foreground == getpgrp());
    }
    match finished.orphans {
        OrphanOutcome::Kept => drop(cgroup.keep()),
        _ => cgroup.remove()?,
    }
    Ok(finished.exit.code())
}

/// `job COMMAND`: leads a session on the terminal at standard input, and runs the command as its
/// foreground job. Reports each stop of the job and continues it. Returns the exit code of the job.
pub(crate) fn job(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    setsid().unwrap();
    // SAFETY: an ioctl with an integer argument, on an open descriptor.
    assert_eq!(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }, 0);
    // A shell sets the foreground group from the background, which must not stop it.
    let block: SigSet = [Signal::SIGTTOU].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&block), None).unwrap();
    let mut command = std::process::Command::new(arguments.next().unwrap());
    command.args(arguments).process_group(0);
    // SAFETY: both are system calls on integers.
    unsafe {
        command.pre_exec(move || {
            tcsetpgrp(io::stdin(), getpgrp())?;
            sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&block), None)?;
            Ok(())
        });
    }
    let job = Pid::from_raw(command.spawn().unwrap().id().try_into().unwrap());
    loop {
        match waitpid(job, Some(WaitPidFlag::WUNTRACED)).unwrap() {
            WaitStatus::Stopped(_, signal) => {
                eprintln!("stopped: {signal}");
                io::stderr().flush().unwrap();
                killpg(job, Signal::SIGCONT).unwrap();
            }
            WaitStatus::Exited(_, code) => return ExitCode::from(u8::try_from(code).unwrap()),
            WaitStatus::Signaled(_, signal, _) => panic!("the supervisor died of {signal}"),
            _ => {}
        }
    }
}
