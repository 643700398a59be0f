//! Strict policies: attach, update, detach, audit mode, `exec`, and kernels without the egress filter.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family, MARKER, Transport},
    exec::Exec,
    kernel::kills_at_once,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn in_namespace(test: &str, check: impl Fn() + Send + Sync) {
    if met(test, &[Need::Root]) {
        Namespace::run(|_| check());
    }
}

/// The hooks of the first attachment of a policy, with their states.
fn hooks(fixture: &AttachFixture, policy: &str) -> Vec<(String, String)> {
    let status = fixture.status();
    let hooks = status.policy(policy)["attachments"][0]["hooks"]
        .as_array()
        .unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    hooks
        .iter()
        .map(|hook| (text(&hook["hook"]), text(&hook["state"])))
        .collect()
}

fn has_egress_filter(fixture: &AttachFixture, policy: &str) -> bool {
    let hooks = hooks(fixture, policy);
    assert!(hooks.iter().all(|(_, state)| state == "attached"), "{hooks:?}");
    hooks.iter().any(|(hook, _)| hook == "egress")
}

/// The egress filter is attached only while a policy of the cgroup is strict, and checks the right packets.
#[test]
fn egress_filter_attached_only_while_needed() {
    in_namespace("egress_filter_attached_only_while_needed", || {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("udp4");
        process.succeeds(&format!("connect 0 {}", receiver.address()));
        let mut sends = |passes: bool| {
            if passes {
                process.succeeds("send 0");
                assert_eq!(receiver.arrived(), [MARKER]);
            } else {
                process.fails("send 0", "EPERM");
                receiver.expect_nothing("it is blocked");
            }
        };
        fixture.attach(&cgroup, "one", "{default: block}");
        sends(true);
        assert!(!has_egress_filter(&fixture, "one"));
        let reported = fixture.apply("one", "{default: block, strict: true}");
        assert!(reported.contains("strict: false -> true"), "{reported}");
        sends(false);
        assert!(has_egress_filter(&fixture, "one"));
        // A policy that is not strict does not check packets; the strict one still does.
        fixture.attach(&cgroup, "two", "{default: block}");
        sends(false);
        fixture.apply("one", "{default: block}");
        sends(true);
        assert!(!has_egress_filter(&fixture, "one"));
        fixture.apply("two", "{default: block, strict: true}");
        sends(false);
        fixture.apply("one", "{default: allow, strict: true}");
        fixture.run_ok(["detach", "two"]);
        sends(true);
        assert!(has_egress_filter(&fixture, "one"));
        fixture.run_ok(["detach", "one"]);
        sends(true);
        assert_eq!(fixture.status().names(), [""; 0]);
    });
}

/// A removed link is reported, and restored.
#[test]
fn detached_egress_filter() {
    in_namespace("detached_egress_filter", || {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let spec = "{default: block, strict: true}";
        fixture.attach(&cgroup, "shop", spec);
        let links = std::fs::read_dir(fixture.pins().join("tidegate"))
            .into_iter()
            .chain(std::fs::read_dir(fixture.pins()))
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("attached-")
            })
            .unwrap()
            .join("links");
        // One directory belongs to the cgroup; the others to programs for the whole machine.
        let dirs = std::fs::read_dir(links).unwrap().flatten();
        let pins = dirs.map(|dir| dir.path().join("egress"));
        let pin = pins.filter(|pin| pin.exists()).collect::<Vec<_>>();
        std::fs::remove_file(&pin[0]).unwrap();
        let status = fixture.status();
        assert_eq!(status.policy("shop")["enforcement"], "partial");
        let reasons = status.policy("shop")["reasons"].to_string();
        assert!(reasons.contains("not attached: egress"), "{reasons}");
        fixture.attach(&cgroup, "shop", spec);
        assert!(has_egress_filter(&fixture, "shop"));
    });
}

