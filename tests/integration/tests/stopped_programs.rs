//! Programs that the kernel loads and attaches and does not call: LSM and fentry programs and kprobes with
//! `kernel.ftrace_enabled=0`, kprobes with `kprobes/enabled` of debugfs. What needs them is refused or partial, before and
//! after the switch; the cgroup hooks go on. The tests change switches of the machine, so it must be dedicated to them.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family},
    exec::{Exec, enter, tidegate},
    kernel::{
        FTRACE_ENABLED, cgroup_hooks_choose_errno, cgroup_hooks_kill, has_bpf_module, is_dedicated_machine,
        tracer_hook,
    },
    kernel_switch::KernelSwitches,
    namespace::Namespace,
    requirement::{Need, met},
    running_command::RunningCommand,
    scripted_client::ScriptedClient,
    test_client::TestClient,
};
use serde_json::Value;

const BLOCKING: &str = "{default: block}";
const WATCHING: &str = "{mode: audit, default: audit, hooks: [cgroup, kprobe]}";

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

/// Runs a test that starts with ftrace on or off.
fn with_ftrace(test: &str, on: bool, act: impl Fn(KernelSwitches) + Send + Sync) {
    let needs = [
        Need::Root,
        Need::Kernel(
            is_dedicated_machine(),
            "the machine is not dedicated to the tests, and they switch off what all of it uses",
        ),
        Need::Kernel(fs::exists(FTRACE_ENABLED).unwrap(), "no ftrace"),
        Need::Kernel(has_bpf_module(), "no LSM programs, even with ftrace"),
    ];
    if met(test, &needs) {
        Namespace::run(|_| {
            let switches = KernelSwitches::take();
            switches.set_ftrace(on);
            act(switches);
        });
    }
}

/// Policies that need LSM programs on this kernel, with the feature that is unmet without.
fn policies_that_need_lsm() -> Vec<(&'static str, &'static str)> {
    let mut policies = vec![
        (
            "families",
            "{default: block, rules: [{name: a, action: block, to: any, families: [vsock]}]}",
        ),
        (
            "unix_sockets",
            "{default: block, rules: [{name: a, action: block, unix: any}]}",
        ),
        ("lsm_hooks", "{default: block, hooks: [lsm]}"),
    ];
    if !cgroup_hooks_kill() {
        policies.push((
            "kill",
            "{default: block, rules: [{name: a, action: kill, to: [198.51.100.1]}]}",
        ));
    }
    if !cgroup_hooks_choose_errno() {
        policies.push(("errno", "{default: block, errno: EACCES}"));
    }
    policies
}

const FTRACE_REASON: &str = "kernel.ftrace_enabled is 0, so the kernel never calls LSM programs; \
                             `sysctl kernel.ftrace_enabled=1` enables them";

/// A datagram to an address of the network, from a cgroup; whether the call failed with EPERM.
fn is_denied(fixture: &AttachFixture, cgroup: &TestCgroup) -> bool {
    let to = SocketAddr::new(Namespace::near(Family::V4), 9);
    let result = fixture.run_client(cgroup, &test_client().args(EgressMethod::UdpSendto, to, None));
    result.errno.as_deref() == Some("EPERM")
}

/// A connection to a unix socket, from a cgroup; whether the call failed with EPERM.
fn is_unix_denied(cgroup: &TestCgroup, path: &str) -> bool {
    let mut process = ScriptedClient::start(&test_client(), cgroup);
    let result = process.run_step(&format!("unix stream {path}"));
    process.quit();
    result.errno.as_deref() == Some("EPERM")
}

/// The features that `status` lists for a policy as unmet.
fn unmet(policy: &Value) -> Vec<&str> {
    let unmet = policy["unmet"].as_array().unwrap();
    unmet.iter().map(|one| one["feature"].as_str().unwrap()).collect()
}

