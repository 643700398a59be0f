//! A transient scope of systemd: the cgroup above that of the command.
//!
//! systemd starts a scope only with a process in it, and removes it when it is empty. So a child process, the holder,
//! waits in it until the command's cgroup is removed. It ends with this process; then the scope lasts as long as
//! the command's processes.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use cgroups_rs::{
    CgroupPid,
    systemd::{SystemdClient, props::PropertiesBuilder},
};
use nix::{
    poll::PollFlags,
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, getpid, getppid, setsid},
};

use super::{
    Slice,
    cgroup_events::{CgroupEvents, wait_readable},
    transient_cgroup::{NAME_PREFIX, NAMES_TRIED},
};
use crate::cgroup::Hierarchy;

/// Limit for systemd to answer and to start the scope; the same as the default of D-Bus.
const START_LIMIT: Duration = Duration::from_secs(25);

/// A started scope. Dropping it ends the holder; systemd removes the scope when it is empty.
#[derive(Debug)]
pub(super) struct ScopeUnit {
    directory: PathBuf,
    _holder: Holder,
}

/// systemd did not start the scope.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// The holder could not be started.
    #[error("cannot start a process for it: {0}")]
    Holder(io::Error),
    /// The call failed.
    #[error("{0}")]
    Call(String),
    /// No answer, or the scope has no cgroup.
    #[error("systemd did not start it within {} seconds", START_LIMIT.as_secs())]
    Timeout,
    /// The cgroup of the scope cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Cgroup {
        /// Its directory, or that of its slice.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// systemd sees other process ids.
    #[error("systemd put another process into it: is this process in a pid namespace of its own?")]
    OtherProcess,
}

impl ScopeUnit {
    /// Starts a scope with `Delegate=yes` in this slice and waits until its cgroup exists.
    pub(super) fn start(hierarchy: &Hierarchy, slice: &Slice) -> Result<ScopeUnit, ScopeError> {
        let deadline = Instant::now() + START_LIMIT;
        let parent = hierarchy
            .mount_point()
            .join(slice.path().strip_prefix("/").unwrap_or(slice.path()));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| ScopeError::Cgroup { path, source }
        };
        let (unit, directory) = unused_name(&parent).ok_or(ScopeError::Timeout)?;
        let created = watch(&parent).map_err(at(&parent))?;
        let holder = Holder::start().map_err(ScopeError::Holder)?;
        start_unit(unit, slice.unit().to_owned(), holder.pid)?;

        while !directory.exists() {
            if !wait_readable(created.as_fd(), PollFlags::POLLIN, deadline).map_err(at(&parent))? {
                return Err(ScopeError::Timeout);
            }
            // Which directory was created does not matter: the loop looks for it.
            let _ = created.read_events();
        }
        let events = CgroupEvents::open(&directory).map_err(at(&directory))?;
        let left = deadline.saturating_duration_since(Instant::now());
        if !events.wait(true, left).map_err(at(&directory))? {
            return Err(ScopeError::Timeout);
        }
        let members = std::fs::read_to_string(directory.join("cgroup.procs")).map_err(at(&directory))?;
        if !members.lines().any(|pid| pid == holder.pid.to_string()) {
            return Err(ScopeError::OtherProcess);
        }
        Ok(ScopeUnit {
            directory,
            _holder: holder,
        })
    }

    /// The directory of its cgroup.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The name and the directory of a scope that does not exist: another one remains where an earlier process with this id
/// left processes running.
fn unused_name(parent: &Path) -> Option<(String, PathBuf)> {
    (0..NAMES_TRIED)
        .map(|number| format!("{NAME_PREFIX}{}-{number}.scope", std::process::id()))
        .map(|unit| (parent.join(&unit), unit))
        .find(|(directory, _)| !directory.exists())
        .map(|(directory, unit)| (unit, directory))
}

fn watch(parent: &Path) -> io::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(parent, AddWatchFlags::IN_CREATE)?;
    Ok(inotify)
}

/// Asks systemd, on a thread of its own: the D-Bus client has no time limit, and systemd may hang.
fn start_unit(unit: String, slice: String, member: Pid) -> Result<(), ScopeError> {
    let (sender, receiver) = mpsc::channel();
    let call = move || {
        let properties = PropertiesBuilder::default()
            .description("Command under a tidegate policy".to_owned())
            .slice(slice)
            .delegate(true)
            .build();
        let mut client = SystemdClient::new(&unit, properties)?;
        client.set_pid_prop(CgroupPid::from(member.as_raw() as u64))?;
        client.start()
    };
    thread::Builder::new()
        .name("systemd".to_owned())
        .spawn(move || {
            // Without a receiver the time limit has passed.
            let _ = sender.send(call().map_err(|error| error.to_string()));
        })
        .map_err(ScopeError::Holder)?;
    match receiver.recv_timeout(START_LIMIT) {
        Ok(answer) => answer.map_err(ScopeError::Call),
        Err(_) => Err(ScopeError::Timeout),
    }
}

/// A child process that waits in the scope. Dropping it kills and reaps it.
#[derive(Debug)]
struct Holder {
    pid: Pid,
}

impl Holder {
    fn start() -> io::Result<Holder> {
        let parent = getpid();
        let mut previous = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut previous))?;
        // SAFETY: the child only makes system calls and never returns.
        let forked = unsafe { fork() };
        if let Ok(ForkResult::Child) = forked {
            hold(parent);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&previous), None)?;
        match forked? {
            ForkResult::Parent { child } => Ok(Holder { pid: child }),
            ForkResult::Child => hold(parent),
        }
    }
}

/// The holder: in a session of its own, without descriptors and with all signals blocked, so that neither the terminal
/// nor `systemctl stop`, which sends SIGTERM first, ends it before the command. It ends with its parent.
fn hold(parent: Pid) -> ! {
    // SAFETY: system calls with integers and a constant string.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32);
        libc::chdir(c"/".as_ptr());
    }
    // The parent may have ended before PR_SET_PDEATHSIG.
    if getppid() == parent {
        let _ = setsid();
        loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: ends this process only.
    unsafe { libc::_exit(0) }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It is a child of this process that was not reaped, so the id is its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}
