//! Each egress method under a policy: what the policy allows arrives. What it blocks does not arrive, the caller sees the
//! errno, and one event has the destination, the hook and the rule.
#![expect(clippy::expect_used, reason = "a fixture that does not work fails the test")]

use std::net::SocketAddr;

use integration::{
    client_result::Step,
    egress_method::{EgressMethod, EnforcedBy, Family, MARKER, Transport},
    exec::Exec,
    kernel::{errno_seen, has_lsm, hook_that_blocks},
    namespace::Namespace,
    receiver::Receiver,
    report::{Destination, Event},
    requirement::{Need, met},
    test_client::TestClient,
    test_each_egress_method,
};

const ALLOWING: &str = r#"{default: block, rules: [
    {name: target, action: allow, to: [198.51.100.1, "2001:db8::1"]},
    {name: first, action: allow, to: [203.0.113.1, "2001:db8:ffff::1"]},
    {name: portless, action: allow, to: any, protocols: [sctp, udplite, raw, icmp, icmpv6]},
]}"#;

const BLOCKING: &str = r#"{default: allow, errno: EHOSTUNREACH, rules: [
    {name: target, action: block, to: [198.51.100.1, "2001:db8::1"]},
]}"#;

const AUDITING: &str = r#"{mode: audit, default: block, rules: [
    {name: target, action: block, to: [198.51.100.1, "2001:db8::1"]},
]}"#;

/// An egress method and a receiver that it reaches without a policy.
struct TestCase {
    method: EgressMethod,
    family: Family,
    receiver: Receiver,
    first: Receiver,
    test_client: TestClient,
}

impl TestCase {
    /// Runs the method without a policy first; `None` if the kernel does not support it.
    fn prepare(test: &str, method: EgressMethod, family: Family) -> Option<TestCase> {
        let receiver = Receiver::try_listen(method.transport(), Namespace::near(family));
        if !met(test, &[Need::Kernel(receiver.is_some(), "not in this kernel")]) {
            return None;
        }
        let first = match method.transport() {
            Transport::Tcp => Transport::Tcp,
            _ => Transport::Udp,
        };
        let case = TestCase {
            method,
            family,
            receiver: receiver?,
            first: Receiver::listen(first, Namespace::elsewhere(family)),
            test_client: TestClient::at(env!("CARGO_BIN_EXE_test-client")),
        };
        let result = case.test_client.run_without_policy(method, case.to(), case.via());
        if !met(
            test,
            &[Need::Kernel(!result.is_unsupported(), "not in this kernel")],
        ) {
            return None;
        }
        assert!(result.ok, "without a policy: {result:?}");
        case.expect_all("without a policy");
        Some(case)
    }

    fn to(&self) -> SocketAddr {
        self.receiver.address()
    }

    fn via(&self) -> Option<SocketAddr> {
        self.method.needs_via().then(|| self.first.address())
    }

    fn args(&self) -> Vec<std::ffi::OsString> {
        self.test_client.args(self.method, self.to(), self.via())
    }

    fn exec(&self, spec: &str) -> Exec {
        let exec = Exec::with(spec);
        if self.method.needs_net_raw() {
            exec.options(["--keep-capability", "NET_RAW"])
        } else {
            exec
        }
    }

    fn expect_all(&self, when: &str) {
        let expected = vec![MARKER.to_vec(); self.method.messages()];
        assert_eq!(self.receiver.arrived(), expected, "{:?}, {when}", self.family);
    }

    /// The step that the policy denies.
    fn step(&self) -> Step {
        match self.method.enforced_by() {
            // A single call connects and sends.
            _ if self.method == EgressMethod::TcpFastopenSendto => Step::Send,
            EnforcedBy::Connect => Step::Connect,
            EnforcedBy::Sendmsg => Step::Send,
            EnforcedBy::SockCreate | EnforcedBy::Capability => Step::Socket,
        }
    }

