//! `tidegate exec` on a machine that systemd has booted: the command runs in a transient scope, and the scope is no way
//! out of a policy.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture that does not work fails the test"
)]

use std::{
    ffi::OsString,
    fs,
    io::Write,
    net::IpAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
};

use integration::{
    attached::AttachFixture,
    client_result::ClientResult,
    egress_method::{EgressMethod, Family, Transport},
    exec::{Exec, enter_at, tidegate},
    namespace::Namespace,
    receiver::Receiver,
    running_command::{CommandOutput, RunningCommand},
    systemd::{Scope, Service, cgroup_of, directory, property, ready, systemctl},
    test_client::TestClient,
};
use nix::{
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

const USER: &str = "1000";
const SLICE_OF_USER: &str = "user-1000.slice";
const IN_SCOPE: [&str; 2] = ["--cgroup-manager", "systemd"];

/// Blocks everything except `Namespace::far`.
fn spec() -> String {
    let far = Namespace::far(Family::V4);
    format!("{{default: block, rules: [{{name: far, action: allow, to: [{far}]}}]}}")
}

fn listen(address: IpAddr) -> Receiver {
    Receiver::listen(Transport::Tcp, address)
}

/// The words of a shell that run an egress method to a receiver.
fn send(method: EgressMethod, receiver: &Receiver) -> String {
    let client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let words = client.args(method, receiver.address(), None);
    let words: Vec<_> = words.iter().map(|word| word.to_str().expect("ASCII")).collect();
    words.join(" ")
}

fn connect(receiver: &Receiver) -> String {
    send(EgressMethod::TcpConnect, receiver)
}

fn shell(script: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", script].map(OsString::from).to_vec()
}

#[track_caller]
fn expect_blocked(output: &str, errno: &str, receiver: &Receiver) {
    let results = ClientResult::read(output);
    assert_eq!(results[0].errno.as_deref(), Some(errno), "{output}");
    receiver.expect_nothing("blocked");
}

/// A running `tidegate exec`, whose command prints its pid and reads its input.
struct Waiting {
    tidegate: RunningCommand,
    input: ChildStdin,
    command: Pid,
}

impl Waiting {
    /// A shell that continues with a script after a line of input.
    fn start(exec: &Exec, procs_file: &Path, then: &str) -> Waiting {
        Waiting::of(exec, procs_file, &format!("echo $$; read go; {then}"))
    }

    /// A shell that does the same by a script of its own.
    fn of(exec: &Exec, procs_file: &Path, script: &str) -> Waiting {
        let mut program = tidegate(exec.args(shell(script)));
        program.stdin(Stdio::piped());
        enter_at(&mut program, procs_file);
        let mut tidegate = RunningCommand::spawn(&mut program);
        let pid = tidegate.wait_for_lines(1);
        Waiting {
            input: tidegate.take_stdin(),
            command: Pid::from_raw(pid.trim().parse().expect("the pid of the command")),
            tidegate,
        }
    }

    fn let_go(&mut self) {
        self.input.write_all(b"go\n").unwrap();
    }

    fn finish(mut self) -> CommandOutput {
        self.let_go();
        self.tidegate.finish()
    }

    /// Waits for the end of tidegate only: its output remains open.
    fn wait_for_tidegate(&self) -> WaitStatus {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.tidegate.pid()), ended).unwrap()
    }
}

#[test]
fn results_are_the_same_without_a_scope() {
    let Some(_systemd) = ready("results_are_the_same_without_a_scope") else {
        return;
    };
    Namespace::run(|_| {
        let [near, far] = [Namespace::near, Namespace::far].map(|address| listen(address(Family::V4)));
        let of = |manager: &str| {
            let exec = Exec::with(&spec()).options(["--cgroup-manager", manager]);
            let output = exec.run(shell(&format!("{}; {}; exit 7", connect(&near), connect(&far))));
            expect_blocked(&output.expect_code(7).stdout, "EPERM", &near);
            assert!(ClientResult::read(&output.stdout)[1].ok, "{}", output.stdout);
            assert_eq!(far.arrived().len(), 1);
            let report = exec.report();
            assert!(report.lost.is_empty());
            let event = report.only_event().clone();
            let scope = event.scope.expect("the path of the command's cgroup");
            let is_in_scope = scope.starts_with("/system.slice/") && scope.ends_with(".scope/command");
            assert_eq!(is_in_scope, manager == "systemd", "{scope}");
            let decision = (event.policy, event.verdict, event.outcome, event.reason);
            let attempt = (event.hook, event.errno, event.destination, event.generation);
            let summary = report.summary;
            let policy = &summary.policies[0];
            let counters = [policy.rules[0].attempts, policy.default.attempts, policy.faults];
            let ends = (summary.exit, summary.enforcement, summary.outcomes);
            (decision, attempt, ends, counters)
        };
        assert_eq!(of("systemd"), of("cgroupfs"));
    });
}