#[test]
fn exec_without_lsm_programs() {
    with_ftrace("exec_without_lsm_programs", false, |_| {
        for (feature, spec) in policies_that_need_lsm() {
            let refused = Exec::with(spec).run(["/bin/echo", "started"]);
            refused.expect_code(125);
            assert_eq!(refused.stdout, "", "the command is not started");
            for part in [
                "policy test cannot be fully enforced on this kernel:",
                &format!("\n  {feature}: "),
                FTRACE_REASON,
                "hint: ",
                "--best-effort",
            ] {
                assert!(
                    refused.stderr.contains(part),
                    "no `{part}` in\n{}",
                    refused.stderr
                );
            }

            let accepted = Exec::with(spec).options(["--best-effort"]);
            let output = accepted.run(["/bin/true"]);
            output.expect_code(0);
            assert!(output.stderr.contains("partially enforced"), "{}", output.stderr);
            let summary = accepted.report().summary;
            assert_eq!(summary.enforcement, "partial");
            let features: Vec<&str> = summary.unmet.iter().map(|one| one.feature.as_str()).collect();
            assert_eq!(features, [feature]);
            assert!(
                summary.unmet[0].reason.contains(FTRACE_REASON),
                "{:?}",
                summary.unmet
            );
        }
        // What needs no LSM programs is enforced by the cgroup hooks, and full.
        let exec = Exec::with(BLOCKING);
        let to = SocketAddr::new(Namespace::near(Family::V4), 9);
        let result = exec.run_client(test_client().args(EgressMethod::TcpConnect, to, None));
        assert_eq!(result.errno.as_deref(), Some("EPERM"));
        let report = exec.report();
        assert_eq!(report.summary.enforcement, "full");
        assert_eq!(
            (
                report.only_event().hook.as_str(),
                report.only_event().outcome.as_str()
            ),
            ("connect4", "blocked")
        );
    });
}

/// Programs are kept between runs; the next run uses those for the switch as it is then.
#[test]
fn exec_follows_the_switch() {
    with_ftrace("exec_follows_the_switch", true, |switches| {
        let spec = "{default: allow, rules: [{name: a, action: block, unix: any}]}";
        for on in [true, false, true] {
            switches.set_ftrace(on);
            let exec = Exec::with(spec);
            let output = exec.run(["/bin/true"]);
            output.expect_code(if on { 0 } else { 125 });

            let listener = TcpListener::bind((Namespace::near(Family::V4), 0)).unwrap();
            let exec = Exec::with("{mode: audit, default: audit, hooks: [kprobe]}");
            let to = listener.local_addr().unwrap();
            assert!(
                exec.run_client(test_client().args(EgressMethod::TcpConnect, to, None))
                    .ok
            );
            let (_, peer) = listener.accept().unwrap();
            let report = exec.report();
            let event = report.only_event();
            assert_eq!(event.hook, tracer_hook());
            assert_eq!(event.local_address.unwrap().port, Some(peer.port()));
            assert_eq!(report.summary.enforcement, "full");
        }
    });
}

