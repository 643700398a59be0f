//! The local address of audited connections, compared with the peer address that the listener saw. The tcp_connect tracer
//! runs for the whole machine, so these tests need a dedicated machine.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::net::{IpAddr, SocketAddr, TcpListener};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family},
    exec::Exec,
    kernel::is_dedicated_machine,
    namespace::Namespace,
    report::{Event, Report},
    requirement::{Need, met},
    running_command::RunningCommand,
    test_client::TestClient,
};
use nix::sys::signal::Signal;

const AUDITING: &str = "{mode: audit, default: block}";

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

fn listener(family: Family) -> TcpListener {
    TcpListener::bind((Namespace::near(family), 0)).unwrap()
}

/// The peer of the next connection, in canonical form.
fn peer(listener: &TcpListener) -> SocketAddr {
    let (_, peer) = listener.accept().unwrap();
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn local_address(event: &Event) -> Option<SocketAddr> {
    let local = event.local_address?;
    Some(SocketAddr::new(local.address, local.port?))
}

/// Whether the link of the tracer is pinned.
fn tracer_is_attached(fixture: &AttachFixture) -> bool {
    let datapaths = std::fs::read_dir(fixture.pins().join("tidegate"))
        .into_iter()
        .flatten();
    let mut dirs = datapaths.map(|datapath| datapath.unwrap().path().join("links/tracer"));
    dirs.any(|dir| dir.is_dir())
}

#[test]
fn every_connect_method() {
    if !ready("every_connect_method") {
        return;
    }
    Namespace::run(|_| {
        let methods = [
            (EgressMethod::TcpConnect, Family::V4),
            (EgressMethod::TcpConnect, Family::V6),
            (EgressMethod::MappedTcpConnect, Family::V4),
            (EgressMethod::TcpFastopenSendto, Family::V4),
            (EgressMethod::TcpFastopenConnect, Family::V6),
            (EgressMethod::IoUringConnect, Family::V4),
            (EgressMethod::MptcpConnect, Family::V4),
            (EgressMethod::ThreadConnect, Family::V6),
        ];
        for (method, family) in methods {
            let listener = listener(family);
            let exec = Exec::with(AUDITING);
            let result = exec.run_client(test_client().args(method, listener.local_addr().unwrap(), None));
            if result.is_unsupported() {
                // `egress_paths` tests which methods each kernel supports.
                continue;
            }
            assert!(result.ok, "{result:?}");
            let report = exec.report();
            let event = report.only_event();
            assert_eq!(
                local_address(event),
                Some(peer(&listener)),
                "{method:?} {family:?}"
            );
            assert_eq!(event.outcome, "would_block");
            assert_eq!(Some(event.hook.as_str()), method.hook(family));
        }
    });
}

/// curl uses non-blocking connects.
#[test]
fn nonblocking_connect() {
    if !ready("nonblocking_connect") || !met("nonblocking_connect", &[Need::Program("curl")]) {
        return;
    }
    Namespace::run(|_| {
        let listener = listener(Family::V4);
        let exec = Exec::with(AUDITING);
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let running = exec.start(["curl", "--silent", "--max-time", "20", &url]);
        let peer = peer(&listener);
        running.finish();
        assert_eq!(local_address(exec.report().only_event()), Some(peer));
    });
}

/// A SYN is sent, but no socket listens.
#[test]
fn refused_connect() {
    if !ready("refused_connect") {
        return;
    }
    Namespace::run(|_| {
        let address = Namespace::near(Family::V4);
        let exec = Exec::with(AUDITING);
        let result =
            exec.run_client(test_client().args(EgressMethod::TcpConnect, SocketAddr::new(address, 9), None));
        assert_eq!(result.errno.as_deref(), Some("ECONNREFUSED"));
        let local = local_address(exec.report().only_event()).unwrap();
        // The destination is local, so its address is also the local address.
        assert_eq!(local.ip(), address);
        assert_ne!(local.port(), 0);
    });
}

/// No SYN is sent: the event is reported in order, without a local address.
#[test]
fn failed_connect_has_no_local_address() {
    if !ready("failed_connect_has_no_local_address") {
        return;
    }
    Namespace::run(|_| {
        let nowhere = "192.0.2.9:443";
        let listener = listener(Family::V4);
        let to = listener.local_addr().unwrap().to_string();
        let exec = Exec::with(AUDITING);
        let script = r#""$0" run tcp-connect "$1"; "$0" run tcp-connect "$2"; "$0" run tcp-connect "$1""#;
        let args = ["/bin/sh", "-c", script];
        let test_client = test_client();
        let args = args.into_iter().map(Into::into).chain([
            test_client.path().as_os_str().to_owned(),
            nowhere.into(),
            to.into(),
        ]);
        let output = exec.run(args);
        assert_eq!(
            output.stdout.matches("ENETUNREACH").count(),
            2,
            "{}",
            output.stdout
        );
        let reported: Vec<_> = exec.report().events.iter().map(local_address).collect();
        assert_eq!(reported, [None, Some(peer(&listener)), None]);
    });
}

/// Denied connects have no local address; audited connects of the same policy have one.
#[test]
fn enforcing_policy_with_audited_connects() {
    if !ready("enforcing_policy_with_audited_connects") {
        return;
    }
    Namespace::run(|_| {
        let listener = listener(Family::V4);
        let address = Namespace::near(Family::V4);
        let exec = Exec::with(&format!(
            "{{default: block, rules: [{{name: seen, action: audit, to: [{address}]}}]}}"
        ));
        let to = listener.local_addr().unwrap();
        let result = exec.run_client(test_client().args(EgressMethod::UnspecTcpReconnect, to, Some(to)));
        assert!(result.ok, "{result:?}");
        let report = exec.report();
        let reported: Vec<_> = report.events.iter().map(local_address).collect();
        assert_eq!(reported, [Some(peer(&listener)), Some(peer(&listener))]);

        let exec = Exec::with(AUDITING.replace("audit", "enforce").as_str());
        exec.run_client(test_client().args(EgressMethod::TcpConnect, to, None));
        let report = exec.report();
        assert_eq!(
            (
                report.only_event().outcome.as_str(),
                local_address(report.only_event())
            ),
            ("blocked", None)
        );
    });
}

/// Two policies each report the same connection.
#[test]
fn two_policies() {
    if !ready("two_policies") {
        return;
    }
    Namespace::run(|_| {
        let listener = listener(Family::V4);
        let exec = Exec::with(AUDITING).policy(&integration::exec::policy("other", "{default: audit}"));
        let result = exec.run_client(test_client().args(
            EgressMethod::TcpConnect,
            listener.local_addr().unwrap(),
            None,
        ));
        assert!(result.ok, "{result:?}");
        let peer = Some(peer(&listener));
        let reported: Vec<_> = exec.report().events.iter().map(local_address).collect();
        assert_eq!(reported, [peer, peer]);
    });
}

#[test]
fn attached_policy() {
    if !ready("attached_policy") {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", AUDITING);
        assert!(tracer_is_attached(&fixture));
        let connect = |listener: &TcpListener| {
            let to = listener.local_addr().unwrap();
            let result = fixture.run_client(&cgroup, &test_client().args(EgressMethod::TcpConnect, to, None));
            assert!(result.ok, "{result:?}");
            (peer(listener), to)
        };
        // As JSON, as text, and to a follower. Each uses another port, because duplicates are suppressed.
        let (peer, _) = connect(&listener(Family::V4));
        let events = fixture.events();
        assert_eq!(events.iter().map(local_address).collect::<Vec<_>>(), [Some(peer)]);

        let (peer, to) = connect(&listener(Family::V6));
        let text = fixture.run_ok(["events"]);
        assert!(
            text.contains(&format!("uid=0 {peer} -> {to}/tcp  shop/(default)")),
            "{text}"
        );

        let follower =
            RunningCommand::spawn(&mut fixture.command(["events", "--follow", "--output", "json"]));
        let (peer, _) = connect(&listener(Family::V4));
        follower.wait_for_stdout(&format!(",\"port\":{}}}", peer.port()));
        let nowhere = SocketAddr::new(IpAddr::from([192, 0, 2, 9]), 443);
        fixture.run_client(
            &cgroup,
            &test_client().args(EgressMethod::TcpConnect, nowhere, None),
        );
        follower.wait_for_stdout("192.0.2.9");
        follower.signal(Signal::SIGINT);
        let (events, _) = Report::stream(&follower.finish().stdout);
        assert_eq!(
            events.iter().map(local_address).collect::<Vec<_>>(),
            [Some(peer), None]
        );

        fixture.run_ok(["detach", "shop"]);
        assert!(!tracer_is_attached(&fixture));
    });
}