#[test]
fn scope_is_delegated_and_removed() {
    let Some(_systemd) = ready("scope_is_delegated_and_removed") else {
        return;
    };
    let exec = Exec::with("{default: allow}").options(IN_SCOPE);
    let waiting = Waiting::start(&exec, &exec.cgroup().procs_file(), "exit 7");
    let scope = Scope::of(waiting.command);
    let tidegate = waiting.tidegate.pid();
    assert_eq!(scope.unit, format!("tidegate-exec-{tidegate}-0.scope"));
    for (name, expected) in [
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("Slice", "system.slice"),
        ("Transient", "yes"),
        ("ControlGroup", &scope.cgroup),
    ] {
        assert_eq!(property(&scope.unit, name), expected, "{name}");
    }
    assert!(exec.cgroup().children().is_empty());
    waiting.finish().expect_code(7);
    scope.wait_until_removed();
}

/// By default the command of a system service is not taken out of the service.
#[test]
fn command_stays_in_a_system_service() {
    let Some(_systemd) = ready("command_stays_in_a_system_service") else {
        return;
    };
    let exec = Exec::with("{default: allow}");
    let waiting = Waiting::start(&exec, &exec.cgroup().procs_file(), "exit 7");
    let cgroup = cgroup_of(waiting.command);
    assert!(cgroup.starts_with(&exec.cgroup().cgroup_path()), "{cgroup}");
    waiting.finish().expect_code(7);
}

/// The command of a user gets a scope in the nearest slice that belongs to root, above the user's own systemd.
#[test]
fn scope_is_outside_of_the_user_manager() {
    let Some(_systemd) = ready("scope_is_outside_of_the_user_manager") else {
        return;
    };
    let manager = format!("user@{USER}.service");
    systemctl(&["start", &manager]);
    let of_application = directory(&property(&manager, "ControlGroup")).join("app.slice/test.scope");
    fs::create_dir_all(&of_application).unwrap();
    let exec = Exec::with("{default: allow}").options(["--user", USER]);
    let waiting = Waiting::start(&exec, &of_application.join("cgroup.procs"), "exit 7");
    let scope = Scope::of(waiting.command);
    assert_eq!(
        scope.cgroup,
        format!("/user.slice/{SLICE_OF_USER}/{}", scope.unit)
    );
    assert_eq!(property(&scope.unit, "Slice"), SLICE_OF_USER);
    waiting.finish().expect_code(7);
    scope.wait_until_removed();
    systemctl(&["stop", &manager]);
}

/// The scope then lasts as long as the command.
#[test]
fn killing_tidegate_keeps_the_policy() {
    let Some(_systemd) = ready("killing_tidegate_keeps_the_policy") else {
        return;
    };
    Namespace::run(|_| {
        let near = listen(Namespace::near(Family::V4));
        let exec = Exec::with(&spec()).options(IN_SCOPE);
        let then = format!("{}; echo end; read go", connect(&near));
        let mut waiting = Waiting::start(&exec, &exec.cgroup().procs_file(), &then);
        let scope = Scope::of(waiting.command);
        waiting.tidegate.signal(Signal::SIGKILL);
        waiting.wait_for_tidegate();
        waiting.let_go();
        expect_blocked(&waiting.tidegate.wait_for_stdout("end"), "EPERM", &near);
        assert_eq!(property(&scope.unit, "ActiveState"), "active");
        waiting.let_go();
        scope.wait_until_removed();
    });
}

