//! The life of a command: its cgroup, signals, descendants that outlive it, and a killed tidegate.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture that does not work fails the test"
)]

use std::{fs, io::Write, os::unix::fs::MetadataExt, path::PathBuf};

use integration::{
    client_result::ClientResult,
    egress_method::{EgressMethod, Family, Transport},
    exec::Exec,
    kernel::errno_seen,
    mount_table::mount_of,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    running_command::RunningCommand,
    test_client::TestClient,
};
use nix::{sys::signal::Signal, unistd::Pid};

fn root(test: &str) -> bool {
    met(test, &[Need::Root])
}

fn exec() -> Exec {
    Exec::with("{default: allow}")
}

/// The directory of the pinned links of a cgroup.
fn pins_of(cgroup: &std::path::Path) -> PathBuf {
    let id = fs::metadata(cgroup).unwrap().ino();
    let file_system = mount_of("bpf").expect("a BPF file system: tidegate mounts one if there is none");
    let own = file_system.join("tidegate");
    // Of the programs loaded for this run, or of programs that were loaded before.
    let loaded = fs::read_dir(&own)
        .unwrap()
        .flatten()
        .map(|entry| entry.path().join("links"));
    let dirs = loaded;
    let mut dirs = dirs.map(|dir| dir.join(id.to_string()));
    dirs.find(|dir| dir.is_dir())
        .unwrap_or_else(|| panic!("no links are pinned for {id}"))
}

#[track_caller]
fn expect_clean(exec: &Exec) {
    assert!(
        exec.cgroup().children().is_empty(),
        "left: {:?}",
        exec.cgroup().children()
    );
}

/// A shell that prints `ready` and then reads its input.
fn start_waiting(exec: &Exec, then: &str) -> RunningCommand {
    let running = exec.start(["/bin/sh", "-c", &format!("echo ready; read go; {then}")]);
    running.wait_for_stdout("ready");
    running
}

#[test]
fn command_runs_in_a_transient_cgroup() {
    if !root("command_runs_in_a_transient_cgroup") {
        return;
    }
    let exec = exec().with_input();
    let mut running = start_waiting(&exec, "cat /proc/self/cgroup");
    let children = exec.cgroup().children();
    assert_eq!(children.len(), 1, "{children:?}");
    let pins = pins_of(&children[0]);
    assert!(pins.is_dir(), "the links are pinned in {}", pins.display());
    running.take_stdin().write_all(b"go\n").unwrap();
    let output = running.finish();
    let name = children[0].file_name().unwrap().to_str().unwrap();
    assert!(
        output.expect_code(0).stdout.contains(name),
        "{} is not in {name}",
        output.stdout
    );
    expect_clean(&exec);
    assert!(!pins.exists(), "the pins are gone too");
}

#[test]
fn cgroups_created_by_the_command_are_removed() {
    if !root("cgroups_created_by_the_command_are_removed") {
        return;
    }
    let exec = exec().options(["--keep-capability", "all"]);
    let mount = mount_of("cgroup2").unwrap();
    let script = format!(
        "own=$(sed -n 's/^0:://p' /proc/self/cgroup); mkdir -p {}$own/inner/deep",
        mount.display()
    );
    exec.run(["/bin/sh", "-c", &script]).expect_code(0);
    expect_clean(&exec);
}

/// Signals sent to tidegate reach the command, and tidegate ends like the command.
#[test]
fn signals_are_forwarded() {
    if !root("signals_are_forwarded") {
        return;
    }
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
    ] {
        let exec = exec().with_input();
        let mut running = start_waiting(&exec, "echo not reached");
        let input = running.take_stdin();
        running.signal(signal);
        running.finish().expect_code(128 + signal as i32);
        drop(input);
        expect_clean(&exec);
        assert_eq!(exec.report().summary.exit.signal, Some(signal as i32));
    }
}

