//! Every action, in both modes, for both address families, over TCP and connected and unconnected UDP; and every errno
//! that a policy may choose.

use integration::{
    client_result::Step,
    egress_method::{EgressMethod, Family, MARKER, Transport},
    exec::Exec,
    kernel::{errno_seen, outcome_of_kill},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    test_client::TestClient,
};

/// TCP, connected UDP, unconnected UDP.
const METHODS: [EgressMethod; 3] = [
    EgressMethod::TcpConnect,
    EgressMethod::UdpConnectSend,
    EgressMethod::UdpSendto,
];

/// The expected result of an attempt.
struct Expected {
    outcome: Option<&'static str>,
    arrives: bool,
    killed: bool,
}

fn expected(action: &str, mode: &str) -> Expected {
    let (outcome, arrives, killed) = match (action, mode) {
        ("allow", _) => (None, true, false),
        ("audit", _) => (Some("audited"), true, false),
        ("block", "enforce") => (Some("blocked"), false, false),
        ("kill", "enforce") => (Some(outcome_of_kill()), false, true),
        ("block", "audit") => (Some("would_block"), true, false),
        ("kill", "audit") => (Some("would_kill"), true, false),
        other => panic!("{other:?}"),
    };
    Expected {
        outcome,
        arrives,
        killed,
    }
}

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn check(test: &str, action: &str, mode: &str) {
    if !met(test, &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for family in Family::ALL {
            for method in METHODS {
                for by_rule in [true, false] {
                    check_one(action, mode, method, family, by_rule);
                }
            }
        }
    });
}

/// The action is that of a rule, or the default.
fn check_one(action: &str, mode: &str, method: EgressMethod, family: Family, by_rule: bool) {
    let about = format!("{action} in mode {mode}, {method:?} {family:?}, by rule: {by_rule}");
    let expected = expected(action, mode);
    let receiver = Receiver::listen(method.transport(), Namespace::near(family));
    let other = if matches!(action, "block" | "kill") {
        "allow"
    } else {
        "block"
    };
    let address = Namespace::near(family);
    let far = Namespace::far(family);
    let spec = if by_rule {
        format!(
            r#"{{mode: {mode}, default: {other}, rules: [{{name: it, action: {action}, to: ["{address}"]}}]}}"#
        )
    } else {
        format!(
            r#"{{mode: {mode}, default: {action}, rules: [{{name: it, action: {other}, to: ["{far}"]}}]}}"#
        )
    };
    let mut exec = Exec::with(&spec);
    if expected.killed {
        exec = exec.accept_late_kill();
    }
    let args = test_client().args(method, receiver.address(), None);
    if expected.killed {
        exec.run_until_killed(args);
    } else {
        exec.run(args).expect_code(0);
    }
    let arrived: Vec<Vec<u8>> = if expected.arrives {
        vec![MARKER.to_vec()]
    } else {
        vec![]
    };
    assert_eq!(receiver.arrived(), arrived, "{about}");

    let report = exec.report();
    let exit = report.summary.exit;
    if expected.killed {
        assert_eq!((exit.code, exit.signal), (None, Some(libc::SIGKILL)), "{about}");
    } else {
        assert_eq!((exit.code, exit.signal), (Some(0), None), "{about}");
    }
    let policy = &report.summary.policies[0];
    let counted = if by_rule {
        (policy.rules[0].attempts, policy.default.attempts)
    } else {
        (policy.default.attempts, policy.rules[0].attempts)
    };
    assert_eq!(counted, (1, 0), "{about}: exact counters");
    let Some(outcome) = expected.outcome else {
        assert!(report.events.is_empty(), "{about}: {:#?}", report.events);
        return;
    };
    let event = report.only_event();
    assert_eq!(event.outcome, outcome, "{about}");
    assert_eq!(
        (event.verdict.as_str(), event.mode.as_str()),
        (action, mode),
        "{about}"
    );
    assert_eq!(
        event.errno.as_deref(),
        (!expected.arrives).then_some("EPERM"),
        "{about}"
    );
    if by_rule {
        assert_eq!(
            (event.reason.as_str(), event.rule.as_deref()),
            ("rule", Some("it"))
        );
    } else {
        assert_eq!((event.reason.as_str(), event.rule.as_deref()), ("default", None));
    }
}

#[test]
fn allow() {
    check("allow", "allow", "enforce");
}

#[test]
fn audit() {
    check("audit", "audit", "enforce");
}

#[test]
fn block() {
    check("block", "block", "enforce");
}

#[test]
fn kill() {
    check("kill", "kill", "enforce");
}

#[test]
fn allow_in_audit_mode() {
    check("allow_in_audit_mode", "allow", "audit");
}

#[test]
fn audit_in_audit_mode() {
    check("audit_in_audit_mode", "audit", "audit");
}

#[test]
fn block_in_audit_mode() {
    check("block_in_audit_mode", "block", "audit");
}

#[test]
fn kill_in_audit_mode() {
    check("kill_in_audit_mode", "kill", "audit");
}

/// The caller gets the errno of the policy, at each kind of hook.
#[test]
fn each_errno() {
    if !met("each_errno", &[Need::Root]) {
        return;
    }
    let methods = [
        (EgressMethod::TcpConnect, Step::Connect),
        (EgressMethod::UdpSendto, Step::Send),
        (EgressMethod::PingSendto, Step::Socket),
    ];
    Namespace::run(|_| {
        for errno in [
            "EPERM",
            "EACCES",
            "ECONNREFUSED",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "ETIMEDOUT",
        ] {
            for family in Family::ALL {
                for (method, step) in methods {
                    let receiver = Receiver::listen(method.transport(), Namespace::near(family));
                    let exec = Exec::with(&format!("{{default: block, errno: {errno}}}"));
                    let result = exec.run_client(test_client().args(method, receiver.address(), None));
                    let seen = Some(errno_seen(errno));
                    assert_eq!((result.errno.as_deref(), result.step), (seen, Some(step)));
                    assert_eq!(exec.report().only_event().errno.as_deref(), seen);
                    receiver.expect_nothing(errno);
                }
            }
        }
    });
}

/// A rule does not match the next port, the other protocol or the next address.
#[test]
fn rule_matches_only_its_ports_and_protocols() {
    if !met("rule_matches_only_its_ports_and_protocols", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for family in Family::ALL {
            let near = Namespace::near(family);
            let named = Receiver::listen(Transport::Tcp, near);
            let port = named.address().port();
            let same_port_udp = Receiver::listen_at(Transport::Udp, named.address()).unwrap();
            let other_port = Receiver::listen(Transport::Tcp, near);
            let other_address =
                Receiver::listen_at(Transport::Tcp, (Namespace::far(family), port).into()).unwrap();
            let spec = format!(
                r#"{{default: block, rules: [{{name: it, action: allow, to: ["{near}"], ports: ["{port}/tcp"]}}]}}"#
            );
            for (receiver, method, passes) in [
                (&named, EgressMethod::TcpConnect, true),
                (&same_port_udp, EgressMethod::UdpSendto, false),
                (&other_port, EgressMethod::TcpConnect, false),
                (&other_address, EgressMethod::TcpConnect, false),
            ] {
                let result =
                    Exec::with(&spec).run_client(test_client().args(method, receiver.address(), None));
                assert_eq!(result.ok, passes, "{method:?} to {}", receiver.address());
                assert_eq!(receiver.arrived().len(), usize::from(passes));
            }
        }
    });
}
