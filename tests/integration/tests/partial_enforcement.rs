//! What is not enforced, or not fully, is said so: a cgroup that is gone, a kernel that cannot kill.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, Transport},
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

fn is_held(fixture: &AttachFixture, cgroup: &TestCgroup) -> bool {
    let to = format!("{}:9", Namespace::near(Family::V4));
    !fixture
        .run_client(cgroup, &test_client().task("run", &["udp-connect-send", &to]))
        .ok
}

/// The kernel lets go of what was attached to a cgroup some time after it is removed.
fn wait_until_released(fixture: &AttachFixture) {
    let released = |_: &u32| {
        let status = fixture.status();
        let hooks = status.policy("shop")["attachments"][0]["hooks"]
            .as_array()
            .unwrap()
            .clone();
        hooks.iter().all(|hook| hook["state"] == "detached")
    };
    assert!((0..1000).any(|n| released(&n)), "it lets go in the end");
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
    assert_eq!(status.states("shop"), ["gone"]);
    let output = fixture.run(["status"]);
    output.expect_code(5);
    assert!(
        output.stdout.contains("was removed, and the policy went with it"),
        "{}",
        output.stdout
    );
    let printed = fixture.run_ok(["detach", "shop"]);
    assert!(printed.contains(&inner.cgroup_path()), "{printed}");
    assert!(fixture.status().names().is_empty());
}

/// What is said to forget the one that is gone must not take the policy from where it stands still.
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
        assert_eq!(status.states("shop"), ["gone", "in force"]);
        assert_eq!(status.policy("shop")["enforcement"], "partial");
        let output = fixture.run(["status"]);
        output.expect_code(5);
        let advice = format!(
            "`tidegate detach shop --cgroup {}` forgets it",
            gone.cgroup_path()
        );
        assert!(
            output.stdout.contains(&advice),
            "no `{advice}` in\n{}",
            output.stdout
        );
        fixture.run_ok(["detach", "shop", "--cgroup", &gone.cgroup_path()]);
        assert_eq!(fixture.status().states("shop"), ["in force"]);
        assert!(is_held(&fixture, &left));
        fixture.run_ok(["status"]);
    });
}

/// A unit that is started again has another cgroup of the same name, which nothing stands on.
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
        assert!(!is_held(&fixture, &second));
        fixture.run(["status"]).expect_code(5);
        wait_until_released(&fixture);
        fixture.attach(&second, "shop", BLOCKING);
        assert!(is_held(&fixture, &second));
        assert_eq!(
            fixture.status().states("shop"),
            ["in force"],
            "the one before it is forgotten"
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
            &["cannot be enforced fully here", "kill", "--best-effort"],
            attach,
        );
        assert!(fixture.status().names().is_empty());

        // What does not act needs nothing.
        fixture.run_ok([&attach[..], &["--mode", "audit"]].concat());
        fixture.run_fails(
            1,
            &["cannot be enforced fully here"],
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
        assert_eq!(fixture.status().policy("trap")["enforcement"], "partial");
        let file = fixture.policy("trap", &KILLING.replace("198.51.100.1", "198.51.100.2"));
        let apply = ["policy", "apply", "-f", &file];
        fixture.run_fails(1, &["cannot be enforced fully here"], apply);
        fixture
            .run([&apply[..], &["--best-effort"]].concat())
            .expect_code(5);
    });
}

/// The attempt is denied at once; who made it is killed by a follower, and by nobody who only reads what
/// was: the process may be another by then.
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
        // Whether it can still tell depends on who is faster.
        process.start_step(&format!("run udp-sendto {to}"));
        assert_eq!(process.finish().signal(), Some(libc::SIGKILL));
        receiver.expect_nothing("denied at once");
    });
}
