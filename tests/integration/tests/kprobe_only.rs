//! Policies with `hooks: [kprobe]`: no hook decides, connections are only reported.

use std::net::{SocketAddr, TcpListener};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family},
    exec::Exec,
    kernel::{is_dedicated_machine, tracer_hook},
    namespace::Namespace,
    requirement::{Need, met},
    test_client::TestClient,
};

const ALONE: &str = "{mode: audit, default: audit, hooks: [kprobe]}";

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn ready(test: &str) -> bool {
    let alone = Need::Kernel(
        is_dedicated_machine(),
        "the machine is not dedicated to the tests",
    );
    met(test, &[Need::Root, alone])
}

fn spec() -> String {
    format!(
        "{{mode: audit, default: audit, hooks: [kprobe], rules: [{}, {}]}}",
        format_args!(
            "{{name: inside, action: allow, to: [\"{}\"]}}",
            Namespace::far(Family::V4)
        ),
        format_args!(
            "{{name: bad, action: kill, to: [\"{}\"]}}",
            Namespace::elsewhere(Family::V6)
        ),
    )
}

#[test]
fn only_connections_are_reported() {
    if !ready("only_connections_are_reported") {
        return;
    }
    Namespace::run(|_| {
        let cases = [
            (EgressMethod::TcpConnect, Namespace::far(Family::V4), None),
            (
                EgressMethod::TcpConnect,
                Namespace::near(Family::V4),
                Some("audited"),
            ),
            (
                EgressMethod::MappedTcpConnect,
                Namespace::elsewhere(Family::V4),
                Some("audited"),
            ),
            (
                EgressMethod::TcpConnect,
                Namespace::elsewhere(Family::V6),
                Some("would_kill"),
            ),
        ];
        for (method, address, outcome) in cases {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let to = listener.local_addr().unwrap();
            let exec = Exec::with(&spec());
            let result = exec.run_client(test_client().args(method, to, None));
            assert!(result.ok, "{result:?}");
            let (_, peer) = listener.accept().unwrap();
            let report = exec.report();
            let Some(outcome) = outcome else {
                assert!(report.events.is_empty(), "{:?}", report.events);
                assert_eq!(report.attempts_of("inside"), 1);
                continue;
            };
            let event = report.only_event();
            assert_eq!(
                (event.outcome.as_str(), event.hook.as_str()),
                (outcome, tracer_hook())
            );
            let local = event.local_address.unwrap();
            assert_eq!(
                SocketAddr::new(local.address, local.port.unwrap()),
                SocketAddr::new(peer.ip().to_canonical(), peer.port()),
                "{method:?}"
            );
            assert_eq!(event.destination.unwrap().address, address);
            assert_eq!(event.original.is_some(), method.is_mapped());
            assert!(!event.foreign_socket);
            assert!(event.executable.is_some());
        }
        // Datagrams are not connections.
        let exec = Exec::with(&spec());
        let to = SocketAddr::new(Namespace::near(Family::V4), 9);
        assert!(
            exec.run_client(test_client().args(EgressMethod::UdpSendto, to, None))
                .ok
        );
        assert!(exec.report().events.is_empty());
    });
}

