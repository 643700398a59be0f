//! Strict policies as policies: they come, change and go, watch, run commands, and say where they cannot.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use integration::{
    attached::Stand,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family, MARKER, Transport},
    exec::Gate,
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

/// Hooks of the first place where a policy stands.
fn hooks(stand: &Stand, policy: &str) -> Vec<(String, String)> {
    let status = stand.status();
    let hooks = status.policy(policy)["attachments"][0]["hooks"]
        .as_array()
        .unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    hooks
        .iter()
        .map(|hook| (text(&hook["hook"]), text(&hook["state"])))
        .collect()
}

fn has_egress_filter(stand: &Stand, policy: &str) -> bool {
    let hooks = hooks(stand, policy);
    assert!(hooks.iter().all(|(_, state)| state == "attached"), "{hooks:?}");
    hooks.iter().any(|(hook, _)| hook == "egress")
}

/// The program is attached while one of the cgroup's policies is strict, and the right packets are judged.
#[test]
fn egress_filter_attached_only_while_needed() {
    in_namespace("egress_filter_attached_only_while_needed", || {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
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
        stand.attach(&cgroup, "one", "{default: block}");
        sends(true);
        assert!(!has_egress_filter(&stand, "one"));
        let told = stand.apply("one", "{default: block, strict: true}");
        assert!(told.contains("strict: false -> true"), "{told}");
        sends(false);
        assert!(has_egress_filter(&stand, "one"));
        // One that is not strict has nothing to say about packets; the strict one still has.
        stand.attach(&cgroup, "two", "{default: block}");
        sends(false);
        stand.apply("one", "{default: block}");
        sends(true);
        assert!(!has_egress_filter(&stand, "one"));
        stand.apply("two", "{default: block, strict: true}");
        sends(false);
        stand.apply("one", "{default: allow, strict: true}");
        stand.done(["detach", "two"]);
        sends(true);
        assert!(has_egress_filter(&stand, "one"));
        stand.done(["detach", "one"]);
        sends(true);
        assert_eq!(stand.status().names(), [""; 0]);
    });
}

/// A link that somebody took away by force is missed, and put back.
#[test]
fn detached_egress_filter() {
    in_namespace("detached_egress_filter", || {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        let spec = "{default: block, strict: true}";
        stand.attach(&cgroup, "shop", spec);
        let links = std::fs::read_dir(stand.pins().join("tidegate"))
            .into_iter()
            .chain(std::fs::read_dir(stand.pins()))
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("standing-")
            })
            .unwrap()
            .join("links");
        // One folder is the cgroup's; others are those of programs for the whole machine.
        let folders = std::fs::read_dir(links).unwrap().flatten();
        let pins = folders.map(|folder| folder.path().join("egress"));
        let pin = pins.filter(|pin| pin.exists()).collect::<Vec<_>>();
        std::fs::remove_file(&pin[0]).unwrap();
        let status = stand.status();
        assert_eq!(status.policy("shop")["enforcement"], "partial");
        let reasons = status.policy("shop")["reasons"].to_string();
        assert!(reasons.contains("not attached: egress"), "{reasons}");
        stand.attach(&cgroup, "shop", spec);
        assert!(has_egress_filter(&stand, "shop"));
    });
}

/// Audit mode: what a hook reported is no news for the floor, what got by is, once.
#[test]
fn audit_mode() {
    in_namespace("audit_mode", || {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let stream = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let to = receiver.address();
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("udp4");
        process.succeeds(&format!("connect 0 {to}"));
        stand.attach(&cgroup, "shop", "{mode: audit, default: block, strict: true}");
        for _ in 0..3 {
            process.succeeds("send 0");
        }
        assert_eq!(receiver.arrived().len(), 3);
        let events = stand.events();
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
        process.goes_home();
        assert_eq!((receiver.arrived().len(), stream.arrived().len()), (2, 1));
        let hooks: Vec<_> = stand.events().into_iter().map(|event| event.hook).collect();
        assert_eq!(hooks, ["connect4", "sendmsg4", "connect4"]);
        let status = stand.status();
        assert_eq!(
            status.total("shop", "would_block"),
            4,
            "what was no news is not counted"
        );
    });
}

/// Packets tell who used their socket, and where that is known and the kernel cannot kill itself, user
/// space may.
#[test]
fn kill_from_user_space() {
    in_namespace("kill_from_user_space", || {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        stand.attach(&cgroup, "shop", "{default: allow, strict: true}");
        process.succeeds("udp4");
        process.succeeds(&format!("connect 0 {}", receiver.address()));
        process.succeeds("send 0");
        assert_eq!(receiver.arrived().len(), 1);
        // Nobody follows the events: the packet is dropped, and that is all. A kernel that cannot kill by
        // itself takes the policy in part only.
        let file = stand.policy("shop", "{default: kill, strict: true}");
        let applied = stand.run(["policy", "apply", "--best-effort", "-f", &file]);
        applied.expect_code(if kills_at_once() { 0 } else { 5 });
        process.fails("send 0", "EPERM");
        receiver.expect_nothing("it is dropped");
        let pid = process.pid();
        process.goes_home();
        let events = stand.events();
        assert_eq!(events.len(), 1, "{events:#?}");
        assert_eq!(
            (events[0].outcome.as_str(), events[0].pid),
            ("kill_pending", pid.as_raw())
        );
        assert!(events[0].executable.is_some());
    });
}

/// A command: nothing of what it does is disturbed, and nothing is told twice.
#[test]
fn exec_command() {
    in_namespace("exec_command", || {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        for way in [EgressMethod::TcpConnect, EgressMethod::MappedTcpConnect] {
            let gate = Gate::with(
                "{default: block, strict: true, rules: [{name: near, action: allow, to: [198.51.100.1]}]}",
            );
            let result = gate.run_client(test_client().words(way, receiver.address(), None));
            assert!(result.ok, "{result:?}");
            assert_eq!(receiver.arrived(), [MARKER]);
            let report = gate.report();
            assert!(report.events.is_empty(), "{:#?}", report.events);
            assert_eq!(report.attempts_of("near"), 1);
        }
        let gate = Gate::with("{default: block, strict: true}");
        let result = gate.run_client(test_client().words(EgressMethod::TcpConnect, receiver.address(), None));
        assert!(!result.ok);
        assert_eq!(gate.report().only_event().hook, "connect4");
    });
}

/// Where packets cannot be judged, a strict policy is refused, or taken in part.
#[test]
fn kernel_without_egress_filter() {
    in_namespace("kernel_without_egress_filter", || {
        let (stand, cgroup) = (
            Stand::open().variable("TIDEGATE_DISABLE", "packets"),
            TestCgroup::create(),
        );
        let file = stand.policy("shop", "{default: block, strict: true}");
        let at = cgroup.spelled();
        let words = ["attach", "--policy", &file, "--cgroup", &at];
        stand.refused(1, &["shop cannot be enforced fully", "strict"], words);
        let ended = stand.run([words.as_slice(), &["--best-effort"]].concat());
        ended.expect_code(5);
        assert_eq!(stand.status().policy("shop")["enforcement"], "partial");
        assert!(!has_egress_filter(&stand, "shop"));

        let gate = Gate::with("{default: block, strict: true}").variable("TIDEGATE_DISABLE", "packets");
        let ended = gate.run(["true"]);
        ended.expect_code(125);
        assert!(
            ended.stderr.contains("the policy gate is strict"),
            "{}",
            ended.stderr
        );
    });
}