#[test]
fn attach_without_lsm_programs() {
    with_ftrace("attach_without_lsm_programs", false, |_| {
        let fixture = AttachFixture::open().with_own_programs();
        let cgroup = TestCgroup::create();
        let path = cgroup.cgroup_path();
        // The cgroup hooks are all that the policy needs.
        fixture.attach(&cgroup, "plain", BLOCKING);
        assert!(is_denied(&fixture, &cgroup));
        let text = fixture.run_ok(["status"]);
        for note in [
            "LSM programs are not available",
            "cgroup migrations are not reported",
        ] {
            assert!(
                text.contains(&format!("note: {note}: kernel.ftrace_enabled is 0")),
                "{text}"
            );
        }

        for (feature, spec) in policies_that_need_lsm() {
            let name = feature.replace('_', "-");
            let file = fixture.policy(&name, spec);
            let attach = ["attach", "--policy", &file, "--cgroup", &path];
            let unmet_line = format!("\n  {feature}: ");
            fixture.run_fails(
                1,
                &[
                    "cannot be fully enforced on this kernel",
                    &unmet_line,
                    FTRACE_REASON,
                    "--best-effort",
                ],
                attach,
            );
            assert_eq!(fixture.status().names(), ["plain"]);
            let output = fixture.run(attach.into_iter().chain(["--best-effort"]));
            output.expect_code(5);
            assert!(
                output.stdout.contains(&format!("partial: {feature}: ")),
                "{}",
                output.stdout
            );
            let status = fixture.status();
            assert_eq!(status.policy(&name)["enforcement"], "partial");
            assert_eq!(unmet(status.policy(&name)), [feature]);
            assert_eq!(status.policy("plain")["enforcement"], "full");
            fixture.run(["status"]).expect_code(5);
            assert!(is_denied(&fixture, &cgroup));
            fixture.run_ok(["detach", &name]);
        }

        // A version that needs them does not replace one that does not.
        let unix = "{default: block, rules: [{name: a, action: block, unix: any}]}";
        let file = fixture.policy("plain", unix);
        let apply = ["apply", "-f", &file];
        fixture.run_fails(1, &["\n  unix_sockets: ", FTRACE_REASON], apply);
        assert_eq!(fixture.status().policy("plain")["generation"], 1);
        let output = fixture.run(apply.into_iter().chain(["--best-effort"]));
        output.expect_code(5);
        let status = fixture.status();
        assert_eq!(unmet(status.policy("plain")), ["unix_sockets"]);
        assert_eq!(status.policy("plain")["generation"], 2);
        assert!(is_denied(&fixture, &cgroup));
    });
}

