//! The output of `tidegate exec`: the summary table, the report file, live events.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
};

use integration::{
    egress_method::{EgressMethod, Family},
    exec::{Exec, enter, policy, tidegate},
    namespace::Namespace,
    report::Report,
    requirement::{Need, met},
    running_command::{CommandOutput, RunningCommand},
    test_client::TestClient,
};

const ESCAPE: char = '\u{1b}';

fn in_namespace(test: &str, check: impl FnOnce() + Send) {
    if met(test, &[Need::Root]) {
        Namespace::run(|_| check());
    }
}

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

/// A run whose attempt is blocked.
fn blocked(exec: &Exec) -> CommandOutput {
    let to = (Namespace::near(Family::V4), 4242).into();
    let output = exec.run(test_client().args(EgressMethod::TcpConnect, to, None));
    output.expect_code(0);
    output
}

fn blocking() -> Exec {
    Exec::with("{default: allow, rules: [{name: harbour, action: block, to: [198.51.100.0/24]}]}")
}

#[test]
fn summary_table() {
    in_namespace("summary_table", || {
        let output = blocked(&blocking());
        for part in [
            "blocked",
            "198.51.100.1:4242",
            "tcp",
            "test",
            "harbour",
            "test-client",
        ] {
            assert!(output.stderr.contains(part), "no {part} in\n{}", output.stderr);
        }
        assert_eq!(
            output.stdout.lines().count(),
            1,
            "tidegate writes nothing to standard output: {}",
            output.stdout
        );
    });
}

#[test]
fn equal_attempts_share_one_row() {
    in_namespace("equal_attempts_share_one_row", || {
        let exec = blocking();
        let to = format!("{}:9", Namespace::near(Family::V4));
        let output = exec.run(test_client().task("flood", &[&to, "37"]));
        let lines: Vec<_> = output
            .expect_code(0)
            .stderr
            .lines()
            .filter(|line| line.contains("198.51.100.1:9"))
            .collect();
        assert_eq!(lines.len(), 1, "{}", output.stderr);
        assert!(lines[0].split_whitespace().any(|word| word == "37"), "{lines:?}");
        assert_eq!(exec.report().events.len(), 37);
    });
}

#[test]
fn quiet_still_writes_the_report() {
    in_namespace("quiet_still_writes_the_report", || {
        let exec = blocking().options(["--quiet"]);
        assert_eq!(blocked(&exec).stderr, "");
        assert_eq!(exec.report().only_event().outcome, "blocked");
    });
}

/// The event is printed while the command runs, which ends only after this test has read it.
#[test]
fn live_prints_events_as_they_happen() {
    in_namespace("live_prints_events_as_they_happen", || {
        let exec = blocking().options(["--live"]).with_input();
        let to = (Namespace::near(Family::V4), 4242).into();
        let mut args = test_client().args(EgressMethod::TcpConnect, to, None);
        args.push("--stay".into());
        let mut running = exec.start(args);
        let input = running.take_stdin();
        let so_far = running.wait_for_stderr("198.51.100.1:4242");
        assert!(so_far.contains("BLOCK") && so_far.contains("harbour"), "{so_far}");
        drop(input);
        running.finish().expect_code(0);
    });
}

/// Colours only on a terminal, unless an option or a variable says otherwise.
#[test]
fn colours() {
    in_namespace("colours", || {
        assert!(!blocked(&blocking()).stderr.contains(ESCAPE), "a pipe");
        let always = blocking().options(["--color", "always"]);
        assert!(blocked(&always).stderr.contains(ESCAPE), "--color always");
        let forced = blocking().variable("CLICOLOR_FORCE", "1");
        assert!(blocked(&forced).stderr.contains(ESCAPE), "CLICOLOR_FORCE");
        let neither = blocking()
            .variable("CLICOLOR_FORCE", "1")
            .variable("NO_COLOR", "1");
        assert!(!blocked(&neither).stderr.contains(ESCAPE), "NO_COLOR");
        let never = blocking()
            .variable("CLICOLOR_FORCE", "1")
            .options(["--color", "never"]);
        assert!(!blocked(&never).stderr.contains(ESCAPE), "--color never");
    });
}

