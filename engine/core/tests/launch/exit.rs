//! How a command is started, and its exit code.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    process::Command,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, raise},
};
use tidegate_core::cgroup::Hierarchy;
use tidegate_core::launch::{
    self, Exit, OrphanAction, OrphanOutcome, SignalSource, Supervisor, TransientCgroup,
};

use crate::{
    Test,
    run::{Running, finish, shell, supervisor},
    test_cgroup::directory,
};

pub(crate) const TESTS: &[Test] = &[
    ("exit::code_is_returned", code_is_returned),
    ("exit::signal_is_128_and_its_number", signal_is_128_and_its_number),
    ("exit::not_found_is_127", not_found_is_127),
    ("exit::not_executable_is_126", not_executable_is_126),
    (
        "exit::own_failure_is_125_and_nothing_ran",
        own_failure_is_125_and_nothing_ran,
    ),
    (
        "exit::script_without_interpreter_line",
        script_without_interpreter_line,
    ),
    ("exit::path_is_that_of_the_command", path_is_that_of_the_command),
    ("exit::signal_state_is_inherited", signal_state_is_inherited),
    ("exit::signals_are_forwarded", signals_are_forwarded),
    (
        "exit::late_signals_do_not_change_it",
        late_signals_do_not_change_it,
    ),
    (
        "exit::watched_descriptors_are_served",
        watched_descriptors_are_served,
    ),
];

fn code_is_returned() {
    for code in [0, 7, 255] {
        assert_eq!(shell(&[], &format!("exit {code}")).code, code);
    }
}

fn signal_is_128_and_its_number() {
    for (name, number) in [("KILL", 9), ("TERM", 15), ("PIPE", 13), ("40", 40)] {
        assert_eq!(
            shell(&[], &format!("kill -{name} $$")).code,
            128 + number,
            "{name}"
        );
    }
}

fn not_found_is_127() {
    for program in ["no-such-program-here", "/nowhere/at/all", ""] {
        let finished = finish(supervisor(&[], &[program]));
        assert_eq!(finished.code, 127, "{finished:?}");
        assert!(finished.errors.contains("command not found"), "{finished:?}");
        assert!(!finished.cgroup().exists());
    }
}

fn not_executable_is_126() {
    let directory = directory();
    let plain = directory.path().join("plain");
    fs::write(&plain, "exit 0").unwrap();
    for program in [plain.as_path(), directory.path()] {
        let finished = finish(supervisor(&[], &[program.to_str().unwrap()]));
        assert_eq!(finished.code, 126, "{finished:?}");
        assert!(!finished.cgroup().exists());
    }
}

fn own_failure_is_125_and_nothing_ran() {
    let finished = shell(&["--keep-fds", "99"], "echo ran");
    assert_eq!((finished.code, &*finished.output), (125, ""), "{finished:?}");
    assert!(finished.errors.contains("descriptor 99"), "{finished:?}");

    // Without the capability the mount namespace cannot be created, and the command is not started.
    let mut weak = Command::new("setpriv");
    let own = supervisor(&[], &["sh", "-c", "echo ran"]);
    weak.args(["--bounding-set=-sys_admin", "--"])
        .arg(own.get_program())
        .args(own.get_args())
        .env("SKIP_PRIVILEGE_CHECK", "1");
    let finished = finish(weak);
    assert_eq!((finished.code, &*finished.output), (125, ""), "{finished:?}");
    assert!(
        finished.errors.contains("private mount namespace"),
        "{finished:?}"
    );
    assert!(!finished.cgroup().exists());

    // The check finds that before anything is created.
    let mut weak = Command::new("setpriv");
    weak.args(["--bounding-set=-sys_admin", "--"])
        .arg(own.get_program())
        .args(own.get_args());
    let finished = finish(weak);
    assert_eq!((finished.code, &*finished.output), (125, ""), "{finished:?}");
    assert!(
        finished.errors.contains("(missing CAP_SYS_ADMIN)"),
        "{finished:?}"
    );
}

