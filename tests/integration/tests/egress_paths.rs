//! Each way out behind the gate: where the policy allows, what is sent arrives; where it blocks, nothing
//! does, the caller sees the errno, and one event names the destination, the hook and the rule.
#![expect(clippy::expect_used, reason = "what a test stands on fails it")]

use std::net::SocketAddr;

use integration::{
    client_result::Step,
    egress_method::{EgressMethod, Family, Gatekeeper, MARKER, Transport},
    exec::Gate,
    kernel::{errno_seen, has_lsm, hook_that_blocks},
    namespace::Namespace,
    receiver::Receiver,
    report::{Destination, Event},
    requirement::{Need, met},
    test_client::TestClient,
    test_of_each_way,
};

const ALLOWING: &str = r#"{default: block, rules: [
    {name: target, action: allow, to: [198.51.100.1, "2001:db8::1"]},
    {name: first, action: allow, to: [203.0.113.1, "2001:db8:ffff::1"]},
    {name: portless, action: allow, to: any, protocols: [sctp, udplite, raw, icmp, icmpv6]},
]}"#;

const BLOCKING: &str = r#"{default: allow, errno: EHOSTUNREACH, rules: [
    {name: target, action: block, to: [198.51.100.1, "2001:db8::1"]},
]}"#;

const WATCHING: &str = r#"{mode: audit, default: block, rules: [
    {name: target, action: block, to: [198.51.100.1, "2001:db8::1"]},
]}"#;

/// A way to a receiver that is known to be reached by it.
struct TestCase {
    way: EgressMethod,
    family: Family,
    receiver: Receiver,
    first: Receiver,
    test_client: TestClient,
}

impl TestCase {
    /// Tries the way without the gate first; `None` where this kernel does not have it.
    fn proven(test: &str, way: EgressMethod, family: Family) -> Option<TestCase> {
        let receiver = Receiver::try_listen(way.transport(), Namespace::near(family));
        if !met(test, &[Need::Kernel(receiver.is_some(), "not in this kernel")]) {
            return None;
        }
        let first = match way.transport() {
            Transport::Tcp => Transport::Tcp,
            _ => Transport::Udp,
        };
        let course = TestCase {
            way,
            family,
            receiver: receiver?,
            first: Receiver::listen(first, Namespace::elsewhere(family)),
            test_client: TestClient::at(env!("CARGO_BIN_EXE_test-client")),
        };
        let result = course.test_client.go_plain(way, course.to(), course.via());
        if !met(
            test,
            &[Need::Kernel(!result.is_impossible(), "not in this kernel")],
        ) {
            return None;
        }
        assert!(result.ok, "without the gate: {result:?}");
        course.expect_all("without the gate");
        Some(course)
    }

    fn to(&self) -> SocketAddr {
        self.receiver.address()
    }

    fn via(&self) -> Option<SocketAddr> {
        self.way.needs_via().then(|| self.first.address())
    }

    fn words(&self) -> Vec<std::ffi::OsString> {
        self.test_client.words(self.way, self.to(), self.via())
    }

    fn gate(&self, spec: &str) -> Gate {
        let gate = Gate::with(spec);
        if self.way.needs_net_raw() {
            gate.options(["--keep-capability", "NET_RAW"])
        } else {
            gate
        }
    }

    fn expect_all(&self, when: &str) {
        let expected = vec![MARKER.to_vec(); self.way.messages()];
        assert_eq!(self.receiver.arrived(), expected, "{:?}, {when}", self.family);
    }

    /// The step at which the gate refuses.
    fn step(&self) -> Step {
        match self.way.gatekeeper() {
            // One call connects and sends.
            _ if self.way == EgressMethod::TcpFastopenSendto => Step::Send,
            Gatekeeper::Connect => Step::Connect,
            Gatekeeper::Sendmsg => Step::Send,
            Gatekeeper::SockCreate | Gatekeeper::Capability => Step::Socket,
        }
    }