#[test]
fn json_on_standard_error() {
    in_namespace("json_on_standard_error", || {
        let exec = blocking().options(["--output", "json"]);
        let output = blocked(&exec);
        let report = Report::parse(&output.stderr);
        assert_eq!(report.attempts_of("harbour"), 1);
    });
}

/// With `--output json` errors are JSON too.
#[test]
fn errors_as_json() {
    in_namespace("errors_as_json", || {
        let exec = blocking().options(["--output", "json"]);
        let output = exec.run(["no-such-program-anywhere"]);
        output.expect_code(127);
        let line = output.stderr.lines().next().unwrap();
        let document: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = document["error"].to_string();
        assert!(message.contains("no-such-program-anywhere"), "{message}");
    });
}

#[test]
fn report_has_every_event_and_a_summary() {
    in_namespace("report_has_every_event_and_a_summary", || {
        let exec = Exec::open()
            .policy(&policy(
                "first",
                "{default: allow, rules: [{name: a, action: audit, to: [198.51.100.0/24]}, \
                 {name: b, action: block, to: [203.0.113.0/24]}, {name: c, action: allow, to: [192.0.2.0/24]}]}",
            ))
            .policy(&policy("second", "{mode: audit, default: block}"));
        let script = format!(
            "for to in 198.51.100.1:1 203.0.113.1:2 127.0.0.1:3; do \"{}\" run udp-sendto $to; done",
            test_client().path().display()
        );
        let output = exec.run(["/bin/sh", "-c", &script]);
        output.expect_code(0);
        let report = exec.report();
        let events: Vec<_> = report
            .events
            .iter()
            .map(|event| {
                let to = event.destination.unwrap();
                (
                    event.policy.as_deref().unwrap(),
                    event.outcome.as_str(),
                    event.rule.as_deref().unwrap_or("-"),
                    format!("{}:{}", to.address, to.port.unwrap()),
                )
            })
            .collect();
        let expected = [
            ("first", "audited", "a", "198.51.100.1:1"),
            ("second", "would_block", "-", "198.51.100.1:1"),
            ("first", "blocked", "b", "203.0.113.1:2"),
            ("second", "would_block", "-", "203.0.113.1:2"),
            ("second", "would_block", "-", "127.0.0.1:3"),
        ]
        .map(|(policy, outcome, rule, to)| (policy, outcome, rule, to.to_owned()));
        assert_eq!(events, expected);

        let summary = &report.summary;
        assert_eq!(summary.command, ["/bin/sh", "-c", &script]);
        assert_eq!((summary.exit.code, summary.lost), (Some(0), 0));
        let [first, second] = summary.policies.as_slice() else {
            panic!("two policies: {summary:?}");
        };
        let counts: Vec<_> = first
            .rules
            .iter()
            .map(|rule| (rule.name.as_str(), rule.action.as_str(), rule.attempts))
            .collect();
        assert_eq!(counts, [("a", "audit", 1), ("b", "block", 1), ("c", "allow", 0)]);
        assert_eq!(
            (first.default.action.as_str(), first.default.attempts),
            ("allow", 1)
        );
        assert_eq!((second.mode.as_str(), second.default.attempts), ("audit", 3));
        assert_eq!((first.faults, second.faults), (0, 0));

        for event in &report.events {
            assert!(
                event.time.ends_with('Z') && event.time.contains('T'),
                "{}",
                event.time
            );
            assert_eq!(event.scope_id, event.cgroup_id, "the command's own cgroup");
            assert!(
                event
                    .scope
                    .as_deref()
                    .is_some_and(|scope| scope.contains("tidegate-test-"))
            );
            assert_eq!((event.uid, event.gid), (0, 0));
            assert!(event.pid > 0 && event.socket_cookie > 0);
        }
        let mut times: Vec<_> = report.events.iter().map(|event| &event.time).collect();
        times.sort();
        assert_eq!(times.len(), 5);
    });
}

