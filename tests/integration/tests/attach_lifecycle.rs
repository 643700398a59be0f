//! The life of an attached policy: enforced without a running process, shown by status, detached without leftovers.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::fs;

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family, Transport},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    running_command::RunningCommand,
    scripted_client::ScriptedClient,
    test_client::TestClient,
};
use nix::{
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

const HOOKS: [&str; 5] = ["connect4", "connect6", "sendmsg4", "sendmsg6", "sock_create"];

const DENYING: &str = r#"{default: block, errno: EACCES, rules: [
    {name: far, action: allow, to: [198.51.100.2, "2001:db8::2"]},
    {name: seen, action: audit, to: [203.0.113.1]},
]}"#;

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

/// Processes with the state directory of this fixture in their environment.
fn processes_of(fixture: &AttachFixture) -> Vec<String> {
    let dir = fixture.journal().as_os_str().as_encoded_bytes();
    let is_of_fixture = |pid: &str| {
        // A process that has ended in the meantime is not listed.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(dir.len()).any(|part| part == dir)
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let names = all.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.parse::<u32>().is_ok() && is_of_fixture(name))
        .collect()
}

/// Nothing that the policy denies arrives, over both families, connected and unconnected.
fn expect_denied(fixture: &AttachFixture, cgroup: &TestCgroup) -> u64 {
    let mut denied = 0;
    for family in Family::ALL {
        for method in [
            EgressMethod::TcpConnect,
            EgressMethod::UdpConnectSend,
            EgressMethod::UdpSendto,
        ] {
            let receiver = Receiver::listen(method.transport(), Namespace::near(family));
            let result = fixture.run_client(cgroup, &test_client().args(method, receiver.address(), None));
            assert_eq!(result.errno.as_deref(), Some("EACCES"), "{result:?}");
            receiver.expect_nothing("the policy is enforced");
            denied += 1;
        }
    }
    denied
}

fn expect_allowed(fixture: &AttachFixture, cgroup: &TestCgroup, to: std::net::IpAddr) {
    let receiver = Receiver::listen(Transport::Tcp, to);
    let result = fixture.run_client(
        cgroup,
        &test_client().args(EgressMethod::TcpConnect, receiver.address(), None),
    );
    assert!(result.ok, "{result:?}");
    assert_eq!(receiver.arrived().len(), 1);
}

#[test]
fn enforced_without_a_running_process() {
    if !met("enforced_without_a_running_process", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", DENYING);
        assert!(processes_of(&fixture).is_empty(), "attach leaves no process");
        let denied = expect_denied(&fixture, &cgroup);
        expect_allowed(&fixture, &cgroup, Namespace::far(Family::V4));
        expect_allowed(&fixture, &cgroup, Namespace::elsewhere(Family::V4));

        let status = fixture.status();
        assert_eq!(fixture.run(["status"]).code(), Some(0));
        let shop = status.policy("shop");
        assert_eq!(
            (&shop["enforcement"], &shop["mode"]),
            (&"full".into(), &"enforce".into())
        );
        assert_eq!(shop["generation"], 1);
        assert_eq!(status.states("shop"), ["active"]);
        let attachment = &shop["attachments"][0];
        assert_eq!(attachment["cgroup"], cgroup.cgroup_path());
        let hooks = attachment["hooks"].as_array().unwrap();
        for hook in HOOKS {
            let found = hooks.iter().find(|found| found["hook"] == hook).expect(hook);
            assert_eq!(found["state"], "attached", "{hook}");
        }
        for (total, count) in [
            ("blocked", denied),
            ("allowed", 1),
            ("audited", 1),
            ("default", denied),
        ] {
            assert_eq!(status.total("shop", total), count, "{total}");
        }
        for other in ["killed", "would_block", "would_kill", "faults"] {
            assert_eq!(status.total("shop", other), 0, "{other}");
        }
        assert_eq!(shop["totals"]["rules"], serde_json::json!({"far": 1, "seen": 1}));
        assert!(shop["memory"].as_u64().unwrap() > 0);
    });
}

/// Enforcement does not depend on a reader of events.
#[test]
fn killing_the_event_reader_changes_nothing() {
    if !met("killing_the_event_reader_changes_nothing", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", DENYING);
        let follower = RunningCommand::spawn(&mut fixture.command(["events", "--follow"]));
        let denied = expect_denied(&fixture, &cgroup);
        follower.wait_for_lines(usize::try_from(denied).unwrap());
        follower.signal(Signal::SIGKILL);
        waitid(
            Id::Pid(follower.pid()),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        )
        .unwrap();

        let again = expect_denied(&fixture, &cgroup);
        assert_eq!(fixture.status().total("shop", "blocked"), denied + again);
        // The next reader takes over. It may repeat the last event if the first reader was killed between printing it
        // and consuming it.
        let read = fixture.events().len() as u64;
        assert!(read == again || read == again + 1, "{read} of {again}");
    });
}

