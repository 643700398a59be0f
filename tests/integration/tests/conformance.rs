//! An unmodified program behaves the same under a policy that allows everything: each of CPython's own tests of its
//! socket module has the same result with and without the policy.
#![expect(clippy::expect_used, reason = "a fixture that does not work fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use integration::{
    exec::Exec,
    namespace::Namespace,
    requirement::{Need, met},
    running_command::{CommandOutput, RunningCommand},
};

/// Time limit, far longer than they take.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Skipped: hangs on machines without a vsock transport, also without a policy.
const ARGS: [&str; 9] = [
    "python3",
    "-m",
    "test",
    "-v",
    "--timeout",
    "600",
    "-i",
    "*VSOCK*Stream*",
    "test_socket",
];

/// The result of each test: `ok`, `skipped '...'`, `FAIL`, `ERROR`.
fn outcomes(output: &CommandOutput) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut name: Option<&str> = None;
    for line in output.stdout.lines().chain(output.stderr.lines()) {
        // `testName (test.test_socket.Class.testName) ... ok`; where a test has a description or
        // prints something, its outcome is at the end of a later line.
        if line.contains(" (test.test_socket.") && !line.starts_with("ERROR:") && !line.starts_with("FAIL:") {
            name = line.split_once('(').and_then(|(_, rest)| rest.split(')').next());
        }
        let outcome = line.rsplit_once(" ... ").map_or(line, |(_, outcome)| outcome);
        let is_outcome = matches!(outcome, "ok" | "FAIL" | "ERROR" | "expected failure")
            || outcome.starts_with("skipped ");
        if let (Some(test), true) = (name, is_outcome) {
            found.insert(test.to_owned(), outcome.to_owned());
            name = None;
        }
    }
    found
}

fn has_tests() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import test.test_socket"]);
    RunningCommand::run(&mut python).code() == Some(0)
}

/// Keeps the capabilities that `exec` drops: this test does not cover their effect.
#[test]
fn cpython_test_socket() {
    let test = "cpython_test_socket";
    if !met(test, &[Need::Root, Need::Program("python3")])
        || !met(
            test,
            &[Need::Condition(
                has_tests(),
                "python3 comes without its tests (Debian: libpython3-testsuite)",
            )],
        )
    {
        return;
    }
    let exec = Exec::with("{default: allow}").options(["--keep-capability", "all", "--quiet"]);
    // Concurrently, each in its own network namespace.
    let (plain, inside) = thread::scope(|scope| {
        let plain = scope.spawn(|| {
            in_namespace(|| {
                let mut python = Command::new(ARGS[0]);
                RunningCommand::spawn(python.args(&ARGS[1..]).stdin(Stdio::null()))
            })
        });
        let inside = in_namespace(|| exec.start(ARGS));
        (plain.join().unwrap(), inside)
    });
    let (expected, found) = (outcomes(&plain), outcomes(&inside));
    assert!(
        expected.len() > 300,
        "only {} test results were parsed\n{}\n{}",
        expected.len(),
        plain.stdout,
        plain.stderr
    );
    let all: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differences: Vec<_> = all
        .into_iter()
        .filter(|test| expected.get(*test) != found.get(*test))
        .map(|test| {
            format!(
                "{test}: without policy {:?}, with policy {:?}",
                expected.get(test),
                found.get(test)
            )
        })
        .collect();
    assert!(differences.is_empty(), "{differences:#?}\n{}", inside.stdout);
    assert_eq!(plain.code(), inside.code());
    let passed = found.values().filter(|outcome| *outcome == "ok").count();
    assert!(passed > 200, "only {passed} passed");
    let report = exec.report();
    assert!(report.events.is_empty(), "{:#?}", report.events);
    let allowed = report.summary.policies[0].default.attempts;
    assert!(allowed > 100, "the policy was evaluated: {allowed} attempts");
}

/// Runs a process in a new namespace and waits until it ends.
fn in_namespace(start: impl FnOnce() -> RunningCommand + Send) -> CommandOutput {
    let mut output = None;
    Namespace::run(|_| output = Some(start().finish_within(TIMEOUT)));
    output.expect("the test ran")
}