#[test]
fn unwritable_report_fails_before_the_start() {
    in_namespace("unwritable_report_fails_before_the_start", || {
        let exec = blocking();
        let trace = exec.dir().path().join("trace");
        let nowhere = exec.dir().path().join("no/such/directory");
        for path in [nowhere.as_path(), exec.dir().path()] {
            let mut command = tidegate([
                "exec".as_ref(),
                "--default".as_ref(),
                "allow".as_ref(),
                "--report".as_ref(),
                path.as_os_str(),
                "--".as_ref(),
                "touch".as_ref(),
                trace.as_os_str(),
            ]);
            enter(&mut command, exec.cgroup());
            let output = RunningCommand::run(&mut command);
            output.expect_code(125);
            assert!(
                output.stderr.contains(&path.display().to_string()),
                "{}",
                output.stderr
            );
            assert!(!trace.exists(), "the command was not started");
        }
    });
}

/// Processes choose their names: escape sequences must not reach the terminal.
#[test]
fn process_names_are_escaped() {
    in_namespace("process_names_are_escaped", || {
        let exec = blocking().options(["--live"]);
        let evil = exec
            .dir()
            .copy_program(test_client().path(), "\u{1b}[2Jevil\u{202e}");
        let to = (Namespace::near(Family::V4), 4242).into();
        let output = exec.run(TestClient::at(evil).args(EgressMethod::TcpConnect, to, None));
        output.expect_code(0);
        assert!(output.stderr.contains("evil"), "{}", output.stderr);
        for bad in [ESCAPE, '\u{202e}'] {
            assert!(!output.stderr.contains(bad), "{:?}", output.stderr);
        }
    });
}

/// A closed standard error does not change the exit code.
#[test]
fn closed_standard_error() {
    in_namespace("closed_standard_error", || {
        let exec = blocking();
        let mut command = tidegate(exec.args(["/bin/sh", "-c", "exit 9"]));
        enter(&mut command, exec.cgroup());
        // SAFETY: between fork and exec only close(2) is called.
        unsafe {
            command.pre_exec(|| {
                libc::close(2);
                Ok(())
            });
        }
        RunningCommand::run(&mut command).expect_code(9);
    });
}

/// Other users must not be able to change the report.
#[test]
fn report_file_is_writable_by_its_owner_only() {
    in_namespace("report_file_is_writable_by_its_owner_only", || {
        let exec = blocking();
        blocked(&exec);
        let mode = std::fs::metadata(exec.report_path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o022, 0, "{mode:o}: others can write to it");
    });
}

/// Every attempt of concurrent processes is reported exactly once.
#[test]
fn many_processes_at_once() {
    in_namespace("many_processes_at_once", || {
        let exec = blocking().with_input();
        let to = format!("{}:9", Namespace::near(Family::V4));
        let script = "for i in 1 2 3 4 5 6 7 8; do \"$@\" & done; wait";
        let mut args = vec!["/bin/sh".into(), "-c".into(), script.into(), "sh".into()];
        args.extend(test_client().task("flood", &[&to, "50"]));
        let mut running = exec.start(args);
        running.take_stdin().flush().unwrap();
        running.finish().expect_code(0);
        let report = exec.report();
        assert_eq!(report.attempts_of("harbour"), 400);
        assert_eq!(report.events.len() as u64 + report.summary.lost, 400);
        let mut cookies: Vec<_> = report.events.iter().map(|event| event.socket_cookie).collect();
        cookies.sort_unstable();
        cookies.dedup();
        assert_eq!(cookies.len(), report.events.len(), "a socket each");
        let mut pids: Vec<_> = report.events.iter().map(|event| event.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 8);
    });
}
