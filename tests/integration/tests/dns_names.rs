//! Rules from the command line, and host names in them, which are resolved once at start.

use integration::{
    egress_method::{EgressMethod, Family, Transport},
    exec::Exec,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    test_client::TestClient,
};

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

#[test]
fn names_are_resolved_once() {
    if !met("names_are_resolved_once", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let here = Receiver::listen(Transport::Tcp, "127.0.0.1".parse().unwrap());
        let other = Receiver::listen(Transport::Tcp, "127.0.0.1".parse().unwrap());
        let port = here.address().port();
        let exec = Exec::open().options(["--allow".to_owned(), format!("localhost:{port}")]);
        let output = exec.run(test_client().args(EgressMethod::TcpConnect, here.address(), None));
        output.expect_code(0);
        assert_eq!(here.arrived().len(), 1);
        let line = output.stderr.lines().find(|line| line.contains("localhost"));
        let line = line.unwrap_or_else(|| panic!("{}", output.stderr));
        assert!(line.contains("127.0.0.1") && line.contains("once"), "{line}");

        // Everything else is blocked, because there is an --allow.
        let result = exec.run_client(test_client().args(EgressMethod::TcpConnect, other.address(), None));
        assert_eq!(result.errno.as_deref(), Some("EPERM"));
        other.expect_nothing("another port");
        assert_eq!(exec.report().only_event().policy.as_deref(), Some("command-line"));
    });
}

/// Names below `.invalid` never exist (RFC 2606), and there is no resolver in this network.
#[test]
fn unresolvable_name() {
    if !met("unresolvable_name", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let exec = Exec::open().options(["--allow", "nobody.invalid:443"]);
        let output = exec.run(["true"]);
        output.expect_code(125);
        assert!(output.stderr.contains("nobody.invalid"), "{}", output.stderr);
    });
}

/// The first flag that matches decides; the default follows from the flags, or is given.
#[test]
fn flag_order() {
    if !met("flag_order", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let family = Family::V4;
        let near = Receiver::listen(Transport::Tcp, Namespace::near(family));
        let far = Receiver::listen(Transport::Tcp, Namespace::far(family));
        let elsewhere = Receiver::listen(Transport::Tcp, Namespace::elsewhere(family));
        for (options, expected) in [
            (vec!["--allow", "198.51.100.1"], [true, false, false]),
            (vec!["--deny", "198.51.100.1"], [false, true, true]),
            (
                vec!["--deny", "198.51.100.1", "--allow", "198.51.100.0/24"],
                [false, true, false],
            ),
            (
                vec![
                    "--allow",
                    "198.51.100.1",
                    "--deny",
                    "198.51.100.0/24",
                    "--default",
                    "allow",
                ],
                [true, false, true],
            ),
            (vec!["--default", "block"], [false, false, false]),
            (vec!["--default", "audit"], [true, true, true]),
            (vec!["--deny", "any", "--mode", "audit"], [true, true, true]),
        ] {
            for (receiver, passes) in [&near, &far, &elsewhere].into_iter().zip(expected) {
                let exec = Exec::open().options(options.clone());
                let result =
                    exec.run_client(test_client().args(EgressMethod::TcpConnect, receiver.address(), None));
                assert_eq!(result.ok, passes, "{options:?} to {}", receiver.address());
                assert_eq!(receiver.arrived().len(), usize::from(passes));
            }
        }
    });
}