#[test]
fn kept_descendants_stay_in_the_scope() {
    let Some(_systemd) = ready("kept_descendants_stay_in_the_scope") else {
        return;
    };
    Namespace::run(|_| {
        let near = listen(Namespace::near(Family::V4));
        let exec = Exec::with(&spec()).options(IN_SCOPE);
        let exec = exec.options(["--descendants", "keep"]);
        let child = format!("echo $$; read go; {}; echo end; read go", connect(&near));
        // Shells redirect the input of background jobs; the child uses the real one.
        let script = format!("exec 3<&0; sh -c '{child}' <&3 & exit 5");
        let mut waiting = Waiting::of(&exec, &exec.cgroup().procs_file(), &script);
        let tidegate = waiting.tidegate.pid();
        assert_eq!(waiting.wait_for_tidegate(), WaitStatus::Exited(tidegate, 5));
        let scope = Scope::of(waiting.command);
        waiting.tidegate.wait_for_stderr(&scope.unit);
        waiting.let_go();
        expect_blocked(&waiting.tidegate.wait_for_stdout("end"), "EPERM", &near);
        assert_eq!(property(&scope.unit, "ActiveState"), "active");
        waiting.let_go();
        scope.wait_until_removed();
    });
}

#[test]
fn reloading_systemd_keeps_the_policy() {
    let Some(_systemd) = ready("reloading_systemd_keeps_the_policy") else {
        return;
    };
    Namespace::run(|_| {
        let near = listen(Namespace::near(Family::V4));
        let exec = Exec::with(&spec()).options(IN_SCOPE);
        let then = format!("{}; exit 7", connect(&near));
        let waiting = Waiting::start(&exec, &exec.cgroup().procs_file(), &then);
        let scope = Scope::of(waiting.command);
        for reload in ["daemon-reload", "daemon-reexec"] {
            systemctl(&[reload]);
            assert_eq!(property(&scope.unit, "ActiveState"), "active", "{reload}");
            assert_eq!(property(&scope.unit, "Delegate"), "yes", "{reload}");
        }
        assert_eq!(Scope::of(waiting.command).cgroup, scope.cgroup);
        expect_blocked(&waiting.finish().expect_code(7).stdout, "EPERM", &near);
        assert_eq!(exec.report().events.len(), 1);
        scope.wait_until_removed();
    });
}

#[test]
fn stopping_the_scope_ends_the_command() {
    let Some(_systemd) = ready("stopping_the_scope_ends_the_command") else {
        return;
    };
    let exec = Exec::with("{default: allow}").options(IN_SCOPE);
    let waiting = Waiting::start(&exec, &exec.cgroup().procs_file(), "exit 7");
    let scope = Scope::of(waiting.command);
    systemctl(&["stop", &scope.unit]);
    let signal = Signal::SIGTERM as i32;
    waiting.tidegate.finish().expect_code(128 + signal);
    assert_eq!(exec.report().summary.exit.signal, Some(signal));
    scope.wait_until_removed();
}

/// A user may migrate processes between the cgroups that are delegated to this user. The mount namespace of the command
/// hides them, but not below `/proc/PID/root` of another process of the user.
#[test]
fn users_command_cannot_leave_the_scope() {
    let Some(_systemd) = ready("users_command_cannot_leave_the_scope") else {
        return;
    };
    Namespace::run(|_| {
        let near = listen(Namespace::near(Family::V4));
        let service = Service::start(SLICE_OF_USER, &[&format!("User={USER}")]);
        let [caller, elsewhere] = ["caller", "elsewhere"].map(|name| delegated(&service, name));
        let script = format!(
            "exec 3>/proc/{}/root{}; echo opened; echo $$ >&3 && echo moved; cat /proc/self/cgroup; {}",
            service.main,
            elsewhere.display(),
            connect(&near)
        );
        // Without `exec` it works, so the test can fail.
        let mut plain = Command::new("setpriv");
        plain.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
        plain.args(shell(&script));
        enter_at(&mut plain, &caller);
        let output = RunningCommand::run(&mut plain);
        let output = &output.expect_code(0).stdout;
        assert!(
            output.contains("moved") && output.contains("/elsewhere"),
            "{output}"
        );
        assert_eq!(near.arrived().len(), 1);

        let exec = Exec::with(&spec()).options(["--user", USER]);
        let mut program = tidegate(exec.args(shell(&script)));
        enter_at(&mut program, &caller);
        let output = RunningCommand::run(&mut program);
        let output = &output.expect_code(0).stdout;
        assert!(output.contains("opened"), "{output}");
        assert!(
            !output.contains("moved") && !output.contains("/elsewhere"),
            "{output}"
        );
        assert!(
            output.contains(&format!("/user.slice/{SLICE_OF_USER}/tidegate-exec-")),
            "{output}"
        );
        expect_blocked(output, "EPERM", &near);
    });
}

