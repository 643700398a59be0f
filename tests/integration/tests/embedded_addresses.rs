//! IPv6 addresses with an embedded IPv4 address: packets to them are IPv6, and a gateway or a tunnel would send them to the
//! IPv4 address. Rules about either apply.
#![expect(clippy::expect_used, reason = "a fixture that does not work fails the test")]

use std::{net::IpAddr, process::Command};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{MARKER, Transport},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

/// Addresses of this machine, each with 198.51.100.1 embedded.
const ADDRESSES: [&str; 4] = [
    // IPv4-compatible, NAT64, 6to4, Teredo.
    "::198.51.100.1",
    "64:ff9b::198.51.100.1",
    "2002:c633:6401::1",
    "2001:0:cb00:7101::39cc:9bfe",
];

/// Whether TCP connections and datagrams arrive at each address; all agree. `rule` is the one that blocks them.
fn arrives(spec: &str, rule: &str) -> bool {
    let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
    fixture.attach(&cgroup, "test", spec);
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let mut all = Vec::new();
    for text in ADDRESSES {
        let at: IpAddr = text.parse().expect("an address");
        for (transport, socket, step) in [
            (Transport::Tcp, "tcp6", "connect 0"),
            (Transport::Udp, "udp6", "sendto 0"),
        ] {
            let receiver = Receiver::listen(transport, at);
            let mut process = ScriptedClient::start(&test_client, &cgroup);
            process.succeeds(socket);
            let result = process.run_step(&format!("{step} {}", receiver.address()));
            process.quit();
            let arrived = receiver.arrived();
            assert_eq!(result.ok, !arrived.is_empty(), "{text}: {result:?}");
            all.push(result.ok);
            if result.ok {
                let expected: &[u8] = if transport == Transport::Tcp { b"" } else { MARKER };
                assert_eq!(arrived, [expected], "{text}");
                continue;
            }
            let events = fixture.events();
            assert_eq!(events.len(), 1, "{text}: {events:#?}");
            let destination = events[0].destination.map(|destination| destination.address);
            assert_eq!((destination, events[0].rule.as_deref()), (Some(at), Some(rule)));
        }
    }
    assert!(all.iter().all(|&arrived| arrived == all[0]), "{spec}: {all:?}");
    all[0]
}

#[test]
fn rules_about_ipv6_and_about_ipv4_apply() {
    if !met(
        "rules_about_ipv6_and_about_ipv4_apply",
        &[Need::Root, Need::Program("ip")],
    ) {
        return;
    }
    Namespace::run(|_| {
        for at in ADDRESSES {
            let args = ["addr", "add", &format!("{at}/128"), "dev", "lo", "nodad"];
            assert!(
                Command::new("ip").args(args).status().expect("ip").success(),
                "{at}"
            );
        }
        let block = |to: &str| format!("{{default: allow, rules: [{{name: r, action: block, to: [{to}]}}]}}");
        assert!(!arrives(&block("\"::/0\""), "r"), "the packets are IPv6");
        assert!(
            !arrives(&block("198.51.100.1"), "r"),
            "they could be sent to the IPv4 address"
        );
        assert!(arrives(&block("198.51.100.2"), "r"));
    });
}