/// The tracer is attached only while a policy reports connects that it lets through.
#[test]
fn tracer_attached_only_while_needed() {
    if !ready("tracer_attached_only_while_needed") {
        return;
    }
    Namespace::run(|_| {
        let fixture = AttachFixture::open();
        let (one, other) = (TestCgroup::create(), TestCgroup::create());
        fixture.attach(&one, "acts", "{default: block}");
        assert!(!tracer_is_attached(&fixture));
        fixture.run_ok(["set-mode", "acts", "audit"]);
        assert!(tracer_is_attached(&fixture));
        let listener = listener(Family::V4);
        fixture.run_client(
            &one,
            &test_client().args(EgressMethod::TcpConnect, listener.local_addr().unwrap(), None),
        );
        assert_eq!(local_address(&fixture.events()[0]), Some(peer(&listener)));

        fixture.attach(&other, "watches", "{default: audit}");
        fixture.run_ok(["set-mode", "acts", "enforce"]);
        assert!(tracer_is_attached(&fixture), "the other policy needs the tracer");
        fixture.run_ok(["detach", "watches"]);
        assert!(!tracer_is_attached(&fixture));
        fixture.attach(&other, "plain", "{default: audit, hooks: [cgroup]}");
        assert!(!tracer_is_attached(&fixture), "`hooks` without kprobe");
    });
}
