//! Each way out, without Tidegate: what is sent arrives. Only so does it mean something that it
//! does not arrive from behind the gate.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::net::SocketAddr;

use integration::{
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    test_of_each_way,
    voyager::Voyager,
    way::{Family, MARKER, Transport, Way},
};

fn arrives(way: Way) {
    let test = format!("without_gate {}", way.name());
    if !met(&test, &[Need::Root]) {
        return;
    }
    for &family in way.families() {
        Namespace::run(|_| arrives_at(&test, way, family));
    }
}

fn arrives_at(test: &str, way: Way, family: Family) {
    let voyager = Voyager::at(env!("CARGO_BIN_EXE_voyager"));
    let receiver = Receiver::try_listen(way.transport(), Namespace::near(family));
    if !met(test, &[Need::Kernel(receiver.is_some(), "not in this kernel")]) {
        return;
    }
    let receiver = receiver.unwrap();
    let first = Receiver::listen(first_transport(way), Namespace::elsewhere(family));
    let via: Option<SocketAddr> = way.needs_via().then(|| first.address());

    receiver.expect_nothing("before the voyage");
    let voyage = voyager.go_plain(way, receiver.address(), via);
    if !met(
        test,
        &[Need::Kernel(!voyage.is_impossible(), "not in this kernel")],
    ) {
        return;
    }
    assert!(voyage.ok, "{family:?}: {voyage:?}");
    let expected = vec![MARKER.to_vec(); way.messages()];
    assert_eq!(receiver.arrived(), expected, "{family:?}");
    receiver.expect_nothing("after the voyage");
}

/// What listens at the place that is gone to first.
fn first_transport(way: Way) -> Transport {
    match way.transport() {
        Transport::Tcp => Transport::Tcp,
        _ => Transport::Udp,
    }
}

test_of_each_way!(arrives);

/// Nobody listens: the voyager tells so, and is not taken for a success.
#[test]
fn a_refusal_by_the_far_end_is_told() {
    if !met("a_refusal_by_the_far_end_is_told", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let voyager = Voyager::at(env!("CARGO_BIN_EXE_voyager"));
        let nobody = SocketAddr::new(Namespace::near(Family::V4), 9);
        let voyage = voyager.go_plain(Way::TcpConnect, nobody, None);
        assert_eq!(voyage.errno.as_deref(), Some("ECONNREFUSED"));
        assert!(!voyage.ok && !voyage.is_impossible());
    });
}

/// Each test has a network of its own: the same port of the same address is free in both.
#[test]
fn namespaces_are_apart() {
    if !met("namespaces_are_apart", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let here = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let address = here.address();
        Namespace::run(move |_| {
            let there = Receiver::listen_at(Transport::Udp, address).unwrap();
            there.expect_nothing("a namespace of its own");
        });
        here.expect_nothing("a namespace of its own");
    });
}
