//! `strict: true` checks packets, also those of sockets connected before the policy. Inbound connections are answered,
//! and allowed traffic is not affected.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, MARKER, Transport},
    namespace::Namespace,
    receiver::Receiver,
    report::Event,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

const FAMILIES: [(Family, &str, &str); 2] = [(Family::V4, "udp4", "tcp4"), (Family::V6, "udp6", "tcp6")];
const TIMEOUT: Duration = Duration::from_secs(20);

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn in_namespace(test: &str, check: impl Fn() + Send + Sync) {
    if met(test, &[Need::Root]) {
        Namespace::run(|_| check());
    }
}

fn connected(process: &mut ScriptedClient, socket: usize, kind: &str, to: SocketAddr) {
    process.succeeds(kind);
    process.succeeds(&format!("connect {socket} {to}"));
}

/// The unread events, which must all be of the egress filter.
#[track_caller]
fn of_packets(fixture: &AttachFixture) -> Vec<Event> {
    let events = fixture.events();
    assert!(events.iter().all(|event| event.hook == "egress"), "{events:#?}");
    events
}

/// A TCP server in this test that keeps its connection open.
struct FarEnd {
    listener: TcpListener,
}

impl FarEnd {
    fn listen(family: Family) -> FarEnd {
        FarEnd {
            listener: TcpListener::bind((Namespace::near(family), 0)).unwrap(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn accepted(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }
}

#[track_caller]
fn expect_marker(stream: &mut TcpStream) {
    let mut bytes = [0; MARKER.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, MARKER);
}

#[track_caller]
fn expect_silence(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 64]);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
}

#[test]
fn datagrams_of_an_existing_connection() {
    in_namespace("datagrams_of_an_existing_connection", || {
        for (family, udp, _) in FAMILIES {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let receiver = Receiver::listen(Transport::Udp, Namespace::near(family));
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            connected(&mut process, 0, udp, receiver.address());
            process.succeeds("send 0");
            assert_eq!(receiver.arrived().len(), 1);

            fixture.attach(&cgroup, "shop", "{default: block, strict: true}");
            let before = fixture.status().counter("suppressed");
            for _ in 0..40 {
                process.fails("send 0", "EPERM");
            }
            receiver.expect_nothing("the connected socket is under the policy");
            let events = of_packets(&fixture);
            // At most one event per second; a slow machine may need several seconds.
            assert!(events.len() < 20, "{}", events.len());
            let event = &events[0];
            assert_eq!(
                (event.outcome.as_str(), event.protocol.as_str()),
                ("blocked", "udp")
            );
            assert_eq!(event.errno.as_deref(), Some("EPERM"));
            assert_eq!(
                event.destination.as_ref().unwrap().address,
                Namespace::near(family)
            );
            assert_eq!(
                event.destination.as_ref().unwrap().port,
                Some(receiver.address().port())
            );
            assert_eq!(
                (event.pid, event.rule.as_deref()),
                (0, None),
                "no process is known"
            );
            let status = fixture.status();
            assert_eq!(status.total("shop", "blocked"), 40, "the counter is exact");
            assert_eq!(status.counter("suppressed") - before, 40 - events.len() as u64);

            fixture.apply("shop", "{default: allow, strict: true}");
            process.succeeds("send 0");
            assert_eq!(receiver.arrived().len(), 1);
            fixture.apply("shop", "{default: block, strict: true}");
            process.fails("send 0", "EPERM");
            fixture.run_ok(["detach", "shop"]);
            process.succeeds("send 0");
            assert_eq!(receiver.arrived().len(), 1);
            process.quit();
        }
    });
}

/// TCP retransmits dropped data until the policy allows it.
#[test]
fn established_connection() {
    in_namespace("established_connection", || {
        for (family, _, tcp) in FAMILIES {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let far = FarEnd::listen(family);
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            connected(&mut process, 0, tcp, far.address());
            let mut stream = far.accepted();
            process.succeeds("send 0");
            expect_marker(&mut stream);

            fixture.attach(
                &cgroup,
                "shop",
                "{default: block, strict: true, deduplicate: {block: 1h}}",
            );
            process.succeeds("send 0");
            expect_silence(&mut stream);
            let events = of_packets(&fixture);
            assert_eq!(events.len(), 1, "{events:#?}");
            assert_eq!(
                (events[0].outcome.as_str(), events[0].protocol.as_str()),
                ("blocked", "tcp")
            );
            fixture.run_ok(["detach", "shop"]);
            expect_marker(&mut stream);
            process.quit();
        }
    });
}

/// Accepted connections can answer, with data of many packets, whether the server listened before or after the policy.
#[test]
fn accepted_connections_can_answer() {
    in_namespace("accepted_connections_can_answer", || {
        for (family, _, tcp) in FAMILIES {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let at = |port| SocketAddr::new(Namespace::near(family), port);
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            process.succeeds(tcp);
            process.succeeds(&format!("listen 0 {} 16", at(4001)));
            let mut before = TcpStream::connect(at(4001)).unwrap();
            process.succeeds("accept 0");
            fixture.attach(&cgroup, "shop", "{default: block, strict: true}");
            let mut after = TcpStream::connect(at(4001)).unwrap();
            process.succeeds("accept 0");
            process.succeeds(tcp);
            process.succeeds(&format!("listen 3 {} 16", at(4002)));
            let mut new = TcpStream::connect(at(4002)).unwrap();
            process.succeeds("accept 3");
            for (stream, socket) in [(&mut before, 1), (&mut after, 2), (&mut new, 4)] {
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                process.start_step(&format!("flood {socket} 3000000"));
                let mut answer = vec![0; 3_000_000];
                stream.read_exact(&mut answer).unwrap();
            }
            process.quit();
            assert!(of_packets(&fixture).is_empty());
            assert_eq!(fixture.status().total("shop", "blocked"), 0);
        }
    });
}

/// A socket that has listened does not count as a server afterwards.
#[test]
fn listening_socket_cannot_connect() {
    in_namespace("listening_socket_cannot_connect", || {
        for (family, _, tcp) in FAMILIES {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let far = Receiver::listen(Transport::Tcp, Namespace::near(family));
            let at = SocketAddr::new(Namespace::far(family), 4003);
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            process.succeeds(tcp);
            process.succeeds(&format!("listen 0 {at} 16"));
            let _peer = TcpStream::connect(at).unwrap();
            process.succeeds("accept 0");
            fixture.attach(&cgroup, "shop", "{default: allow, strict: true}");
            process.succeeds("shutdown 0");
            process.succeeds("disconnect 1");
            for socket in [0, 1] {
                process.fails(&format!("connect {socket} {}", far.address()), "EPERM");
            }
            far.expect_nothing("neither was connected");
            // Without strict it is allowed.
            fixture.apply("shop", "{default: allow}");
            process.succeeds(&format!("connect 0 {}", far.address()));
            process.succeeds("send 0");
            process.quit();
            assert_eq!(far.arrived(), [MARKER]);
            let events = fixture.events();
            let events: Vec<_> = events
                .iter()
                .map(|event| (event.hook.as_str(), event.fault.as_deref()))
                .collect();
            let hook = if family == Family::V4 {
                "connect4"
            } else {
                "connect6"
            };
            assert_eq!(events, [(hook, Some("has_listened")); 2]);
        }
    });
}

#[test]
fn allowed_traffic_continues() {
    in_namespace("allowed_traffic_continues", || {
        for (family, udp, tcp) in FAMILIES {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let (far, receiver) = (
                FarEnd::listen(family),
                Receiver::listen(Transport::Udp, Namespace::near(family)),
            );
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            connected(&mut process, 0, tcp, far.address());
            let mut old = far.accepted();
            let spec = format!(
                "{{default: block, strict: true, rules: [{{name: far, action: allow, to: [\"{}\"]}}]}}",
                Namespace::near(family)
            );
            fixture.attach(&cgroup, "shop", &spec);
            connected(&mut process, 1, tcp, far.address());
            let mut new = far.accepted();
            for (stream, socket) in [(&mut old, 0), (&mut new, 1)] {
                process.start_step(&format!("flood {socket} 5000000"));
                let mut all = vec![0; 5_000_000];
                stream.read_exact(&mut all).unwrap();
            }
            connected(&mut process, 2, udp, receiver.address());
            process.succeeds("send 2");
            process.quit();
            assert_eq!(receiver.arrived(), [MARKER]);
            assert!(of_packets(&fixture).is_empty());
            let status = fixture.status();
            let rules = &status.policy("shop")["rules"];
            assert_eq!(
                rules[0]["attempts"], 2,
                "connects are counted, packets are not: {rules}"
            );
        }
    });
}
