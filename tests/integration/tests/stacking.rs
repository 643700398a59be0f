//! Several policies, on one cgroup and on nested cgroups: all are evaluated, the strictest verdict is enforced, and each
//! policy reports its own events.

use std::ffi::OsString;

use integration::{
    egress_method::{EgressMethod, Family, Transport},
    exec::{Exec, policy},
    kernel::{errno_seen, outcome_of_kill},
    namespace::Namespace,
    receiver::Receiver,
    report::Report,
    requirement::{Need, met, tidegate_bin},
    running_command::CommandOutput,
    test_client::TestClient,
};

const STRICTNESS: [&str; 4] = ["allow", "audit", "block", "kill"];

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

/// Runs a test client where this action is the strictest.
fn send(exec: &Exec, strictest: &str, args: Vec<OsString>) -> CommandOutput {
    if strictest == "kill" {
        return exec.run_until_killed(args);
    }
    let output = exec.run(args);
    output.expect_code(0);
    output
}

fn outcome_of(action: &str) -> &'static str {
    match action {
        "audit" => "audited",
        "block" => "blocked",
        "kill" => outcome_of_kill(),
        other => panic!("{other} has no event"),
    }
}

/// Every pair of actions, in both orders, on one cgroup.
#[test]
fn two_policies_on_one_cgroup() {
    if !met("two_policies_on_one_cgroup", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        for (i, first) in STRICTNESS.iter().enumerate() {
            for (j, second) in STRICTNESS.iter().enumerate() {
                let about = format!("{first} and {second}");
                let exec = Exec::open()
                    .accept_late_kill()
                    .policy(&policy("first", &format!("{{default: {first}}}")))
                    .policy(&policy("second", &format!("{{default: {second}}}")));
                let strictest = STRICTNESS[i.max(j)];
                send(
                    &exec,
                    strictest,
                    test_client().args(EgressMethod::TcpConnect, receiver.address(), None),
                );
                let passes = matches!(strictest, "allow" | "audit");
                assert_eq!(receiver.arrived().len(), usize::from(passes), "{about}");

                let report = exec.report();
                let mut outcomes: Vec<_> = report
                    .events
                    .iter()
                    .map(|event| (event.policy.as_deref().unwrap(), event.outcome.as_str()))
                    .collect();
                outcomes.sort_unstable();
                let expected: Vec<_> = [("first", *first), ("second", *second)]
                    .into_iter()
                    .filter(|(_, action)| *action != "allow")
                    .map(|(name, action)| (name, outcome_of(action)))
                    .collect();
                assert_eq!(
                    outcomes, expected,
                    "{about}: one event for each policy that does not allow silently"
                );
                let counted: Vec<_> = report
                    .summary
                    .policies
                    .iter()
                    .map(|policy| (policy.name.as_str(), policy.default.attempts))
                    .collect();
                assert_eq!(counted, [("first", 1), ("second", 1)], "{about}");
            }
        }
    });
}

/// The errno is that of the first policy that denies; a policy in audit mode does not change it.
#[test]
fn errno_of_the_first_denial() {
    if !met("errno_of_the_first_denial", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let exec = Exec::open()
            .policy(&policy(
                "watching",
                "{mode: audit, default: kill, errno: ETIMEDOUT}",
            ))
            .policy(&policy("one", "{default: block, errno: EACCES}"))
            .policy(&policy("two", "{default: block, errno: ENETUNREACH}"));
        let result = exec.run_client(test_client().args(EgressMethod::TcpConnect, receiver.address(), None));
        assert_eq!(result.errno.as_deref(), Some(errno_seen("EACCES")));
        let report = exec.report();
        // Where an LSM program denies, the event of the cgroup hook comes later.
        let mut outcomes: Vec<_> = report.events.iter().map(|event| event.outcome.as_str()).collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["blocked", "blocked", "would_kill"]);
    });
}

/// Runs an exec within an exec, which ends as the strictest action says; returns both reports.
fn nested(outer: &str, inner: &str, strictest: &str, to: &Receiver) -> (CommandOutput, Report, Report) {
    // The inner one creates a cgroup and loads programs: it needs the capabilities.
    let outside = Exec::open()
        .policy(&policy("outer", outer))
        .options(["--keep-capability", "all"]);
    let file = outside.dir().write("inner.yaml", &policy("inner", inner));
    let report = outside.dir().path().join("inner.jsonl");
    let mut args: Vec<OsString> = vec![
        tidegate_bin().into(),
        "exec".into(),
        "--policy".into(),
        file.into(),
        "--report".into(),
        report.clone().into(),
        "--".into(),
    ];
    args.extend(test_client().args(EgressMethod::TcpConnect, to.address(), None));
    let output = send(&outside, strictest, args);
    let (outer, inner) = (outside.report(), Report::read(&report));
    (output, outer, inner)
}

/// Every pair of actions, on nested cgroups.
#[test]
fn nested_exec() {
    if !met("nested_exec", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        for (i, outer) in STRICTNESS.iter().enumerate() {
            for (j, inner) in STRICTNESS.iter().enumerate() {
                let about = format!("{outer} above {inner}");
                let strictest = STRICTNESS[i.max(j)];
                let (_, outer_report, inner_report) = nested(
                    &format!("{{default: {outer}}}"),
                    &format!("{{default: {inner}}}"),
                    strictest,
                    &receiver,
                );
                let passes = matches!(strictest, "allow" | "audit");
                assert_eq!(receiver.arrived().len(), usize::from(passes), "{about}");
                for (report, action) in [(&outer_report, outer), (&inner_report, inner)] {
                    if *action == "allow" {
                        assert!(report.events.is_empty(), "{about}: {:#?}", report.events);
                    } else {
                        assert_eq!(report.only_event().outcome, outcome_of(action), "{about}");
                    }
                    assert_eq!(report.summary.policies[0].default.attempts, 1, "{about}");
                }
            }
        }
    });
}

/// A policy in audit mode on the inner cgroup does not weaken the outer policy.
#[test]
fn inner_audit_mode_does_not_weaken_the_outer() {
    if !met("inner_audit_mode_does_not_weaken_the_outer", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let (output, outer, inner) = nested(
            "{default: block, errno: EACCES}",
            "{mode: audit, default: block, errno: ENETUNREACH}",
            "block",
            &receiver,
        );
        assert!(output.stdout.contains(errno_seen("EACCES")), "{}", output.stdout);
        receiver.expect_nothing("blocked above");
        assert_eq!(outer.only_event().outcome, "blocked");
        assert_eq!(inner.only_event().outcome, "would_block");
        assert_ne!(outer.only_event().scope_id, inner.only_event().scope_id);
    });
}
