//! Protocols whose destinations no hook sees are checked at socket creation, with the strictest verdict of any
//! destination.

use integration::{
    client_result::{ClientResult, Step},
    egress_method::{EgressMethod, Family, Transport},
    exec::Exec,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    test_client::TestClient,
};

/// Runs a method under a policy; whether it arrived, according to both the test client and the receiver.
fn passes(spec: &str, method: EgressMethod, family: Family) -> bool {
    let receiver = Receiver::listen(method.transport(), Namespace::near(family));
    let exec = Exec::with(spec).options(["--keep-capability", "NET_RAW"]);
    let result: ClientResult = exec.run_client(test_client().args(method, receiver.address(), None));
    assert_eq!(receiver.arrived().len(), usize::from(result.ok), "{result:?}");
    let report = exec.report();
    if result.ok {
        assert!(report.events.is_empty(), "{:#?}", report.events);
    } else {
        assert_eq!(
            (result.errno.as_deref(), result.step),
            (Some("EPERM"), Some(Step::Socket))
        );
        let event = report.only_event();
        assert_eq!(
            (event.hook.as_str(), event.outcome.as_str()),
            ("sock_create", "blocked")
        );
        assert_eq!(event.protocol, method.protocol(family));
        assert_eq!(event.destination, None);
    }
    result.ok
}

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn in_namespace(test: &str, method: EgressMethod, check: impl Fn() + Send + Sync) {
    if !met(test, &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let there = Receiver::try_listen(method.transport(), Namespace::near(Family::V4)).is_some();
        if met(test, &[Need::Kernel(there, "the protocol is not in this kernel")]) {
            check();
        }
    });
}

/// The checks for each protocol, by its IPv4 and IPv6 name.
fn checked_at_the_socket(test: &str, method: EgressMethod, name: &str, name_v6: &str) {
    in_namespace(test, method, || {
        for (family, name) in [(Family::V4, name), (Family::V6, name_v6)] {
            let cases = [
                ("{default: block}".to_owned(), false),
                ("{default: allow}".to_owned(), true),
                (
                    format!(
                        "{{default: block, rules: [{{name: r, action: allow, to: any, protocols: [{name}]}}]}}"
                    ),
                    true,
                ),
                // A rule for all ports and protocols includes this protocol.
                (
                    "{default: block, rules: [{name: r, action: allow, to: any}]}".to_owned(),
                    true,
                ),
                // A rule for another protocol does not match.
                (
                    "{default: block, rules: [{name: r, action: allow, to: any, protocols: [tcp, udp]}]}"
                        .to_owned(),
                    false,
                ),
                // Allowed for some addresses only: the hook does not see the destination, so it denies.
                (
                    format!(
                        r#"{{default: block, rules: [{{name: r, action: allow, to: [198.51.100.0/24, "2001:db8::/32"], protocols: [{name}]}}]}}"#
                    ),
                    false,
                ),
                // Blocked for some addresses only: denied for the same reason.
                (
                    r#"{default: allow, rules: [{name: r, action: block, to: [192.0.2.0/24, "2001:db8:aaaa::/48"]}]}"#
                        .to_owned(),
                    false,
                ),
                // A rule that allows any destination decides before later rules.
                (
                    format!(
                        "{{default: block, rules: [{{name: r, action: allow, to: any, protocols: [{name}]}}, {{name: s, action: block, to: [192.0.2.0/24]}}]}}"
                    ),
                    true,
                ),
            ];
            for (spec, expected) in &cases {
                assert_eq!(passes(spec, method, family), *expected, "{family:?} {spec}");
            }
        }
    });
}

#[test]
fn udplite() {
    checked_at_the_socket("udplite", EgressMethod::UdpliteConnectSend, "udplite", "udplite");
}

#[test]
fn raw() {
    checked_at_the_socket("raw", EgressMethod::RawSendto, "raw", "raw");
}

#[test]
fn ping() {
    checked_at_the_socket("ping", EgressMethod::PingSendto, "icmp", "icmpv6");
}

/// 0.0.0.0/0 covers everything that an IPv4 socket can reach, but not an IPv6 socket.
#[test]
fn rules_for_all_of_one_family() {
    in_namespace("rules_for_all_of_one_family", EgressMethod::RawSendto, || {
        let v4 = "{default: block, rules: [{name: r, action: allow, to: [0.0.0.0/0], protocols: [raw]}]}";
        assert!(passes(v4, EgressMethod::RawSendto, Family::V4));
        assert!(!passes(v4, EgressMethod::RawSendto, Family::V6));
        let v6 = r#"{default: block, rules: [{name: r, action: allow, to: ["::/0"], protocols: [raw]}]}"#;
        assert!(!passes(v6, EgressMethod::RawSendto, Family::V4));
    });
}

/// SCTP has no address hook either; creating a socket is enough to test it.
#[test]
fn sctp() {
    if !met("sctp", &[Need::Root]) {
        return;
    }
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP) };
    if !met("sctp", &[Need::Kernel(fd >= 0, "SCTP is not in this kernel")]) {
        return;
    }
    // SAFETY: the descriptor is owned here.
    unsafe { libc::close(fd) };
    if !met("sctp", &[Need::Program("python3")]) {
        return;
    }
    let script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)";
    let make = ["python3", "-c", script];
    Namespace::run(|_| {
        let exec = Exec::with("{default: block}");
        let output = exec.run(make);
        output.expect_code(1);
        assert!(output.stderr.contains("PermissionError"), "{}", output.stderr);
        assert_eq!(exec.report().only_event().protocol, "sctp");
        let spec = "{default: block, rules: [{name: r, action: allow, to: any, protocols: [sctp]}]}";
        Exec::with(spec).run(make).expect_code(0);
    });
}

/// Unix and netlink sockets are not checked.
#[test]
fn other_families_pass() {
    if !met("other_families_pass", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let exec = Exec::with("{default: kill}").accept_late_kill();
        let path = exec.dir().path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let to = Receiver::listen(Transport::Udp, Namespace::near(Family::V4)).address();
        let running =
            exec.start(test_client().task("take-socket", &[path.to_str().unwrap(), &to.to_string()]));
        let (stream, _) = listener.accept().unwrap();
        // The peer sends no socket; the client got this far.
        drop(stream);
        let output = running.finish();
        let result = ClientResult::read(&output.expect_code(0).stdout).pop().unwrap();
        assert_eq!(result.errno.as_deref(), Some("NO-SOCKET"));
        assert!(exec.report().events.is_empty());
    });
}