    fn expect_event(&self, event: &Event, hook: Option<&str>) {
        assert_eq!(Some(event.hook.as_str()), hook, "{event:?}");
        assert_eq!(event.protocol, self.way.protocol(self.family), "{event:?}");
        assert_eq!(event.policy.as_deref(), Some("gate"));
        assert_eq!(
            (event.reason.as_str(), event.rule.as_deref()),
            ("rule", Some("target"))
        );
        assert_eq!(event.comm, "test-client");
        assert!(!event.foreign_socket, "{event:?}");
        if self.way.gatekeeper() == Gatekeeper::SockCreate {
            assert_eq!(event.destination, None, "no destination is known yet");
            assert_eq!(event.original, None);
            return;
        }
        let to = self.to();
        let port = Some(to.port());
        assert_eq!(
            event.destination,
            Some(Destination {
                address: to.ip(),
                port
            })
        );
        let mapped = match to {
            SocketAddr::V4(v4) if self.way.is_mapped() && !event.hook.starts_with("sendmsg") => {
                Some(Destination {
                    address: v4.ip().to_ipv6_mapped().into(),
                    port,
                })
            }
            _ => None,
        };
        assert_eq!(event.original, mapped, "the caller's own spelling");
    }
}

fn gated(way: EgressMethod) {
    let test = format!("ways_out {}", way.name());
    if !met(&test, &[Need::Root]) {
        return;
    }
    for &family in way.families() {
        Namespace::run(|_| {
            let Some(course) = TestCase::proven(&test, way, family) else {
                return;
            };
            match way.gatekeeper() {
                Gatekeeper::Capability => only_by_capability(&course),
                _ => {
                    allowed(&course);
                    blocked(&course);
                    watched(&course);
                }
            }
        });
    }
}

fn allowed(course: &TestCase) {
    let gate = course.gate(ALLOWING);
    let result = gate.run_client(course.words());
    assert!(result.ok, "{:?}: {result:?}", course.family);
    course.expect_all("allowed");
    let report = gate.report();
    assert!(
        report.events.is_empty(),
        "allowed is silent: {:#?}",
        report.events
    );
    assert!(report.attempts_of("target") > 0, "counted: {:?}", report.summary);
}

fn blocked(course: &TestCase) {
    let gate = course.gate(BLOCKING);
    let result = gate.run_client(course.words());
    course.receiver.expect_nothing("blocked");
    assert_eq!(
        (result.ok, result.errno.as_deref(), result.step),
        (false, Some(errno_seen("EHOSTUNREACH")), Some(course.step())),
        "{:?}",
        course.family
    );
    let report = gate.report();
    let event = report.only_event();
    course.expect_event(event, hook_that_blocks(course.way, course.family, "EHOSTUNREACH"));
    assert_eq!(
        (event.verdict.as_str(), event.outcome.as_str()),
        ("block", "blocked")
    );
    assert_eq!(event.errno.as_deref(), Some(errno_seen("EHOSTUNREACH")));
    assert_eq!(report.attempts_of("target"), 1);
}

/// Audit mode lets all through. A way may meet several hooks then; each reports.
fn watched(course: &TestCase) {
    let gate = course.gate(WATCHING);
    let result = gate.run_client(course.words());
    assert!(result.ok, "{:?}: {result:?}", course.family);
    course.expect_all("audit mode");
    let report = gate.report();
    let of_target: Vec<_> = report
        .events
        .iter()
        .filter(|event| event.rule.as_deref() == Some("target"))
        .collect();
    let event = of_target.first().expect("an event of the rule");
    course.expect_event(event, course.way.hook(course.family));
    for event in &report.events {
        assert_eq!(
            (event.verdict.as_str(), event.outcome.as_str()),
            ("block", "would_block")
        );
        assert_eq!((event.mode.as_str(), &event.errno), ("audit", &None));
    }
    assert_eq!(report.attempts_of("target"), of_target.len() as u64);
}

/// No cgroup hook sees packet sockets. The command has not got the capability to make them; to one that is given it
/// an LSM program denies them, where there are such.
fn only_by_capability(course: &TestCase) {
    let gate = Gate::with("{default: allow}");
    let result = gate.run_client(course.words());
    course.receiver.expect_nothing("without the capability");
    assert_eq!(
        (result.errno.as_deref(), result.step),
        (Some("EPERM"), Some(Step::Socket))
    );
    assert!(gate.report().events.is_empty());

    let gate = course.gate(BLOCKING);
    let result = gate.run_client(course.words());
    let report = gate.report();
    if !has_lsm() {
        assert!(result.ok);
        course.expect_all("with the capability");
        assert!(report.events.is_empty());
        return;
    }
    course.receiver.expect_nothing("with the capability");
    assert_eq!(
        (result.errno.as_deref(), result.step),
        (Some("EHOSTUNREACH"), Some(Step::Socket))
    );
    let event = report.only_event();
    assert_eq!(
        (
            event.hook.as_str(),
            event.protocol.as_str(),
            event.rule.as_deref()
        ),
        ("lsm_create", "packet", Some("target"))
    );
}

test_of_each_way!(gated);
