//! Kill: the process is dead, of SIGKILL, and nothing of what it wanted to send has arrived.

use integration::{
    gate::Gate,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    voyage::Voyage,
    voyager::Voyager,
    way::{Family, Transport, Way},
};

const KILLING: &str = r#"{default: allow, rules: [
    {name: trap, action: kill, to: [198.51.100.1, "2001:db8::1"]},
]}"#;

const SIGKILLED: i32 = 128 + libc::SIGKILL;

fn voyager() -> Voyager {
    Voyager::at(env!("CARGO_BIN_EXE_voyager"))
}

/// One event, with what was done; whatever the way.
fn dies_on(test: &str, ways: &[Way]) {
    if !met(test, &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for &way in ways {
            for &family in way.families() {
                let receiver = Receiver::listen(way.transport(), Namespace::near(family));
                let gate = Gate::with(KILLING);
                let ended = gate.run(voyager().words(way, receiver.address(), None));
                ended.expect_code(SIGKILLED);
                assert_eq!(ended.stdout, "", "{way:?}: no instruction runs after the call");
                receiver.expect_nothing("killed");
                let report = gate.report();
                let event = report.only_event();
                assert_eq!(
                    (event.verdict.as_str(), event.outcome.as_str()),
                    ("kill", "killed")
                );
                assert_eq!(Some(event.hook.as_str()), way.hook(family), "{way:?}");
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
        &[Way::TcpConnect, Way::UdpConnectSend, Way::MptcpConnect],
    );
}

#[test]
fn at_fast_open() {
    dies_on("at_fast_open", &[Way::TcpFastopenSendto, Way::TcpFastopenConnect]);
}

#[test]
fn at_sendmsg() {
    dies_on("at_sendmsg", &[Way::UdpSendto, Way::UdpSendmsg, Way::UdpSendmmsg]);
}

#[test]
fn through_io_uring() {
    dies_on("through_io_uring", &[Way::IoUringConnect, Way::IoUringSendmsg]);
}

#[test]
fn at_mapped_addresses() {
    dies_on(
        "at_mapped_addresses",
        &[Way::MappedTcpConnect, Way::MappedUdpConnect, Way::MappedUdpSendto],
    );
}

#[test]
fn when_the_socket_is_made() {
    dies_on(
        "when_the_socket_is_made",
        &[Way::PingConnectSend, Way::PingSendto],
    );
}

/// A thread's attempt ends the whole process.
#[test]
fn all_threads() {
    dies_on("all_threads", &[Way::ThreadConnect]);
}

/// A grandchild's attempt ends the grandchild, not those it comes from.
#[test]
fn only_the_process_itself() {
    if !met("only_the_process_itself", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let gate = Gate::with(KILLING);
        let voyage = gate.voyage(voyager().words(Way::GrandchildConnect, receiver.address(), None));
        assert_eq!(voyage.errno.as_deref(), Some("DIED"));
        receiver.expect_nothing("killed");
        let report = gate.report();
        assert_eq!(report.only_event().outcome, "killed");
        assert_eq!(report.summary.exit.code, Some(0));
    });
}

/// Where the hook may not kill, it denies at once; the signal comes from user space a moment later. The
/// voyager stays until its input ends, which this test does not let happen: it is dead of the signal.
#[test]
fn from_user_space_where_the_hook_may_not() {
    if !met("from_user_space_where_the_hook_may_not", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for way in [Way::TcpConnect, Way::UdpSendto] {
            let receiver = Receiver::listen(way.transport(), Namespace::near(Family::V4));
            let gate = Gate::with(KILLING)
                .variable("TIDEGATE_DISABLE", "send_signal")
                .with_input();
            let mut words = voyager().words(way, receiver.address(), None);
            words.push("--stay".into());
            let mut running = gate.start(words);
            let input = running.take_stdin();
            let ended = running.finish();
            drop(input);
            ended.expect_code(SIGKILLED);
            // It may have told of the denial before it died.
            for told in Voyage::read(&ended.stdout) {
                assert_eq!(told.errno.as_deref(), Some("EPERM"));
            }
            receiver.expect_nothing("denied at once");
            assert!(
                ended.stderr.contains("asynchronous"),
                "it is said that the kill is asynchronous: {}",
                ended.stderr
            );
            let report = gate.report();
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
