//! Missing and partial enforcement is reported: removed cgroups, a kernel that cannot kill.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, Transport},
    exec::Exec,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    running_command::RunningCommand,
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

const BLOCKING: &str = "{default: block}";

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn is_denied(fixture: &AttachFixture, cgroup: &TestCgroup) -> bool {
    let to = format!("{}:9", Namespace::near(Family::V4));
    !fixture
        .run_client(cgroup, &test_client().task("run", &["udp-connect-send", &to]))
        .ok
}

/// The kernel detaches the programs of a removed cgroup with a delay.
fn wait_until_detached(fixture: &AttachFixture) {
    let is_detached = |_: &u32| {
        let status = fixture.status();
        let hooks = status.policy("shop")["attachments"][0]["hooks"]
            .as_array()
            .unwrap()
            .clone();
        hooks.iter().all(|hook| hook["state"] == "detached")
    };
    assert!(
        (0..1000).any(|n| is_detached(&n)),
        "the kernel detaches the programs"
    );
}

#[test]
fn removed_cgroup() {
    if !met("removed_cgroup", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
    let inner = cgroup.child("inner");
    fixture.attach(&inner, "shop", BLOCKING);
    inner.remove();
    let status = fixture.status();
    assert_eq!(status.policy("shop")["enforcement"], "none");
    assert_eq!(status.states("shop"), ["cgroup_removed"]);
    let output = fixture.run(["status"]);
    output.expect_code(5);
    assert!(
        output
            .stdout
            .contains("was removed, which detached the policy from it"),
        "{}",
        output.stdout
    );
    let printed = fixture.run_ok(["detach", "shop"]);
    assert!(printed.contains(&inner.cgroup_path()), "{printed}");
    assert!(fixture.status().names().is_empty());
}

/// The hint for a removed cgroup must not detach the policy from other cgroups.
#[test]
fn one_of_two_cgroups_is_removed() {
    if !met("one_of_two_cgroups_is_removed", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let (gone, left) = (cgroup.child("gone"), cgroup.child("left"));
        fixture.attach(&gone, "shop", BLOCKING);
        fixture.attach(&left, "shop", BLOCKING);
        gone.remove();
        let status = fixture.status();
        assert_eq!(status.states("shop"), ["cgroup_removed", "active"]);
        assert_eq!(status.policy("shop")["enforcement"], "partial");
        let output = fixture.run(["status"]);
        output.expect_code(5);
        let hint = format!(
            "`tidegate detach shop --cgroup {}` deletes the record",
            gone.cgroup_path()
        );
        assert!(output.stdout.contains(&hint), "no `{hint}` in\n{}", output.stdout);
        fixture.run_ok(["detach", "shop", "--cgroup", &gone.cgroup_path()]);
        assert_eq!(fixture.status().states("shop"), ["active"]);
        assert!(is_denied(&fixture, &left));
        fixture.run_ok(["status"]);
    });
}

/// A restarted unit has a new cgroup with the same name, without the policy.
#[test]
fn recreated_cgroup() {
    if !met("recreated_cgroup", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let first = cgroup.child("unit");
        fixture.attach(&first, "shop", BLOCKING);
        first.remove();
        let second = cgroup.child("unit");
        assert!(!is_denied(&fixture, &second));
        fixture.run(["status"]).expect_code(5);
        wait_until_detached(&fixture);
        fixture.attach(&second, "shop", BLOCKING);
        assert!(is_denied(&fixture, &second));
        assert_eq!(
            fixture.status().states("shop"),
            ["active"],
            "the record of the removed cgroup is deleted"
        );
        fixture.run_ok(["status"]);
    });
}

const KILLING: &str = r#"{default: allow, rules: [{name: trap, action: kill, to: [198.51.100.1]}]}"#;

#[test]
fn kernel_that_cannot_kill() {
    if !met("kernel_that_cannot_kill", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let fixture = AttachFixture::open().variable("TIDEGATE_DISABLE", "send_signal,lsm");
        let cgroup = TestCgroup::create();
        let (file, own) = (fixture.policy("trap", KILLING), cgroup.cgroup_path());
        let attach = ["attach", "--policy", &file, "--cgroup", &own];
        fixture.run_fails(
            1,
            &["cannot be fully enforced on this kernel", "kill", "--best-effort"],
            attach,
        );
        assert!(fixture.status().names().is_empty());

        // Audit mode does not need the kill.
        fixture.run_ok([&attach[..], &["--mode", "audit"]].concat());
        fixture.run_fails(
            1,
            &["cannot be fully enforced on this kernel"],
            ["set-mode", "trap", "enforce"],
        );
        assert_eq!(fixture.status().policy("trap")["mode"], "audit");
        fixture
            .run(["set-mode", "trap", "enforce", "--best-effort"])
            .expect_code(5);
        fixture.run_ok(["detach", "trap"]);

        let output = fixture.run([&attach[..], &["--best-effort"]].concat());
        output.expect_code(5);
        assert!(output.stdout.contains("partial: kill"), "{}", output.stdout);
        let output = fixture.run(["status"]);
        output.expect_code(5);
        assert!(output.stdout.contains("trap: kill: "), "{}", output.stdout);
        let status = fixture.status();
        let status = status.policy("trap");
        assert_eq!(status["enforcement"], "partial");
        assert_eq!(status["unmet"].as_array().map(Vec::len), Some(1), "{status:#}");
        assert_eq!(status["unmet"][0]["feature"], "kill");
        let file = fixture.policy("trap", &KILLING.replace("198.51.100.1", "198.51.100.2"));
        let apply = ["apply", "-f", &file];
        fixture.run_fails(1, &["cannot be fully enforced on this kernel"], apply);
        fixture
            .run([&apply[..], &["--best-effort"]].concat())
            .expect_code(5);
    });
}

