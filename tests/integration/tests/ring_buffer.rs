//! More events than are read: verdicts do not change, lost events are counted, and the counters of rules stay exact.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::io::Write;

use integration::{
    egress_method::Family,
    exec::Exec,
    namespace::Namespace,
    report::Report,
    requirement::{Need, met},
    running_command::RunningCommand,
    test_client::TestClient,
};
use nix::sys::{
    signal::Signal,
    wait::{Id, WaitPidFlag, waitid},
};

const ATTEMPTS: u64 = 3000;

/// The smallest ring buffer: one page, about two dozen records.
const SMALLEST: &str = "4096";

fn blocking() -> String {
    format!(
        r#"{{default: allow, rules: [{{name: it, action: block, to: ["{}"]}}]}}"#,
        Namespace::near(Family::V4)
    )
}

/// Runs a command that floods after a signal on its input; returns attempts, refusals and the report.
fn flood(
    exec: Exec,
    before: impl Fn(&RunningCommand),
    after: impl Fn(&RunningCommand),
) -> (u64, u64, Report) {
    let to = format!("{}:9", Namespace::near(Family::V4));
    let flood =
        TestClient::at(env!("CARGO_BIN_EXE_test-client")).task("flood", &[&to, &ATTEMPTS.to_string()]);
    let mut args = vec![
        "/bin/sh".into(),
        "-c".into(),
        "echo ready; read go; exec \"$@\"".into(),
        "sh".into(),
    ];
    args.extend(flood);
    let mut running = exec.start(args);
    let mut input = running.take_stdin();
    running.wait_for_stdout("ready");
    before(&running);
    input.write_all(b"go\n").unwrap();
    let output = running.wait_for_stdout("refused");
    after(&running);
    running.finish().expect_code(0);
    let output = output.lines().find(|line| line.starts_with('{')).unwrap();
    let output: serde_json::Value = serde_json::from_str(output).unwrap();
    let count = |name: &str| output[name].as_u64().unwrap();
    (count("attempts"), count("refused"), exec.report())
}

/// Events plus lost events are all attempts.
fn check(report: &Report) {
    let lost: u64 = report.lost.iter().map(|lost| lost.lost).sum();
    assert_eq!(lost, report.summary.lost, "the stream reports the same loss");
    assert_eq!(report.events.len() as u64 + lost, ATTEMPTS);
    assert_eq!(report.attempts_of("it"), ATTEMPTS, "the rule's counter is exact");
}

#[test]
fn reader_stopped() {
    if !met("reader_stopped", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let exec = Exec::with(&blocking())
            .variable("TIDEGATE_EVENT_RING_BYTES", SMALLEST)
            .with_input();
        let stop = |running: &RunningCommand| {
            running.signal(Signal::SIGSTOP);
            let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
            waitid(Id::Pid(running.pid()), flags).unwrap();
        };
        let (attempts, refused, report) = flood(exec, stop, |running| running.signal(Signal::SIGCONT));
        assert_eq!((attempts, refused), (ATTEMPTS, ATTEMPTS));
        check(&report);
        assert!(report.summary.lost > 0, "one page cannot hold all records");
        assert!(!report.events.is_empty(), "the first records were read");
    });
}

#[test]
fn slow_reader() {
    if !met("slow_reader", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let exec = Exec::with(&blocking())
            .variable("TIDEGATE_EVENT_RING_BYTES", SMALLEST)
            .with_input();
        let (attempts, refused, report) = flood(exec, |_| {}, |_| {});
        assert_eq!((attempts, refused), (ATTEMPTS, ATTEMPTS));
        check(&report);
    });
}

/// Allowed attempts write no events, so none are lost; they are still counted.
#[test]
fn allowed_attempts_write_no_events() {
    if !met("allowed_attempts_write_no_events", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let exec = Exec::with("{default: allow, rules: [{name: it, action: allow, to: any}]}")
            .variable("TIDEGATE_EVENT_RING_BYTES", SMALLEST)
            .with_input();
        let (attempts, refused, report) = flood(exec, |_| {}, |_| {});
        assert_eq!((attempts, refused), (ATTEMPTS, 0));
        assert!(report.events.is_empty() && report.lost.is_empty());
        assert_eq!((report.summary.lost, report.attempts_of("it")), (0, ATTEMPTS));
    });
}