/// The text output.
#[test]
fn status_text() {
    if !met("status_text", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        assert!(fixture.run_ok(["status"]).starts_with("no policies attached"));
        fixture.attach(&cgroup, "shop", DENYING);
        fixture.attach(&cgroup, "watch", "{mode: audit, default: kill}");
        expect_denied(&fixture, &cgroup);
        let text = fixture.run_ok(["status"]);
        let row = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.trim_start().starts_with(name));
            line.expect(name).split_whitespace().map(str::to_owned).collect()
        };
        let shop = row("shop");
        assert_eq!(
            shop[1..5],
            [&cgroup.cgroup_path(), "ACTIVE", "enforce", "1"],
            "{text}"
        );
        // WOULD_BLOCK, WOULD_KILL, BLOCKED, KILLED, SOURCE.
        let last = |row: &[String]| row[row.len() - 5..].to_vec();
        assert_eq!(last(&shop)[..4], ["0", "0", "6", "0"], "{text}");
        assert!(last(&shop)[4].ends_with("shop.yaml"), "{text}");
        let watch = row("watch");
        assert_eq!(last(&watch)[..4], ["0", "6", "0", "0"], "{text}");
        assert!(!text.contains('!'), "no problem: {text}");
        assert!(text.contains("events: 0 lost"), "{text}");

        let one = fixture.run_ok(["status", "shop"]);
        assert!(one.contains("far") && !one.contains("watch"), "{one}");
        let one: serde_json::Value =
            serde_json::from_str(&fixture.run_ok(["status", "shop", "--output", "json"])).unwrap();
        assert_eq!(one["schema_version"], 1);
        assert_eq!(one["policies"][0]["default"]["attempts"], 6);
        let rules = fixture.run_ok(["status", "--rules"]);
        assert!(rules.contains("far") && rules.contains("policy watch"), "{rules}");
        let shown = fixture.run_ok(["policy", "show", "shop", "--output", "json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["policy"]["default"]["attempts"], 6);
    });
}

#[test]
fn detach_from_one_cgroup_then_all() {
    if !met("detach_from_one_cgroup_then_all", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let fixture = AttachFixture::open();
        let cgroups = [TestCgroup::create(), TestCgroup::create(), TestCgroup::create()];
        for cgroup in &cgroups {
            fixture.attach(cgroup, "shop", DENYING);
        }
        fixture.attach(&cgroups[0], "other", "{default: allow}");
        assert_eq!(fixture.status().states("shop"), ["active"; 3]);

        let printed = fixture.run_ok(["detach", "shop", "--cgroup", &cgroups[0].cgroup_path()]);
        assert!(
            printed.contains("it is still attached to other cgroups"),
            "{printed}"
        );
        expect_allowed(&fixture, &cgroups[0], Namespace::near(Family::V4));
        expect_denied(&fixture, &cgroups[1]);
        assert_eq!(fixture.status().states("other"), ["active"]);
        fixture.run_fails(
            1,
            &["is not attached to the cgroup"],
            ["detach", "shop", "--cgroup", &cgroups[0].cgroup_path()],
        );

        fixture.run_ok(["detach", "shop"]);
        expect_allowed(&fixture, &cgroups[1], Namespace::near(Family::V4));
        expect_allowed(&fixture, &cgroups[2], Namespace::near(Family::V4));
        assert_eq!(fixture.status().names(), ["other"]);

        // The policy can be attached again.
        fixture.attach(&cgroups[1], "shop", DENYING);
        expect_denied(&fixture, &cgroups[1]);
        assert_eq!(
            fixture.status().total("shop", "blocked"),
            6,
            "counters start at zero"
        );

        let printed = fixture.run_ok(["detach", "--all"]);
        assert!(printed.contains("other") && printed.contains("shop"), "{printed}");
        for cgroup in &cgroups {
            expect_allowed(&fixture, cgroup, Namespace::near(Family::V4));
        }
        assert_eq!(
            fs::read_dir(fixture.pins()).unwrap().count(),
            0,
            "no pins are left"
        );
        let left = fs::read_dir(fixture.journal()).unwrap().flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        assert!(
            left.iter()
                .all(|name| ["lock", "reader"].contains(&name.as_str())),
            "{left:?}"
        );
        assert_eq!(fixture.run_ok(["detach", "--all"]), "no policies attached\n");
    });
}

/// `--pid` and `--unit` select the cgroup of a process or of a systemd unit.
#[test]
fn attach_by_pid_or_systemd_unit() {
    if !met("attach_by_pid_or_systemd_unit", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let name = format!("tgtest-{}.service", std::process::id());
        let (slice, other) = (cgroup.child("x.slice"), cgroup.child("y.slice"));
        let unit = slice.child(&name);
        let file = fixture.policy("shop", DENYING);
        let attach = |how: &str, which: &str| fixture.run(["attach", "--policy", &file, how, which]);

        let absent = attach("--unit", "tgtest-absent.service");
        absent.expect_code(1);
        assert!(
            absent.stderr.contains("no cgroup is named tgtest-absent.service"),
            "{}",
            absent.stderr
        );
        attach("--unit", &name).expect_code(0);
        expect_denied(&fixture, &unit);
        fixture.run_ok(["detach", "shop", "--unit", &name]);

        let twin = other.child(&name);
        let ambiguous = attach("--unit", &name);
        ambiguous.expect_code(1);
        for path in [unit.cgroup_path(), twin.cgroup_path()] {
            assert!(ambiguous.stderr.contains(&path), "{}", ambiguous.stderr);
        }

        let process = ScriptedClient::start(&test_client(), &twin);
        attach("--pid", &process.pid().to_string()).expect_code(0);
        expect_denied(&fixture, &twin);
        expect_allowed(&fixture, &unit, Namespace::near(Family::V4));
        let pid: Pid = process.pid();
        process.quit();
        let gone = attach("--pid", &pid.to_string());
        gone.expect_code(1);
        assert!(
            gone.stderr.contains("cannot determine the cgroup of process"),
            "{}",
            gone.stderr
        );
    });
}