/// The attempt is denied immediately. `events --follow` kills the process; `events` does not, because the process id may
/// have been reused.
#[test]
fn kill_from_user_space() {
    if !met("kill_from_user_space", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let fixture = AttachFixture::open().variable("TIDEGATE_DISABLE", "send_signal,lsm");
        let cgroup = TestCgroup::create();
        let (file, own) = (fixture.policy("trap", KILLING), cgroup.cgroup_path());
        fixture
            .run(["attach", "--policy", &file, "--cgroup", &own, "--best-effort"])
            .expect_code(5);
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let to = receiver.address();
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.fails(&format!("run udp-sendto {to}"), "EPERM");
        let events = fixture.events();
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].verdict.as_str(), events[0].outcome.as_str()),
            ("kill", "kill_pending")
        );
        process.fails(&format!("run udp-sendto {to}"), "EPERM");

        let follower =
            RunningCommand::spawn(&mut fixture.command(["events", "--follow", "--output", "json"]));
        follower.wait_for_stdout("kill_pending");
        process.succeeds(&format!("run udp-sendto {}:9", Namespace::far(Family::V4)));
        // It may or may not report a result before it is killed.
        process.start_step(&format!("run udp-sendto {to}"));
        assert_eq!(process.finish().signal(), Some(libc::SIGKILL));
        receiver.expect_nothing("denied at once");
    });
}

/// `exec` does not start the command, and `--best-effort` says what is not enforced, also with `--quiet`.
#[test]
fn exec_on_a_kernel_that_cannot_kill() {
    if !met("exec_on_a_kernel_that_cannot_kill", &[Need::Root]) {
        return;
    }
    let exec = |options: &[&str]| {
        Exec::with(KILLING)
            .variable("TIDEGATE_DISABLE", "send_signal,lsm")
            .options(options.iter().copied())
    };
    for options in [&[][..], &["--quiet"]] {
        let refused = exec(options);
        let output = refused.run(["/bin/echo", "started"]);
        output.expect_code(125);
        assert_eq!(output.stdout, "", "the command is not started");
        for part in [
            "policy test cannot be fully enforced on this kernel:\n  kill: cgroup hooks cannot kill",
            "disabled by TIDEGATE_DISABLE",
            "hint: ",
            "--best-effort",
        ] {
            assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
        }
    }
    // Audit mode kills nothing.
    let audit = exec(&["--mode", "audit"]);
    audit.run(["/bin/true"]).expect_code(0);
    assert_eq!(audit.report().summary.enforcement, "full");

    let accepted = exec(&["--best-effort"]);
    let output = accepted.run(["/bin/true"]);
    output.expect_code(0);
    let partial = output.stderr.matches("partially enforced").count();
    assert_eq!(partial, 1, "{}", output.stderr);
    let summary = accepted.report().summary;
    assert_eq!(summary.enforcement, "partial");
    let [unmet] = summary.unmet.as_slice() else {
        panic!("{:#?}", summary.unmet)
    };
    assert_eq!((unmet.policy.as_str(), unmet.feature.as_str()), ("test", "kill"));
    assert!(unmet.reason.contains("6.16"), "{unmet:?}");
    assert!(unmet.effect.contains("asynchronous"), "{unmet:?}");

    let quiet = exec(&["--best-effort", "--quiet"]);
    let output = quiet.run(["/bin/true"]);
    output.expect_code(0);
    assert_eq!(output.stderr, "tidegate: partially enforced; unmet: test: kill\n");
    assert_eq!(quiet.report().summary.enforcement, "partial");
}

/// Each requirement is refused by `exec` where its programs are missing, and listed with `--best-effort`.
#[test]
fn exec_without_optional_programs() {
    if !met("exec_without_optional_programs", &[Need::Root]) {
        return;
    }
    for (disabled, spec, feature) in [
        ("egress_filter", "{default: block, strict: true}", "strict"),
        ("set_retval,lsm", "{default: block, errno: EACCES}", "errno"),
        (
            "lsm",
            "{default: block, rules: [{name: a, action: block, to: any, families: [vsock]}]}",
            "families",
        ),
        (
            "lsm_unix",
            "{default: block, rules: [{name: a, action: block, unix: any}]}",
            "unix_sockets",
        ),
        ("lsm", "{default: block, hooks: [lsm]}", "lsm_hooks"),
        ("tracer", "{default: audit, hooks: [cgroup, kprobe]}", "kprobe"),
    ] {
        let exec = || Exec::with(spec).variable("TIDEGATE_DISABLE", disabled);
        let output = exec().run(["/bin/true"]);
        output.expect_code(125);
        let line = format!("\n  {feature}: ");
        assert!(output.stderr.contains(&line), "{feature}: {}", output.stderr);
        let accepted = exec().options(["--best-effort"]);
        accepted.run(["/bin/true"]).expect_code(0);
        let summary = accepted.report().summary;
        let features: Vec<&str> = summary.unmet.iter().map(|unmet| unmet.feature.as_str()).collect();
        assert_eq!(features, [feature]);
    }
}
