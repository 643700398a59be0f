//! Each egress method without Tidegate: everything arrives, so that a missing message under a policy is meaningful.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::net::SocketAddr;

use integration::{
    egress_method::{EgressMethod, Family, MARKER, Transport},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    test_client::TestClient,
    test_each_egress_method,
};

fn arrives(method: EgressMethod) {
    let test = format!("without_gate {}", method.name());
    if !met(&test, &[Need::Root]) {
        return;
    }
    for &family in method.families() {
        Namespace::run(|_| arrives_at(&test, method, family));
    }
}

fn arrives_at(test: &str, method: EgressMethod, family: Family) {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let receiver = Receiver::try_listen(method.transport(), Namespace::near(family));
    if !met(test, &[Need::Kernel(receiver.is_some(), "not in this kernel")]) {
        return;
    }
    let receiver = receiver.unwrap();
    let first = Receiver::listen(first_transport(method), Namespace::elsewhere(family));
    let via: Option<SocketAddr> = method.needs_via().then(|| first.address());

    receiver.expect_nothing("before the result");
    let result = test_client.run_without_policy(method, receiver.address(), via);
    if !met(
        test,
        &[Need::Kernel(!result.is_unsupported(), "not in this kernel")],
    ) {
        return;
    }
    assert!(result.ok, "{family:?}: {result:?}");
    let expected = vec![MARKER.to_vec(); method.messages()];
    assert_eq!(receiver.arrived(), expected, "{family:?}");
    receiver.expect_nothing("after the result");
}

/// The receiver that some methods connect to first.
fn first_transport(method: EgressMethod) -> Transport {
    match method.transport() {
        Transport::Tcp => Transport::Tcp,
        _ => Transport::Udp,
    }
}

test_each_egress_method!(arrives);

/// No socket listens: the test client reports an error.
#[test]
fn refused_connection_is_reported() {
    if !met("refused_connection_is_reported", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let unused = SocketAddr::new(Namespace::near(Family::V4), 9);
        let result = test_client.run_without_policy(EgressMethod::TcpConnect, unused, None);
        assert_eq!(result.errno.as_deref(), Some("ECONNREFUSED"));
        assert!(!result.ok && !result.is_unsupported());
    });
}

/// Each test has its own network namespace: the same port of the same address is free in both.
#[test]
fn namespaces_are_isolated() {
    if !met("namespaces_are_isolated", &[Need::Root]) {
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