/// Creates a cgroup of the user below a service and returns its `cgroup.procs`.
fn delegated(service: &Service, name: &str) -> PathBuf {
    let cgroup = directory(&service.cgroup).join(name);
    fs::create_dir(&cgroup).unwrap();
    let procs_file = cgroup.join("cgroup.procs");
    let user = USER.parse().ok();
    for path in [&cgroup, &procs_file] {
        chown(path, user, user).unwrap();
    }
    procs_file
}

/// A command is not taken out of a service with a policy. Policies of the slice apply to the scope, too.
#[test]
fn policies_of_the_caller_hold() {
    let Some(_systemd) = ready("policies_of_the_caller_hold") else {
        return;
    };
    Namespace::run(|_| {
        let near = listen(Namespace::near(Family::V4));
        let service = Service::start(SLICE_OF_USER, &[&format!("User={USER}")]);
        let fixture = AttachFixture::open();
        let file = fixture.policy("shop", "{default: block, errno: EACCES}");
        let attach = |cgroup: &str| drop(fixture.run_ok(["attach", "--policy", &file, "--cgroup", cgroup]));
        let start = || {
            let exec = Exec::with("{default: allow}").options(["--user", USER]);
            let waiting = Waiting::start(&exec, &service.procs_file(), &connect(&near));
            (exec, waiting)
        };

        attach(&service.cgroup);
        let (_exec, waiting) = start();
        expect_stays(waiting, &service, "EACCES", &near);
        expect_refused(&service);

        fixture.run_ok(["detach", "shop"]);
        attach(&format!("/user.slice/{SLICE_OF_USER}"));
        let (_exec, waiting) = start();
        Scope::of(waiting.command);
        expect_blocked(&waiting.finish().expect_code(0).stdout, "EACCES", &near);
    });
}

/// The same for a filter of systemd's own, which is a BPF program of the service's cgroup.
#[test]
fn address_filter_of_the_caller_holds() {
    let Some(_systemd) = ready("address_filter_of_the_caller_holds") else {
        return;
    };
    Namespace::run(|_| {
        let denied = Receiver::listen(Transport::Udp, Namespace::elsewhere(Family::V4));
        let filter = format!("IPAddressDeny={}", denied.address().ip());
        let service = Service::start(SLICE_OF_USER, &[&format!("User={USER}"), &filter]);
        let exec = Exec::with("{default: allow}").options(["--user", USER]);
        let then = send(EgressMethod::UdpSendto, &denied);
        let waiting = Waiting::start(&exec, &service.procs_file(), &then);
        expect_stays(waiting, &service, "EPERM", &denied);
        expect_refused(&service);
    });
}

#[track_caller]
fn expect_stays(waiting: Waiting, service: &Service, errno: &str, receiver: &Receiver) {
    let cgroup = cgroup_of(waiting.command);
    assert!(cgroup.starts_with(&service.cgroup), "{cgroup}");
    expect_blocked(&waiting.finish().expect_code(0).stdout, errno, receiver);
}

/// A scope is refused if it is demanded where it would be a way out.
#[track_caller]
fn expect_refused(service: &Service) {
    let exec = Exec::with("{default: allow}").options(IN_SCOPE);
    let mut program = tidegate(exec.args(["echo", "ran"]));
    enter_at(&mut program, &service.procs_file());
    let output = RunningCommand::run(&mut program);
    assert_eq!(output.expect_code(125).stdout, "");
    assert!(output.stderr.contains(&service.cgroup), "{}", output.stderr);
}
