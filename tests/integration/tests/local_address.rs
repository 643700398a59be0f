//! Where audited connections send from: what the listener saw is the truth. A probe tells it, which runs for the
//! whole machine, so these tests are for machines of their own.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::net::{IpAddr, SocketAddr, TcpListener};

use integration::{
    attached::Stand,
    captured::Captured,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family},
    exec::Gate,
    kernel::is_whole_machine,
    namespace::Namespace,
    report::{Event, Report},
    requirement::{Need, met},
    test_client::TestClient,
};
use nix::sys::signal::Signal;

const WATCHING: &str = "{mode: audit, default: block}";

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn ready(test: &str) -> bool {
    let alone = Need::Kernel(is_whole_machine(), "the machine is not the tests' alone");
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
fn probe_is_attached(stand: &Stand) -> bool {
    let gates = std::fs::read_dir(stand.pins().join("tidegate")).unwrap();
    let mut folders = gates.map(|gate| gate.unwrap().path().join("links/probe"));
    folders.any(|folder| folder.is_dir())
}

#[test]
fn every_connect_method() {
    if !ready("every_connect_method") {
        return;
    }
    Namespace::run(|_| {
        let ways = [
            (EgressMethod::TcpConnect, Family::V4),
            (EgressMethod::TcpConnect, Family::V6),
            (EgressMethod::MappedTcpConnect, Family::V4),
            (EgressMethod::TcpFastopenSendto, Family::V4),
            (EgressMethod::TcpFastopenConnect, Family::V6),
            (EgressMethod::IoUringConnect, Family::V4),
            (EgressMethod::MptcpConnect, Family::V4),
            (EgressMethod::ThreadConnect, Family::V6),
        ];
        for (way, family) in ways {
            let listener = listener(family);
            let gate = Gate::with(WATCHING);
            let result = gate.run_client(test_client().words(way, listener.local_addr().unwrap(), None));
            if result.is_impossible() {
                // Which ways each kernel has, `ways_out` says.
                continue;
            }
            assert!(result.ok, "{result:?}");
            let report = gate.report();
            let event = report.only_event();
            assert_eq!(source(event), Some(peer(&listener)), "{way:?} {family:?}");
            assert_eq!(event.outcome, "would_block");
            assert_eq!(Some(event.hook.as_str()), way.hook(family));
        }
    });
}

/// curl does not block in connect(2).
#[test]
fn nonblocking_connect() {
    if !ready("nonblocking_connect")
        || !met("nonblocking_connect", &[Need::Program("curl")])
    {
        return;
    }
    Namespace::run(|_| {
        let listener = listener(Family::V4);
        let gate = Gate::with(WATCHING);
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let running = gate.start(["curl", "--silent", "--max-time", "20", &url]);
        let peer = peer(&listener);
        running.finish();
        assert_eq!(source(gate.report().only_event()), Some(peer));
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
        let gate = Gate::with(WATCHING);
        let result =
            gate.run_client(test_client().words(EgressMethod::TcpConnect, SocketAddr::new(address, 9), None));
        assert_eq!(result.errno.as_deref(), Some("ECONNREFUSED"));
        let source = source(gate.report().only_event()).unwrap();
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
        let gate = Gate::with(WATCHING);
        let script = r#""$0" go tcp-connect "$1"; "$0" go tcp-connect "$2"; "$0" go tcp-connect "$1""#;
        let words = ["/bin/sh", "-c", script];
        let test_client = test_client();
        let words = words.into_iter().map(Into::into).chain([
            test_client.path().as_os_str().to_owned(),
            nowhere.into(),
            to.into(),
        ]);
        let ended = gate.run(words);
        assert_eq!(ended.stdout.matches("ENETUNREACH").count(), 2, "{}", ended.stdout);
        let told: Vec<_> = gate.report().events.iter().map(source).collect();
        assert_eq!(told, [None, Some(peer(&listener)), None]);
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
        let gate = Gate::with(&format!(
            "{{default: block, rules: [{{name: seen, action: audit, to: [{address}]}}]}}"
        ));
        let to = listener.local_addr().unwrap();
        let result = gate.run_client(test_client().words(EgressMethod::UnspecTcpReconnect, to, Some(to)));
        assert!(result.ok, "{result:?}");
        let report = gate.report();
        let told: Vec<_> = report.events.iter().map(source).collect();
        assert_eq!(told, [Some(peer(&listener)), Some(peer(&listener))]);

        let gate = Gate::with(WATCHING.replace("audit", "enforce").as_str());
        gate.run_client(test_client().words(EgressMethod::TcpConnect, to, None));
        let report = gate.report();
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
        let gate = Gate::with(WATCHING).policy(&integration::exec::policy("other", "{default: audit}"));
        let result = gate.run_client(test_client().words(
            EgressMethod::TcpConnect,
            listener.local_addr().unwrap(),
            None,
        ));
        assert!(result.ok, "{result:?}");
        let peer = Some(peer(&listener));
        let told: Vec<_> = gate.report().events.iter().map(source).collect();
        assert_eq!(told, [peer, peer]);
    });
}

#[test]
fn attached_policy() {
    if !ready("attached_policy") {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", WATCHING);
        assert!(probe_is_attached(&stand));
        let connect = |listener: &TcpListener| {
            let to = listener.local_addr().unwrap();
            let result = stand.run_client(&cgroup, &test_client().words(EgressMethod::TcpConnect, to, None));
            assert!(result.ok, "{result:?}");
            (peer(listener), to)
        };
        // As JSON, as text, and to a reader who waits. (Another port each: repeats are folded.)
        let (peer, _) = connect(&listener(Family::V4));
        let events = stand.events();
        assert_eq!(events.iter().map(source).collect::<Vec<_>>(), [Some(peer)]);

        let (peer, to) = connect(&listener(Family::V6));
        let text = stand.done(["events"]);
        assert!(
            text.contains(&format!("uid 0 {peer} -> {to}/tcp  shop/(default)")),
            "{text}"
        );

        let follower = Captured::spawn(&mut stand.command(["events", "--follow", "--output", "json"]));
        let (peer, _) = connect(&listener(Family::V4));
        follower.wait_for_stdout(&format!(",\"port\":{}}}", peer.port()));
        let nowhere = SocketAddr::new(IpAddr::from([192, 0, 2, 9]), 443);
        stand.run_client(
            &cgroup,
            &test_client().words(EgressMethod::TcpConnect, nowhere, None),
        );
        follower.wait_for_stdout("192.0.2.9");
        follower.signal(Signal::SIGINT);
        let (events, _) = Report::stream(&follower.finish().stdout);
        assert_eq!(events.iter().map(source).collect::<Vec<_>>(), [Some(peer), None]);

        stand.done(["detach", "shop"]);
        assert!(!probe_is_attached(&stand));
    });
}

/// It is attached while some policy reports what it lets through, and only then.
#[test]
fn tracer_attached_only_while_needed() {
    if !ready("tracer_attached_only_while_needed") {
        return;
    }
    Namespace::run(|_| {
        let stand = Stand::open();
        let (one, other) = (TestCgroup::create(), TestCgroup::create());
        stand.attach(&one, "acts", "{default: block}");
        assert!(!probe_is_attached(&stand));
        stand.done(["set-mode", "acts", "audit"]);
        assert!(probe_is_attached(&stand));
        let listener = listener(Family::V4);
        stand.run_client(
            &one,
            &test_client().words(EgressMethod::TcpConnect, listener.local_addr().unwrap(), None),
        );
        assert_eq!(source(&stand.events()[0]), Some(peer(&listener)));

        stand.attach(&other, "watches", "{default: audit}");
        stand.done(["set-mode", "acts", "enforce"]);
        assert!(probe_is_attached(&stand), "the other needs it");
        stand.done(["detach", "watches"]);
        assert!(!probe_is_attached(&stand));
        stand.attach(&other, "plain", "{default: audit, hooks: [cgroup]}");
        assert!(!probe_is_attached(&stand), "a list says what is wanted");
    });
}
