//! Processes that outlive the command.

use std::{
    fs::File,
    io::Read,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use tidegate_core::{cgroup::Hierarchy, launch::sweep_stale};

use crate::{
    Test,
    cgroup::wait_empty,
    run::{Running, shell, supervisor},
    test_cgroup::directory,
};

pub(crate) const TESTS: &[Test] = &[
    ("orphans::are_terminated", are_terminated),
    (
        "orphans::are_killed_after_the_grace_period",
        are_killed_after_the_grace_period,
    ),
    (
        "orphans::of_another_session_are_terminated_too",
        of_another_session_are_terminated_too,
    ),
    ("orphans::are_waited_for", are_waited_for),
    (
        "orphans::second_signal_kills_while_waiting",
        second_signal_kills_while_waiting,
    ),
    (
        "orphans::a_signal_ends_the_grace_period",
        a_signal_ends_the_grace_period,
    ),
    ("orphans::are_kept", are_kept),
];

fn are_terminated() {
    let finished = shell(&[], "sleep 1000 & exit 3");
    assert_eq!(finished.code, 3, "{finished:?}");
    assert_eq!(finished.reported("orphans"), "Terminated");
    assert!(!finished.cgroup().exists());
}

/// Starts a background process that ignores SIGTERM, and exits once it does.
const STUBBORN: &str =
    "mkfifo $D/set; (trap '' TERM; echo > $D/set; exec sleep 1000) & read x < $D/set; exit 5";

fn set(directory: &Path) -> String {
    format!("D={}", directory.display())
}

fn are_killed_after_the_grace_period() {
    let directory = directory();
    let finished = shell(&["--set", &set(directory.path())], STUBBORN);
    assert_eq!(finished.code, 5, "{finished:?}");
    assert_eq!(finished.reported("orphans"), "Killed");
    assert!(!finished.cgroup().exists());
}

fn of_another_session_are_terminated_too() {
    let finished = shell(&[], "setsid sh -c 'sleep 1000 & wait' & exit 0");
    assert_eq!(finished.reported("orphans"), "Terminated");
    assert!(!finished.cgroup().exists());
}

fn are_waited_for() {
    let directory = directory();
    let (fifo, set) = (directory.path().join("go"), set(directory.path()));
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let script = "(read x < $D/go; echo late) & echo $!; exit 6";
    let options = ["--descendants", "wait", "--set", &set];
    let mut running = Running::start(supervisor(&options, &["sh", "-c", script]));
    running.line();
    std::fs::write(&fifo, "\n").unwrap();
    assert_eq!(running.line(), "late");
    let finished = running.finish();
    assert_eq!(finished.code, 6);
    assert_eq!(finished.reported("orphans"), "None");
    assert!(!finished.cgroup().exists());
}

fn second_signal_kills_while_waiting() {
    let directory = directory();
    let acknowledged = directory.path().join("ack");
    mkfifo(&acknowledged, Mode::S_IRWXU).unwrap();
    let mut ack = open_fifo(&acknowledged);
    let set = set(directory.path());
    // It acknowledges every SIGTERM and continues.
    let script = "(trap 'echo > $D/ack' TERM; echo ready; while :; do sleep 1000 & wait; done) & exit 7";
    let options = ["--descendants", "wait", "--set", &set];
    let mut running = Running::start(supervisor(&options, &["sh", "-c", script]));
    assert_eq!(running.line(), "ready");
    // While the command runs, signals are forwarded to it only.
    while !readable(&ack) {
        running.signal(Signal::SIGTERM);
    }
    let mut byte = [0];
    ack.read_exact(&mut byte).unwrap();
    running.signal(Signal::SIGTERM);
    let finished = running.finish();
    // Between the exit of the command and the waitid(2), a signal does not change its code.
    assert!([7, 128 + 15].contains(&finished.code), "{finished:?}");
    assert_eq!(finished.reported("orphans"), "Killed");
    assert!(!finished.cgroup().exists());
}

fn a_signal_ends_the_grace_period() {
    let directory = directory();
    let acknowledged = directory.path().join("ack");
    mkfifo(&acknowledged, Mode::S_IRWXU).unwrap();
    let mut ack = open_fifo(&acknowledged);
    let set = set(directory.path());
    let script = "mkfifo $D/set; (trap 'echo > $D/ack' TERM; echo > $D/set; while :; do sleep 1000 & wait; done) & \
                  read x < $D/set; exit 8";
    let running = Running::start(supervisor(&["--set", &set], &["sh", "-c", script]));
    // It received SIGTERM: the command has exited and the grace period has started.
    let mut byte = [0];
    while !readable(&ack) {}
    ack.read_exact(&mut byte).unwrap();
    running.signal(Signal::SIGINT);
    let finished = running.finish();
    assert_eq!(finished.code, 8, "{finished:?}");
    assert_eq!(finished.reported("orphans"), "Killed");
}

fn are_kept() {
    let script = "(echo ready; exec sleep 1000) > $D/out & exit 4";
    let directory = directory();
    let set = set(directory.path());
    let options = ["--descendants", "keep", "--set", &set];
    let mut running = Running::start(supervisor(&options, &["sh", "-c", script]));
    assert_eq!(running.reported("orphans"), "Kept");
    let cgroup = PathBuf::from(running.reported("cgroup"));
    assert_eq!(running.wait(), 4);
    let hierarchy = Hierarchy::find().unwrap();
    assert_eq!(sweep_stale(&hierarchy).unwrap(), 0);
    assert!(cgroup.exists());
    std::fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
    wait_empty(&cgroup);
    assert_eq!(sweep_stale(&hierarchy).unwrap(), 1);
    assert!(!cgroup.exists());
}

/// Opened for reading and writing, so that it does not wait for a writer and does not end with one.
fn open_fifo(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
        .unwrap()
}

fn readable(file: &File) -> bool {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, 200u16).unwrap() > 0
}