/// If the command handles the signal, its exit code counts.
#[test]
fn signal_handled_by_the_command() {
    if !root("signal_handled_by_the_command") {
        return;
    }
    let exec = exec().with_input();
    let mut running = exec.start([
        "/bin/sh",
        "-c",
        "trap 'echo caught; exit 7' TERM; echo ready; read go; exit 1",
    ]);
    let input = running.take_stdin();
    running.wait_for_stdout("ready");
    running.signal(Signal::SIGTERM);
    let output = running.finish();
    drop(input);
    assert!(output.expect_code(7).stdout.contains("caught"));
    expect_clean(&exec);
}

/// Enforcement does not need the tidegate process: if it is killed, the command stays under the policy.
#[test]
fn killing_tidegate_keeps_the_policy() {
    if !root("killing_tidegate_keeps_the_policy") {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let allowed = Receiver::listen(Transport::Tcp, Namespace::far(Family::V4));
        let spec = format!(
            "{{default: block, errno: EACCES, rules: [{{name: far, action: allow, to: [{}]}}]}}",
            Namespace::far(Family::V4)
        );
        let exec = Exec::with(&spec).with_input();
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let mut args = vec![
            "/bin/sh".into(),
            "-c".into(),
            format!(
                "echo ready; read go; \"$@\"; \"$0\" run tcp-connect {}; echo end",
                allowed.address()
            )
            .into(),
            test_client.path().into(),
        ];
        args.extend(test_client.args(EgressMethod::TcpConnect, receiver.address(), None));
        let mut running = exec.start(args);
        running.wait_for_stdout("ready");
        let mut input = running.take_stdin();
        let pins = pins_of(&exec.cgroup().children()[0]);

        let pid = running.pid();
        running.signal(Signal::SIGKILL);
        nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(pid),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        )
        .unwrap();

        // A later run with another policy does not change this one.
        Exec::with("{default: allow}").run(["true"]).expect_code(0);
        assert!(pins.is_dir());

        input.write_all(b"go\n").unwrap();
        let reported = ClientResult::read(&running.wait_for_stdout("end"));
        assert_eq!(
            reported[0].errno.as_deref(),
            Some(errno_seen("EACCES")),
            "{reported:?}"
        );
        receiver.expect_nothing("the policy is still enforced");
        assert!(
            reported[1].ok,
            "and it still lets through what is allowed: {reported:?}"
        );
        assert_eq!(allowed.arrived().len(), 1);

        // The next run removes the leftovers once the cgroup is empty.
        exec.cgroup().wait_until_empty();
        assert!(pins.is_dir());
        Exec::run(&exec, ["true"]).expect_code(0);
        expect_clean(&exec);
        assert!(!pins.exists());
    });
}

/// A child that outlives the command: it prints its pid and waits for the end of its input.
const LEAVES_A_CHILD: &str = "{ echo child; exec cat; } <&3 & exit 5";

fn start_leaving_a_child(exec: &Exec) -> RunningCommand {
    // Shells redirect the input of background jobs; the child uses the real one.
    exec.start(["/bin/sh", "-c", &format!("exec 3<&0; {LEAVES_A_CHILD}")])
}

#[test]
fn descendants_are_terminated() {
    if !root("descendants_are_terminated") {
        return;
    }
    let exec = exec().with_input();
    let mut running = start_leaving_a_child(&exec);
    // The input stays open, so the child does not end by itself.
    let input = running.take_stdin();
    running.finish().expect_code(5);
    assert!(exec.cgroup().processes().is_empty());
    expect_clean(&exec);
    drop(input);
}

#[test]
fn descendants_that_ignore_sigterm_are_killed() {
    if !root("descendants_that_ignore_sigterm_are_killed") {
        return;
    }
    let exec = exec().with_input();
    let script = "exec 3<&0; (trap '' TERM; echo child; while read line <&3; do :; done) & exit 5";
    let mut running = exec.start(["/bin/sh", "-c", script]);
    let input = running.take_stdin();
    running.finish().expect_code(5);
    assert!(exec.cgroup().processes().is_empty());
    expect_clean(&exec);
    drop(input);
}

#[test]
fn descendants_are_waited_for() {
    if !root("descendants_are_waited_for") {
        return;
    }
    let exec = exec().options(["--descendants", "wait"]).with_input();
    let mut running = start_leaving_a_child(&exec);
    let mut input = running.take_stdin();
    input.write_all(b"still here\n").unwrap();
    running.wait_for_stdout("still here");
    drop(input);
    running.finish().expect_code(5);
    expect_clean(&exec);
}

