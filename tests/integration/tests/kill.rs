//! Kill: SIGKILL ends the process, and nothing that it sends arrives.
#![expect(clippy::expect_used, reason = "a fixture that does not work fails the test")]

use integration::{
    client_result::ClientResult,
    egress_method::{EgressMethod, Family, Transport},
    exec::Exec,
    kernel::{hook_that_kills, kills_at_once, outcome_of_kill},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    test_client::TestClient,
};

const KILLING: &str = r#"{default: allow, rules: [
    {name: trap, action: kill, to: [198.51.100.1, "2001:db8::1"]},
]}"#;

const SIGKILLED: i32 = 128 + libc::SIGKILL;

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

/// One event with the outcome, for every method.
fn dies_on(test: &str, methods: &[EgressMethod]) {
    if !met(test, &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for &method in methods {
            for &family in method.families() {
                let receiver = Receiver::try_listen(method.transport(), Namespace::near(family));
                let there = receiver.is_some();
                if !met(test, &[Need::Kernel(there, "the protocol is not in this kernel")]) {
                    continue;
                }
                let receiver = receiver.expect("a receiver");
                let exec = Exec::with(KILLING).accept_late_kill();
                exec.run_until_killed(test_client().args(method, receiver.address(), None));
                receiver.expect_nothing("killed");
                let report = exec.report();
                let event = report.only_event();
                assert_eq!(
                    (event.verdict.as_str(), event.outcome.as_str()),
                    ("kill", outcome_of_kill())
                );
                assert_eq!(
                    Some(event.hook.as_str()),
                    hook_that_kills(method, family),
                    "{method:?}"
                );
                assert_eq!(event.rule.as_deref(), Some("trap"));
                assert_eq!(report.summary.exit.signal, Some(libc::SIGKILL));
            }
        }
    });
}

#[test]
fn at_connect() {
    dies_on(
        "at_connect",
        &[EgressMethod::TcpConnect, EgressMethod::UdpConnectSend],
    );
}

#[test]
fn at_connect_of_mptcp() {
    dies_on("at_connect_of_mptcp", &[EgressMethod::MptcpConnect]);
}

#[test]
fn at_fast_open() {
    dies_on(
        "at_fast_open",
        &[EgressMethod::TcpFastopenSendto, EgressMethod::TcpFastopenConnect],
    );
}

#[test]
fn at_sendmsg() {
    dies_on(
        "at_sendmsg",
        &[
            EgressMethod::UdpSendto,
            EgressMethod::UdpSendmsg,
            EgressMethod::UdpSendmmsg,
        ],
    );
}

#[test]
fn through_io_uring() {
    dies_on(
        "through_io_uring",
        &[EgressMethod::IoUringConnect, EgressMethod::IoUringSendmsg],
    );
}

#[test]
fn at_mapped_addresses() {
    dies_on(
        "at_mapped_addresses",
        &[
            EgressMethod::MappedTcpConnect,
            EgressMethod::MappedUdpConnect,
            EgressMethod::MappedUdpSendto,
        ],
    );
}

#[test]
fn at_socket_creation() {
    dies_on(
        "at_socket_creation",
        &[EgressMethod::PingConnectSend, EgressMethod::PingSendto],
    );
}

/// An attempt of one thread kills the whole process.
#[test]
fn kills_all_threads() {
    dies_on("kills_all_threads", &[EgressMethod::ThreadConnect]);
}

/// An attempt of a grandchild kills the grandchild, not its parents.
#[test]
fn parent_is_not_killed() {
    if !met("parent_is_not_killed", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let exec = Exec::with(KILLING).accept_late_kill();
        let result =
            exec.run_client(test_client().args(EgressMethod::GrandchildConnect, receiver.address(), None));
        // If user space kills, it may report the denial before.
        let errno = result.errno.as_deref();
        assert!(
            errno == Some("DIED") || !kills_at_once() && errno == Some("EPERM"),
            "{errno:?}"
        );
        receiver.expect_nothing("killed");
        let report = exec.report();
        assert_eq!(report.only_event().outcome, outcome_of_kill());
        assert_eq!(report.summary.exit.code, Some(0));
    });
}

/// Where the hook cannot kill, it denies the call, and user space sends the signal. The test client waits for the end of
/// its input, which this test keeps open, so only the signal ends it.
#[test]
fn delayed_kill_from_user_space() {
    if !met("delayed_kill_from_user_space", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for method in [EgressMethod::TcpConnect, EgressMethod::UdpSendto] {
            let receiver = Receiver::listen(method.transport(), Namespace::near(Family::V4));
            let exec = Exec::with(KILLING)
                .variable("TIDEGATE_DISABLE", "send_signal,lsm")
                .options(["--best-effort"])
                .with_input();
            let mut args = test_client().args(method, receiver.address(), None);
            args.push("--stay".into());
            let mut running = exec.start(args);
            let input = running.take_stdin();
            let output = running.finish();
            drop(input);
            output.expect_code(SIGKILLED);
            // It may report the denial before it is killed.
            for errno in ClientResult::read(&output.stdout) {
                assert_eq!(errno.errno.as_deref(), Some("EPERM"));
            }
            receiver.expect_nothing("denied at once");
            assert!(
                output
                    .stderr
                    .contains("partially enforced: policy test: kill: cgroup hooks cannot kill")
                    && output.stderr.contains("the kill is asynchronous"),
                "{}",
                output.stderr
            );
            let report = exec.report();
            let event = report.only_event();
            assert_eq!(
                (event.verdict.as_str(), event.outcome.as_str()),
                ("kill", "kill_pending")
            );
            assert_eq!(event.errno.as_deref(), Some("EPERM"));
            assert_eq!(report.summary.exit.signal, Some(libc::SIGKILL));
        }
    });
}