    fn expect_event(&self, event: &Event, hook: Option<&str>) {
        assert_eq!(Some(event.hook.as_str()), hook, "{event:?}");
        assert_eq!(event.protocol, self.method.protocol(self.family), "{event:?}");
        assert_eq!(event.policy.as_deref(), Some("test"));
        assert_eq!(
            (event.reason.as_str(), event.rule.as_deref()),
            ("rule", Some("target"))
        );
        assert_eq!(event.comm, "test-client");
        assert!(!event.foreign_socket, "{event:?}");
        if self.method.enforced_by() == EnforcedBy::SockCreate {
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
        let requested = self.method.requested(to);
        // For IPv4-mapped addresses the kernel calls `sendmsg4`, with the IPv4 address.
        let is_given = requested != to && !(self.method.is_mapped() && event.hook.starts_with("sendmsg"));
        let given = is_given.then_some(Destination {
            address: requested.ip(),
            port,
        });
        assert_eq!(event.original, given, "the address that the caller gave");
    }
}

fn inside(method: EgressMethod) {
    let test = format!("ways_out {}", method.name());
    if !met(&test, &[Need::Root]) {
        return;
    }
    for &family in method.families() {
        Namespace::run(|_| {
            let Some(case) = TestCase::prepare(&test, method, family) else {
                return;
            };
            match method.enforced_by() {
                EnforcedBy::Capability => only_by_capability(&case),
                _ => {
                    allowed(&case);
                    blocked(&case);
                    audited(&case);
                }
            }
        });
    }
}

fn allowed(case: &TestCase) {
    let exec = case.exec(ALLOWING);
    let result = exec.run_client(case.args());
    assert!(result.ok, "{:?}: {result:?}", case.family);
    case.expect_all("allowed");
    let report = exec.report();
    assert!(
        report.events.is_empty(),
        "allowed is silent: {:#?}",
        report.events
    );
    assert!(report.attempts_of("target") > 0, "counted: {:?}", report.summary);
}

fn blocked(case: &TestCase) {
    let exec = case.exec(BLOCKING);
    let result = exec.run_client(case.args());
    case.receiver.expect_nothing("blocked");
    assert_eq!(
        (result.ok, result.errno.as_deref(), result.step),
        (false, Some(errno_seen("EHOSTUNREACH")), Some(case.step())),
        "{:?}",
        case.family
    );
    let report = exec.report();
    let event = report.only_event();
    case.expect_event(event, hook_that_blocks(case.method, case.family, "EHOSTUNREACH"));
    assert_eq!(
        (event.verdict.as_str(), event.outcome.as_str()),
        ("block", "blocked")
    );
    assert_eq!(event.errno.as_deref(), Some(errno_seen("EHOSTUNREACH")));
    assert_eq!(report.attempts_of("target"), 1);
}

/// Audit mode lets everything through. Several hooks may report one method.
fn audited(case: &TestCase) {
    let exec = case.exec(AUDITING);
    let result = exec.run_client(case.args());
    assert!(result.ok, "{:?}: {result:?}", case.family);
    case.expect_all("audit mode");
    let report = exec.report();
    let of_target: Vec<_> = report
        .events
        .iter()
        .filter(|event| event.rule.as_deref() == Some("target"))
        .collect();
    let event = of_target.first().expect("an event of the rule");
    case.expect_event(event, case.method.hook(case.family));
    for event in &report.events {
        assert_eq!(
            (event.verdict.as_str(), event.outcome.as_str()),
            ("block", "would_block")
        );
        assert_eq!((event.mode.as_str(), &event.errno), ("audit", &None));
    }
    assert_eq!(report.attempts_of("target"), of_target.len() as u64);
}

/// No cgroup hook sees packet sockets. The command lacks the capability to create them; if it has the capability, an LSM
/// program denies them.
fn only_by_capability(case: &TestCase) {
    let exec = Exec::with("{default: allow}");
    let result = exec.run_client(case.args());
    case.receiver.expect_nothing("without the capability");
    assert_eq!(
        (result.errno.as_deref(), result.step),
        (Some("EPERM"), Some(Step::Socket))
    );
    assert!(exec.report().events.is_empty());

    let exec = case.exec(BLOCKING);
    let result = exec.run_client(case.args());
    let report = exec.report();
    if !has_lsm() {
        assert!(result.ok);
        case.expect_all("with the capability");
        assert!(report.events.is_empty());
        return;
    }
    case.receiver.expect_nothing("with the capability");
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

test_each_egress_method!(inside);