/// The programs stay attached and are not called any more: `status` finds out.
#[test]
fn ftrace_switched_off_after_attach() {
    with_ftrace("ftrace_switched_off_after_attach", true, |switches| {
        let fixture = AttachFixture::open().with_own_programs();
        let cgroup = TestCgroup::create();
        let (plain, unix, watched) = (
            cgroup.child("plain"),
            cgroup.child("unix"),
            cgroup.child("watched"),
        );
        let socket = fixture.dir().path().join("named.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let socket = socket.display().to_string();
        let naming = format!("{{default: block, rules: [{{name: a, action: block, unix: [{socket}]}}]}}");
        fixture.attach(&plain, "plain", BLOCKING);
        fixture.attach(&unix, "unix", &naming);
        fixture.attach(&watched, "watch", WATCHING);
        fixture.run_ok(["status"]);
        assert!(is_unix_denied(&unix, &socket));

        switches.set_ftrace(false);
        assert!(
            !is_unix_denied(&unix, &socket),
            "the kernel does not call the program"
        );
        assert!(is_denied(&fixture, &plain) && is_denied(&fixture, &unix));
        let output = fixture.run(["status"]);
        output.expect_code(5);
        let watch_reason = "watch: kprobe: kernel.ftrace_enabled is 0, so the kernel never calls kprobes; ";
        for part in [
            &format!("! plain: lsm_hooks: {FTRACE_REASON}; sockets that were created in another cgroup"),
            &format!(
                "! unix: unix_sockets: LSM programs for unix sockets are not available: {FTRACE_REASON}"
            ),
            watch_reason,
            "events of TCP connections have no local address",
            "note: LSM programs are not available: kernel.ftrace_enabled is 0",
            "note: cgroup migrations are not reported: kernel.ftrace_enabled is 0",
        ] {
            assert!(output.stdout.contains(part), "no `{part}` in\n{}", output.stdout);
        }
        let status = fixture.status();
        for (name, features) in [
            ("plain", &["lsm_hooks"][..]),
            ("unix", &["unix_sockets", "lsm_hooks"]),
            ("watch", &["kprobe"]),
        ] {
            assert_eq!(status.policy(name)["enforcement"], "partial", "{name}");
            assert_eq!(unmet(status.policy(name)), features, "{name}");
            assert_eq!(status.states(name), ["active"]);
            fixture.run(["status", name]).expect_code(5);
        }

        // Another policy that needs the attached programs is refused too, and so is a version of one.
        let other = cgroup.child("other");
        for (spec, line) in [
            (naming.as_str(), "\n  unix_sockets: "),
            (WATCHING, "\n  kprobe: kernel.ftrace_enabled is 0"),
        ] {
            let file = fixture.policy("other", spec);
            let attach = ["attach", "--policy", &file, "--cgroup", &other.cgroup_path()];
            fixture.run_fails(1, &["cannot be fully enforced", line], attach);
            fixture
                .run([&attach[..], &["--best-effort"]].concat())
                .expect_code(5);
            fixture.run_ok(["detach", "other"]);
        }
        let file = fixture.policy("plain", &naming);
        fixture.run_fails(1, &["\n  unix_sockets: ", FTRACE_REASON], ["apply", "-f", &file]);

        // Everything is enforced again.
        switches.set_ftrace(true);
        fixture.run_ok(["status"]);
        let status = fixture.status();
        for name in ["plain", "unix", "watch"] {
            assert_eq!(status.policy(name)["enforcement"], "full", "{name}");
        }
        assert!(
            status.0["lsm_unavailable_reason"].is_null()
                && status.0["migration_unavailable_reason"].is_null()
        );
        assert!(is_unix_denied(&unix, &socket));
    });
}

/// Only a call shows it: the switch is in debugfs, which is not mounted where tidegate looks for it.
#[test]
fn kprobes_switched_off_after_attach() {
    with_ftrace("kprobes_switched_off_after_attach", true, |mut switches| {
        if tracer_hook() != "tcp_connect" {
            // The tracer is a tracepoint on this kernel, which has no switch.
            return;
        }
        let fixture = AttachFixture::open().with_own_programs();
        let cgroup = TestCgroup::create();
        let (plain, watched) = (cgroup.child("plain"), cgroup.child("watched"));
        fixture.attach(&plain, "plain", BLOCKING);
        fixture.attach(&watched, "watch", WATCHING);
        fixture.run_ok(["status"]);
        // Its programs are loaded and kept with a kprobe.
        let watching = || Exec::with("{mode: audit, default: audit, hooks: [kprobe]}");
        watching().run(["/bin/true"]).expect_code(0);

        switches.set_kprobes(false);
        let output = fixture.run(["status"]);
        output.expect_code(5);
        let reason = "the kernel accepts kprobes and never calls them (kprobes/enabled of debugfs is 0?)";
        let line = format!("! watch: kprobe: {reason}; events of TCP connections have no local address");
        assert!(output.stdout.contains(&line), "no `{line}` in\n{}", output.stdout);
        let status = fixture.status();
        assert_eq!(status.policy("plain")["enforcement"], "full");
        assert_eq!(unmet(status.policy("watch")), ["kprobe"]);
        let file = fixture.policy("other", WATCHING);
        let attach = ["attach", "--policy", &file, "--cgroup", &plain.cgroup_path()];
        fixture.run_fails(1, &["\n  kprobe: ", reason], attach);
        let refused = watching().run(["/bin/true"]);
        refused.expect_code(125);
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);

        switches.set_kprobes(true);
        fixture.run_ok(["status"]);
        watching().run(["/bin/true"]).expect_code(0);
    });
}

/// Programs that were loaded without LSM programs stay so; attaching after `detach --all` loads them again.
#[test]
fn ftrace_switched_on_after_attach() {
    with_ftrace("ftrace_switched_on_after_attach", false, |switches| {
        let fixture = AttachFixture::open().with_own_programs();
        let cgroup = TestCgroup::create();
        fixture.attach(&cgroup, "plain", BLOCKING);
        switches.set_ftrace(true);
        fixture.run_ok(["status"]);
        let unix = "{default: block, rules: [{name: a, action: block, unix: any}]}";
        let file = fixture.policy("unix", unix);
        let attach = ["attach", "--policy", &file, "--cgroup", &cgroup.cgroup_path()];
        fixture.run_fails(
            1,
            &[
                "\n  unix_sockets: ",
                "when they were loaded",
                "tidegate detach --all",
            ],
            attach,
        );
        fixture.run_ok(["detach", "--all"]);
        fixture.run_ok(attach);
        assert_eq!(fixture.status().policy("unix")["enforcement"], "full");
    });
}

