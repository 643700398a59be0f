//! Where audited connections send from: what the listener saw is the truth. A probe tells it, which runs for the
//! whole machine, so these tests are for machines of their own.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

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

const WATCHING: &str = "{mode: audit, default: block}";

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn ready(test: &str) -> bool {
    let alone = Need::Kernel(is_dedicated_machine(), "the machine is not the tests' alone");
    met(test, &[Need::Root, alone])
}

fn listener(family: Family) -> TcpListener {
    TcpListener::bind((Namespace::near(family), 0)).unwrap()
}

/// Who has connected: the address in its canonical spelling.
fn peer(listener: &TcpListener) -> SocketAddr {
    let (_, peer) = listener.accept().unwrap();
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn source(event: &Event) -> Option<SocketAddr> {
    let source = event.source?;
    Some(SocketAddr::new(source.address, source.port?))
}

/// The pinned link of the probe, by the folder that a test's pins are below.
fn probe_is_attached(fixture: &AttachFixture) -> bool {
    let gates = std::fs::read_dir(fixture.pins().join("tidegate")).unwrap();
    let mut dirs = gates.map(|datapath| datapath.unwrap().path().join("links/probe"));
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
            let datapath = Exec::with(WATCHING);
            let result =
                datapath.run_client(test_client().args(method, listener.local_addr().unwrap(), None));
            if result.is_unsupported() {
                // Which ways each kernel has, `ways_out` says.
                continue;
            }
            assert!(result.ok, "{result:?}");
            let report = datapath.report();
            let event = report.only_event();
            assert_eq!(source(event), Some(peer(&listener)), "{method:?} {family:?}");
            assert_eq!(event.outcome, "would_block");
            assert_eq!(Some(event.hook.as_str()), method.hook(family));
        }
    });
}

/// curl does not block in connect(2).
#[test]
fn nonblocking_connect() {
    if !ready("nonblocking_connect") || !met("nonblocking_connect", &[Need::Program("curl")]) {
        return;
    }
    Namespace::run(|_| {
        let listener = listener(Family::V4);
        let datapath = Exec::with(WATCHING);
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let running = datapath.start(["curl", "--silent", "--max-time", "20", &url]);
        let peer = peer(&listener);
        running.finish();
        assert_eq!(source(datapath.report().only_event()), Some(peer));
    });
}

/// A SYN left, and nobody was there.
#[test]
fn refused_connect() {
    if !ready("refused_connect") {
        return;
    }
    Namespace::run(|_| {
        let address = Namespace::near(Family::V4);
        let datapath = Exec::with(WATCHING);
        let result = datapath.run_client(test_client().args(
            EgressMethod::TcpConnect,
            SocketAddr::new(address, 9),
            None,
        ));
        assert_eq!(result.errno.as_deref(), Some("ECONNREFUSED"));
        let source = source(datapath.report().only_event()).unwrap();
        // The other end is on the same interface, which it reaches from its own address.
        assert_eq!(source.ip(), address);
        assert_ne!(source.port(), 0);
    });
}

/// No SYN leaves: reported all the same, in its place, without a source.
#[test]
fn failed_connect_has_no_local_address() {
    if !ready("failed_connect_has_no_local_address") {
        return;
    }
    Namespace::run(|_| {
        let nowhere = "192.0.2.9:443";
        let listener = listener(Family::V4);
        let to = listener.local_addr().unwrap().to_string();
        let datapath = Exec::with(WATCHING);
        let script = r#""$0" run tcp-connect "$1"; "$0" run tcp-connect "$2"; "$0" run tcp-connect "$1""#;
        let args = ["/bin/sh", "-c", script];
        let test_client = test_client();
        let args = args.into_iter().map(Into::into).chain([
            test_client.path().as_os_str().to_owned(),
            nowhere.into(),
            to.into(),
        ]);
        let output = datapath.run(args);
        assert_eq!(
            output.stdout.matches("ENETUNREACH").count(),
            2,
            "{}",
            output.stdout
        );
        let reported: Vec<_> = datapath.report().events.iter().map(source).collect();
        assert_eq!(reported, [None, Some(peer(&listener)), None]);
    });
}