/// Audit mode: the egress filter reports only packets that no other hook has reported, and once.
#[test]
fn audit_mode() {
    in_namespace("audit_mode", || {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let stream = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let to = receiver.address();
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("udp4");
        process.succeeds(&format!("connect 0 {to}"));
        fixture.attach(&cgroup, "shop", "{mode: audit, default: block, strict: true}");
        for _ in 0..3 {
            process.succeeds("send 0");
        }
        assert_eq!(receiver.arrived().len(), 3);
        let events = fixture.events();
        assert_eq!(events.len(), 1, "{events:#?}");
        assert_eq!(
            (events[0].hook.as_str(), events[0].outcome.as_str()),
            ("egress", "would_block")
        );
        assert_eq!(events[0].errno, None);

        process.succeeds("udp4");
        process.succeeds(&format!("connect 1 {to}"));
        process.succeeds("send 1");
        process.succeeds("udp4");
        process.succeeds(&format!("sendto 2 {to}"));
        process.succeeds("tcp4");
        process.succeeds(&format!("connect 3 {}", stream.address()));
        process.succeeds("send 3");
        process.quit();
        assert_eq!((receiver.arrived().len(), stream.arrived().len()), (2, 1));
        let hooks: Vec<_> = fixture.events().into_iter().map(|event| event.hook).collect();
        assert_eq!(hooks, ["connect4", "sendmsg4", "connect4"]);
        let status = fixture.status();
        assert_eq!(
            status.total("shop", "would_block"),
            4,
            "packets that were reported before are not counted"
        );
    });
}

/// The event of a packet has the last process that used its socket, so user space can kill it if the kernel cannot.
#[test]
fn kill_from_user_space() {
    in_namespace("kill_from_user_space", || {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        fixture.attach(&cgroup, "shop", "{default: allow, strict: true}");
        process.succeeds("udp4");
        process.succeeds(&format!("connect 0 {}", receiver.address()));
        process.succeeds("send 0");
        assert_eq!(receiver.arrived().len(), 1);
        // Without a follower the packet is only dropped. A kernel that cannot kill enforces the policy in part.
        let file = fixture.policy("shop", "{default: kill, strict: true}");
        let applied = fixture.run(["apply", "--best-effort", "-f", &file]);
        applied.expect_code(if kills_at_once() { 0 } else { 5 });
        process.fails("send 0", "EPERM");
        receiver.expect_nothing("it is dropped");
        let pid = process.pid();
        process.quit();
        let events = fixture.events();
        assert_eq!(events.len(), 1, "{events:#?}");
        assert_eq!(
            (events[0].outcome.as_str(), events[0].pid),
            ("kill_pending", pid.as_raw())
        );
        assert!(events[0].executable.is_some());
    });
}

/// A command under `exec` works normally, and nothing is reported twice.
#[test]
fn exec_command() {
    in_namespace("exec_command", || {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        for method in [EgressMethod::TcpConnect, EgressMethod::MappedTcpConnect] {
            let exec = Exec::with(
                "{default: block, strict: true, rules: [{name: near, action: allow, to: [198.51.100.1]}]}",
            );
            let result = exec.run_client(test_client().args(method, receiver.address(), None));
            assert!(result.ok, "{result:?}");
            assert_eq!(receiver.arrived(), [MARKER]);
            let report = exec.report();
            assert!(report.events.is_empty(), "{:#?}", report.events);
            assert_eq!(report.attempts_of("near"), 1);
        }
        let exec = Exec::with("{default: block, strict: true}");
        let result = exec.run_client(test_client().args(EgressMethod::TcpConnect, receiver.address(), None));
        assert!(!result.ok);
        assert_eq!(exec.report().only_event().hook, "connect4");
    });
}

/// Without the egress filter a strict policy is refused, or enforced in part.
#[test]
fn kernel_without_egress_filter() {
    in_namespace("kernel_without_egress_filter", || {
        let (fixture, cgroup) = (
            AttachFixture::open()
                .with_own_programs()
                .variable("TIDEGATE_DISABLE", "egress_filter"),
            TestCgroup::create(),
        );
        let file = fixture.policy("shop", "{default: block, strict: true}");
        let at = cgroup.cgroup_path();
        let args = ["attach", "--policy", &file, "--cgroup", &at];
        fixture.run_fails(
            1,
            &["policy shop cannot be fully enforced on this kernel", "strict"],
            args,
        );
        let pins = fixture.pins().join("tidegate");
        assert!(!pins.exists(), "a refused first attach leaves pins behind");
        let output = fixture.run([args.as_slice(), &["--best-effort"]].concat());
        output.expect_code(5);
        let status = fixture.status();
        assert_eq!(status.policy("shop")["enforcement"], "partial");
        assert_eq!(status.policy("shop")["unmet"][0]["feature"], "strict");
        assert!(!has_egress_filter(&fixture, "shop"));

        let exec = Exec::with("{default: block, strict: true}").variable("TIDEGATE_DISABLE", "egress_filter");
        let output = exec.run(["true"]);
        output.expect_code(125);
        assert!(
            output
                .stderr
                .contains("strict: the egress filter is not available: disabled by TIDEGATE_DISABLE"),
            "{}",
            output.stderr
        );
    });
}