/// A program that is detached while ftrace is off makes the kernel stop ftrace for good, when the last program is detached
/// after it was switched on again. So the programs of the whole machine stay attached until then.
#[test]
fn detached_while_ftrace_is_off() {
    with_ftrace("detached_while_ftrace_is_off", true, |switches| {
        let fixture = AttachFixture::open().with_own_programs();
        let cgroup = TestCgroup::create();
        fixture.attach(&cgroup, "plain", BLOCKING);
        fixture.attach(&cgroup, "watch", WATCHING);
        let exec = Exec::with(BLOCKING).with_input();
        let mut running = exec.start(["/bin/sh", "-c", "echo started; cat"]);
        running.wait_for_stdout("started");

        switches.set_ftrace(false);
        drop(running.take_stdin());
        running.finish().expect_code(0);
        fixture.run_ok(["detach", "watch"]);
        let follower =
            RunningCommand::spawn(&mut fixture.command(["events", "--follow", "--output", "json"]));
        assert!(is_denied(&fixture, &cgroup));
        follower.wait_for_stdout("\"blocked\"");
        fixture.run_ok(["detach", "--all"]);
        assert!(!is_denied(&fixture, &cgroup));
        follower.finish().expect_code(0);
        assert!(fixture.status().names().is_empty());

        switches.set_ftrace(true);
        // Both commands remove what earlier ones had to leave; a program that the whole machine calls would be left otherwise.
        fixture.run_ok(["detach", "--all"]);
        let left = fs::read_dir(fixture.pins()).unwrap().count();
        assert_eq!(left, 0, "everything is detached");
        for _ in 0..2 {
            // Attaches LSM programs and detaches them.
            let exec = Exec::with("{default: allow, rules: [{name: a, action: block, unix: any}]}");
            exec.run(["/bin/true"]).expect_code(0);
        }
        assert_eq!(fs::read_to_string(FTRACE_ENABLED).unwrap().trim(), "1");
    });
}

#[test]
fn probe_agrees() {
    with_ftrace("probe_agrees", false, |_| {
        let cgroup = TestCgroup::create();
        let mut command = tidegate(["probe", "--output", "json"]);
        enter(&mut command, &cgroup);
        let output = RunningCommand::run(&mut command);
        output.expect_code(0);
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let hooks = report["hooks"].as_array().unwrap();
        for hook in hooks {
            let name = hook["name"].as_str().unwrap();
            if name.starts_with("cgroup") || name.starts_with("raw_tp/") {
                assert_eq!(hook["support"], "yes", "{hook:#}");
            } else {
                // A trial would leave marks at the function, see `detached_while_ftrace_is_off`.
                assert_eq!(
                    (&hook["support"], &hook["reached"]),
                    (&"no".into(), &"loaded".into()),
                    "{hook:#}"
                );
                let (reason, hint) = (hook["reason"].as_str().unwrap(), hook["hint"].as_str().unwrap());
                assert!(reason.contains("kernel.ftrace_enabled is 0"), "{hook:#}");
                assert!(hint.contains("sysctl kernel.ftrace_enabled=1"), "{hook:#}");
            }
        }
        let plan = &report["plan"];
        assert_eq!(plan["enforcement"], "full");
        assert_eq!(plan["other_families"], false);
        assert_eq!(plan["unix_sockets"], false);
        assert_eq!(plan["cgroup_migrations"], false);
        assert_eq!(plan["audit_local_port"], true, "the tracepoint knows it");
        let mut expected: Vec<&str> = policies_that_need_lsm()
            .into_iter()
            .map(|(feature, _)| feature)
            .collect();
        let mut unmet = unmet(plan);
        expected.sort_unstable();
        unmet.sort_unstable();
        assert_eq!(unmet, expected);
    });
}