/// Another policy decides, and both report once.
#[test]
fn beside_an_enforcing_policy() {
    if !ready("beside_an_enforcing_policy") {
        return;
    }
    Namespace::run(|_| {
        let listener = TcpListener::bind((Namespace::near(Family::V4), 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let exec = Exec::with(ALONE).policy(&integration::exec::policy("other", "{default: audit}"));
        assert!(
            exec.run_client(test_client().args(EgressMethod::TcpConnect, to, None))
                .ok
        );
        let mut reported: Vec<_> = exec
            .report()
            .events
            .into_iter()
            .map(|event| (event.policy.unwrap(), event.hook, event.local_address.is_some()))
            .collect();
        reported.sort();
        let expected = [("other", "connect4"), ("test", tracer_hook())];
        assert_eq!(
            reported,
            expected.map(|(policy, hook)| (policy.to_owned(), hook.to_owned(), true))
        );

        let exec = Exec::with(ALONE).policy(&integration::exec::policy("other", "{default: block}"));
        let result = exec.run_client(test_client().args(EgressMethod::TcpConnect, to, None));
        assert_eq!(result.errno.as_deref(), Some("EPERM"));
        let report = exec.report();
        let event = report.only_event();
        assert_eq!(event.policy.as_deref(), Some("other"), "no SYN was sent");
    });
}

#[test]
fn never_enforces() {
    if !ready("never_enforces") {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let file = fixture.policy("watch", ALONE);
        let path = cgroup.cgroup_path();
        let attach = ["attach", "--policy", &file, "--cgroup", &path];
        fixture.run_fails(
            1,
            &["which reports and cannot deny"],
            attach.into_iter().chain(["--mode", "enforce"]),
        );
        fixture.run_ok(attach);
        let status = fixture.status();
        let hooks = &status.policy("watch")["attachments"][0]["hooks"];
        let expected = serde_json::json!([{"hook": tracer_hook(), "state": "attached"}]);
        assert_eq!(*hooks, expected);
        assert_eq!(status.policy("watch")["enforcement"], "full");

        let listener = TcpListener::bind((Namespace::near(Family::V6), 0)).unwrap();
        let to = listener.local_addr().unwrap();
        // In descendants of the cgroup too.
        let below = cgroup.child("below");
        assert!(
            fixture
                .run_client(&below, &test_client().args(EgressMethod::TcpConnect, to, None))
                .ok
        );
        let (_, peer) = listener.accept().unwrap();
        let text = fixture.run_ok(["events"]);
        assert!(text.contains(&format!(" {peer} -> {to}/tcp  watch/")), "{text}");

        fixture.run_fails(
            1,
            &["which reports and cannot deny"],
            ["set-mode", "watch", "enforce"],
        );
        let file = fixture.policy("watch", "{mode: audit, default: audit}");
        fixture.run_fails(1, &["other hooks", "detach"], ["apply", "-f", &file]);
        fixture.run_ok(["detach", "watch"]);
        assert!(
            fixture
                .run_client(&below, &test_client().args(EgressMethod::TcpConnect, to, None))
                .ok
        );
        fixture.attach(&cgroup, "other", ALONE);
        assert!(fixture.events().is_empty());
    });
}

/// A named hook that is not available is refused, or reported with `--best-effort`.
#[test]
fn without_the_tracer() {
    if !met("without_the_tracer", &[Need::Root]) {
        return;
    }
    let exec = Exec::with(ALONE).variable("TIDEGATE_DISABLE", "tracer");
    let output = exec.run(["/bin/true"]);
    output.expect_code(125);
    assert!(
        output.stderr.contains("kprobe: disabled by TIDEGATE_DISABLE")
            && output.stderr.contains("hooks: auto"),
        "{}",
        output.stderr
    );
    Exec::with("{mode: audit, default: audit}")
        .variable("TIDEGATE_DISABLE", "tracer")
        .run(["/bin/true"])
        .expect_code(0);

    let output = Exec::with(ALONE)
        .options(["--mode", "enforce"])
        .run(["/bin/true"]);
    output.expect_code(2);

    let fixture = AttachFixture::open().variable("TIDEGATE_DISABLE", "tracer");
    let cgroup = TestCgroup::create();
    let file = fixture.policy("both", "{default: block, hooks: [cgroup, kprobe]}");
    let path = cgroup.cgroup_path();
    let attach = ["attach", "--policy", &file, "--cgroup", &path];
    fixture.run_fails(1, &["kprobe: disabled", "--best-effort"], attach);
    let output = fixture.run(attach.into_iter().chain(["--best-effort"]));
    output.expect_code(5);
    let status = fixture.status();
    assert_eq!(status.policy("both")["enforcement"], "partial");
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let result = fixture.run_client(&cgroup, &test_client().args(EgressMethod::UdpSendto, to, None));
    assert_eq!(result.errno.as_deref(), Some("EPERM"));
}