/// What is denied never leaves, and has none; what is audited beside has.
#[test]
fn enforcing_policy_with_audited_connects() {
    if !ready("enforcing_policy_with_audited_connects") {
        return;
    }
    Namespace::run(|_| {
        let listener = listener(Family::V4);
        let address = Namespace::near(Family::V4);
        let datapath = Exec::with(&format!(
            "{{default: block, rules: [{{name: seen, action: audit, to: [{address}]}}]}}"
        ));
        let to = listener.local_addr().unwrap();
        let result = datapath.run_client(test_client().args(EgressMethod::UnspecTcpReconnect, to, Some(to)));
        assert!(result.ok, "{result:?}");
        let report = datapath.report();
        let reported: Vec<_> = report.events.iter().map(source).collect();
        assert_eq!(reported, [Some(peer(&listener)), Some(peer(&listener))]);

        let datapath = Exec::with(WATCHING.replace("audit", "enforce").as_str());
        datapath.run_client(test_client().args(EgressMethod::TcpConnect, to, None));
        let report = datapath.report();
        assert_eq!(
            (report.only_event().outcome.as_str(), source(report.only_event())),
            ("blocked", None)
        );
    });
}

/// Two policies have each their word about one connection.
#[test]
fn two_policies() {
    if !ready("two_policies") {
        return;
    }
    Namespace::run(|_| {
        let listener = listener(Family::V4);
        let datapath = Exec::with(WATCHING).policy(&integration::exec::policy("other", "{default: audit}"));
        let result = datapath.run_client(test_client().args(
            EgressMethod::TcpConnect,
            listener.local_addr().unwrap(),
            None,
        ));
        assert!(result.ok, "{result:?}");
        let peer = Some(peer(&listener));
        let reported: Vec<_> = datapath.report().events.iter().map(source).collect();
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
        fixture.attach(&cgroup, "shop", WATCHING);
        assert!(probe_is_attached(&fixture));
        let connect = |listener: &TcpListener| {
            let to = listener.local_addr().unwrap();
            let result = fixture.run_client(&cgroup, &test_client().args(EgressMethod::TcpConnect, to, None));
            assert!(result.ok, "{result:?}");
            (peer(listener), to)
        };
        // As JSON, as text, and to a reader who waits. (Another port each: repeats are folded.)
        let (peer, _) = connect(&listener(Family::V4));
        let events = fixture.events();
        assert_eq!(events.iter().map(source).collect::<Vec<_>>(), [Some(peer)]);

        let (peer, to) = connect(&listener(Family::V6));
        let text = fixture.run_ok(["events"]);
        assert!(
            text.contains(&format!("uid 0 {peer} -> {to}/tcp  shop/(default)")),
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
        assert_eq!(events.iter().map(source).collect::<Vec<_>>(), [Some(peer), None]);

        fixture.run_ok(["detach", "shop"]);
        assert!(!probe_is_attached(&fixture));
    });
}

/// It is attached while some policy reports what it lets through, and only then.
#[test]
fn tracer_attached_only_while_needed() {
    if !ready("tracer_attached_only_while_needed") {
        return;
    }
    Namespace::run(|_| {
        let fixture = AttachFixture::open();
        let (one, other) = (TestCgroup::create(), TestCgroup::create());
        fixture.attach(&one, "acts", "{default: block}");
        assert!(!probe_is_attached(&fixture));
        fixture.run_ok(["set-mode", "acts", "audit"]);
        assert!(probe_is_attached(&fixture));
        let listener = listener(Family::V4);
        fixture.run_client(
            &one,
            &test_client().args(EgressMethod::TcpConnect, listener.local_addr().unwrap(), None),
        );
        assert_eq!(source(&fixture.events()[0]), Some(peer(&listener)));

        fixture.attach(&other, "watches", "{default: audit}");
        fixture.run_ok(["set-mode", "acts", "enforce"]);
        assert!(probe_is_attached(&fixture), "the other needs it");
        fixture.run_ok(["detach", "watches"]);
        assert!(!probe_is_attached(&fixture));
        fixture.attach(&other, "plain", "{default: audit, hooks: [cgroup]}");
        assert!(!probe_is_attached(&fixture), "a list says what is wanted");
    });
}