fn script_without_interpreter_line() {
    let directory = directory();
    let script = directory.path().join("script");
    fs::write(&script, "echo \"$0 $1\"; exit 4").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let finished = finish(supervisor(&[], &[script, "one two"]));
    assert_eq!(finished.code, 4, "{finished:?}");
    assert_eq!(finished.output.trim(), format!("{script} one two"));
}

fn path_is_that_of_the_command() {
    let directory = directory();
    let program = directory.path().join("only-here");
    fs::write(&program, "#!/bin/sh\nexit 9\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(finish(supervisor(&[], &["only-here"])).code, 127);
    let path = format!("PATH=/nowhere:{}:/bin", directory.path().display());
    assert_eq!(finish(supervisor(&["--set", &path], &["only-here"])).code, 9);
}

fn signal_state_is_inherited() {
    let plain = Command::new("cat")
        .arg("/proc/self/status")
        .output()
        .unwrap()
        .stdout;
    let plain = String::from_utf8(plain).unwrap();
    let finished = finish(supervisor(&[], &["cat", "/proc/self/status"]));
    for key in ["SigBlk", "SigIgn", "SigCgt"] {
        let value = finished.status_line(key);
        assert!(
            plain.contains(&format!("{key}:\t{value}")),
            "{key} is {value}, plain it is {plain}"
        );
    }
    // Ignored signals stay ignored (nohup).
    let own = supervisor(&[], &["cat", "/proc/self/status"]);
    let mut nohup = Command::new("nohup");
    nohup.arg(own.get_program()).args(own.get_args());
    let ignored = finish(nohup).status_line("SigIgn");
    assert_eq!(u64::from_str_radix(&ignored, 16).unwrap() & 1, 1, "{ignored}");
}

fn signals_are_forwarded() {
    for (signal, code) in [
        (Signal::SIGTERM, 21),
        (Signal::SIGINT, 22),
        (Signal::SIGHUP, 23),
        (Signal::SIGUSR1, 24),
        (Signal::SIGQUIT, 25),
    ] {
        let name = signal.as_str().trim_start_matches("SIG");
        let script = format!("trap 'exit {code}' {name}; echo ready; while :; do read x; done");
        let mut running = Running::start(supervisor(&[], &["sh", "-c", &script]));
        assert_eq!(running.line(), "ready");
        running.signal(signal);
        // dash runs its traps when `read` returns.
        running.write_input("\n");
        assert_eq!(running.wait(), code, "{signal}");
    }
}

fn watched_descriptors_are_served() {
    let mut running = Running::start(supervisor(&[], &["sh", "-c", "read x"]));
    assert_eq!(running.reported("served"), b'x'.to_string());
    running.write_input("\n");
    assert_eq!(running.wait(), 0);
}

/// A ^C that ends the command also reaches the supervisor, possibly after the command has exited.
fn late_signals_do_not_change_it() {
    let signals = SignalSource::open().unwrap();
    let cgroup = TransientCgroup::create(&Hierarchy::find().unwrap()).unwrap();
    let mut command = launch::Command::new("sh", std::env::vars_os().collect());
    command.args = vec!["-c".into(), "sleep 1000 & exit 3".into()];
    let child = command.spawn(cgroup.fd(), &signals).unwrap();
    poll(
        &mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)],
        PollTimeout::NONE,
    )
    .unwrap();
    raise(Signal::SIGINT).unwrap();
    let finished = Supervisor::new(child, &cgroup, &signals)
        .run(OrphanAction::Terminate, &mut [])
        .unwrap();
    assert_eq!(finished.exit, Exit::Code(3));
    // Terminated, not killed at once.
    assert_eq!(finished.orphans, OrphanOutcome::Terminated);
    cgroup.remove().unwrap();
    raise(Signal::SIGTERM).unwrap();
    drop(signals);
}