/// They continue under the policy.
#[test]
fn descendants_are_kept_under_the_policy() {
    if !root("descendants_are_kept_under_the_policy") {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let exec = Exec::with("{default: block}")
            .options(["--descendants", "keep"])
            .with_input();
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let reported = exec.dir().path().join("reported");
        let fifo = exec.dir().path().join("end");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!(
            "exec 3<&0; {{ read go; \"$@\" >{}; echo x >{}; }} <&3 >/dev/null 2>&1 & exit 5",
            reported.display(),
            fifo.display()
        );
        let mut args = vec!["/bin/sh".into(), "-c".into(), script.into(), "sh".into()];
        args.extend(test_client.args(EgressMethod::TcpConnect, receiver.address(), None));
        let mut running = exec.start(args);
        let mut input = running.take_stdin();
        let output = running.finish();
        output.expect_code(5);
        let kept = exec.cgroup().children();
        assert_eq!(kept.len(), 1);
        let name = kept[0].file_name().unwrap().to_str().unwrap();
        assert!(
            output.stderr.contains(name),
            "the message names the cgroup: {}",
            output.stderr
        );
        assert!(!exec.cgroup().processes().is_empty());

        input.write_all(b"go\n").unwrap();
        // Opening blocks until the other end is open; reading ends when it is closed.
        fs::read_to_string(&fifo).unwrap();
        let result = ClientResult::read(&fs::read_to_string(&reported).unwrap())
            .pop()
            .unwrap();
        assert_eq!(result.errno.as_deref(), Some("EPERM"));
        receiver.expect_nothing("kept under the policy");

        exec.cgroup().wait_until_empty();
        let pins = pins_of(&kept[0]);
        Exec::with("{default: allow}").run(["true"]).expect_code(0);
        assert!(
            !pins.exists() || kept[0].exists(),
            "pins are removed with their cgroup"
        );
    });
}

/// Two concurrent runs do not affect each other.
#[test]
fn concurrent_runs() {
    if !root("concurrent_runs") {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let waiting = |spec: &str| {
            let exec = Exec::with(spec).with_input();
            let mut args = vec![
                "/bin/sh".into(),
                "-c".into(),
                "echo ready; read go; exec \"$@\"".into(),
                "sh".into(),
            ];
            args.extend(test_client.args(EgressMethod::TcpConnect, receiver.address(), None));
            let running = exec.start(args);
            running.wait_for_stdout("ready");
            (exec, running)
        };
        let (_blocking, mut blocked) = waiting("{default: block}");
        let (_allowing, mut allowed) = waiting("{default: allow}");
        let mut reported = Vec::new();
        for running in [&mut allowed, &mut blocked] {
            running.take_stdin().write_all(b"go\n").unwrap();
        }
        for running in [allowed, blocked] {
            let output = running.finish();
            reported.push(
                ClientResult::read(&output.expect_code(0).stdout)
                    .pop()
                    .unwrap()
                    .ok,
            );
        }
        assert_eq!(reported, [true, false]);
        assert_eq!(receiver.arrived().len(), 1);
    });
}

/// Without a terminal there is no job control, but a stopped command can be continued.
#[test]
fn stopped_command_continues() {
    if !root("stopped_command_continues") {
        return;
    }
    let exec = exec().with_input();
    let mut running = start_waiting(&exec, "echo went on");
    let procs_file = exec.cgroup().processes();
    let shell = procs_file.into_iter().find(|&pid| pid != running.pid().as_raw());
    let shell = Pid::from_raw(shell.expect("the shell"));
    nix::sys::signal::kill(shell, Signal::SIGSTOP).unwrap();
    nix::sys::signal::kill(shell, Signal::SIGCONT).unwrap();
    running.signal(Signal::SIGCONT);
    running.take_stdin().write_all(b"go\n").unwrap();
    assert!(running.finish().expect_code(0).stdout.contains("went on"));
}
