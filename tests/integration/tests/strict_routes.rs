//! Source routes: the call has one destination, but the packet goes to another one first. Only the egress filter sees
//! this. In these tests the hop is this machine, which forwards the packet to the receiver.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fs,
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, MARKER, Transport},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

/// Runs a test in a namespace that forwards source-routed packets.
fn in_namespace(test: &str, check: impl Fn() + Send + Sync) {
    if !met(test, &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for device in ["all", "lo"] {
            fs::write(
                format!("/proc/sys/net/ipv4/conf/{device}/accept_source_route"),
                "1",
            )
            .unwrap();
            fs::write(format!("/proc/sys/net/ipv6/conf/{device}/seg6_enabled"), "1").unwrap();
        }
        check();
    });
}

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "udp4"), (Family::V6, "udp6")];

/// A policy for the hop and for the final destination.
fn spec(family: Family, hop: &str, end: &str) -> String {
    format!(
        "{{default: block, strict: true, deduplicate: {{block: 1h}}, rules: [
            {{name: hop, action: {hop}, to: [\"{}\"]}},
            {{name: end, action: {end}, to: [\"{}\"]}},
        ]}}",
        Namespace::elsewhere(family),
        Namespace::near(family),
    )
}

#[test]
fn datagrams_by_a_source_route() {
    in_namespace("datagrams_by_a_source_route", || {
        for (family, udp) in FAMILIES {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let receiver = Receiver::listen(Transport::Udp, Namespace::near(family));
            let (to, hop) = (receiver.address(), Namespace::elsewhere(family));
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            process.succeeds(udp);
            process.succeeds(&format!("route 0 {hop}"));
            process.succeeds(&format!("sendto 0 {to}"));
            assert_eq!(receiver.arrived(), [MARKER], "without a policy the route works");

            fixture.attach(&cgroup, "shop", &spec(family, "block", "allow"));
            process.fails(&format!("sendto 0 {to}"), "EPERM");
            receiver.expect_nothing("the hop is blocked");
            let events = fixture.events();
            let [event] = events.as_slice() else {
                panic!("one event, not {events:#?}");
            };
            assert_eq!(
                (event.hook.as_str(), event.rule.as_deref()),
                ("egress", Some("hop"))
            );
            assert_eq!(event.destination.as_ref().unwrap().address, hop);
            assert_eq!(
                event.pid,
                process.pid().as_raw(),
                "the event names the process that used the socket"
            );
            assert_eq!(event.comm, "test-client");

            // Without the egress filter, and with both allowed.
            for allowing in [
                "{default: block, rules: [{name: end, action: allow, to: [END]}]}",
                "",
            ] {
                let spec = match allowing {
                    "" => spec(family, "allow", "allow"),
                    text => text.replace("END", &format!("\"{}\"", to.ip())),
                };
                fixture.apply("shop", &spec);
                process.succeeds(&format!("sendto 0 {to}"));
                assert_eq!(receiver.arrived(), [MARKER]);
            }
            assert!(fixture.events().is_empty());
            process.quit();
        }
    });
}

/// The final destination in the packet is checked too, for an IPv4 socket connected before the policy.
#[test]
fn final_destination_is_checked() {
    in_namespace("final_destination_is_checked", || {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("udp4");
        process.succeeds(&format!("route 0 {}", Namespace::elsewhere(Family::V4)));
        process.succeeds(&format!("connect 0 {}", receiver.address()));
        fixture.attach(&cgroup, "shop", &spec(Family::V4, "allow", "block"));
        process.fails("send 0", "EPERM");
        receiver.expect_nothing("its final destination is blocked");
        expect_one(&fixture, "end", receiver.address().ip());
        process.quit();
    });
}

/// The same over IPv6. (For a connected datagram socket the kernel drops the final destination:
/// `ip6_sk_dst_lookup_flow` with a cached route.)
#[test]
fn final_destination_of_a_connection() {
    in_namespace("final_destination_of_a_connection", || {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let listener = TcpListener::bind((Namespace::near(Family::V6), 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("tcp6");
        process.succeeds(&format!("connect 0 {to}"));
        let (mut stream, _) = listener.accept().unwrap();
        process.succeeds(&format!("route 0 {}", Namespace::elsewhere(Family::V6)));
        process.succeeds("send 0");
        let mut bytes = [0; MARKER.len()];
        stream.read_exact(&mut bytes).unwrap();
        fixture.attach(&cgroup, "shop", &spec(Family::V6, "allow", "block"));
        process.succeeds("send 0");
        expect_one(&fixture, "end", to.ip());
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
        process.quit();
    });
}

#[track_caller]
fn expect_one(fixture: &AttachFixture, rule: &str, to: IpAddr) {
    let events = fixture.events();
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(
        (events[0].hook.as_str(), events[0].rule.as_deref()),
        ("egress", Some(rule))
    );
    assert_eq!(events[0].destination.as_ref().unwrap().address, to);
}

/// A server cannot answer over its own source route. (IPv4 keeps the existing route.)
#[test]
fn answers_by_a_source_route() {
    in_namespace("answers_by_a_source_route", || {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let at = SocketAddr::new(Namespace::near(Family::V6), 4004);
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("tcp6");
        process.succeeds(&format!("listen 0 {at} 16"));
        fixture.attach(&cgroup, "shop", &spec(Family::V6, "block", "allow"));
        let mut peer = TcpStream::connect(at).unwrap();
        process.succeeds("accept 0");
        process.succeeds(&format!("route 1 {}", Namespace::elsewhere(Family::V6)));
        assert!(fixture.events().is_empty());
        process.succeeds("send 1");
        expect_one(&fixture, "hop", Namespace::elsewhere(Family::V6));
        peer.set_nonblocking(true).unwrap();
        assert_eq!(peer.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        process.quit();
    });
}
