//! The `tidegate explain` command: the verdict as exit code, the deciding rule, and why earlier rules do not match. Does
//! not need root.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::path::PathBuf;

use integration::{
    exec::{policy, tidegate},
    running_command::{CommandOutput, RunningCommand},
    shared_dir::SharedDir,
};

const SPEC: &str = r#"{default: block, errno: EACCES, rules: [
    {name: metadata, action: kill, to: ["@cloud-metadata"]},
    {name: database, action: allow, to: [10.20.0.0/16], except: [10.20.9.0/24], ports: ["5432/tcp"]},
    {name: builders, action: audit, process: {uids: [1000], binaries: [/usr/bin/curl]}, to: any},
]}"#;

struct Case {
    dir: SharedDir,
    file: PathBuf,
}

impl Case {
    fn new() -> Case {
        let dir = SharedDir::create();
        let file = dir.write("policy.yaml", &policy("payments", SPEC));
        Case { dir, file }
    }

    fn explain(&self, args: &[&str]) -> CommandOutput {
        let mut all = vec!["explain", "--policy", self.file.to_str().unwrap()];
        all.extend(args);
        RunningCommand::run(&mut tidegate(all))
    }
}

#[test]
fn exit_code_is_the_verdict() {
    let case = Case::new();
    for (args, code) in [
        (&["--to", "10.20.0.5:5432"][..], 0),
        (&["--to", "10.20.0.5:5432/udp"], 4),
        (&["--to", "10.20.0.5:5433"], 4),
        (&["--to", "10.20.9.5:5432"], 4),
        (&["--to", "169.254.169.254:80"], 4),
        (&["--to", "[::ffff:10.20.0.5]:5432"], 0),
        (&["--to", "[2001:db8::1]:443"], 4),
        (&["--to", "192.0.2.1/icmp"], 4),
        (
            &[
                "--to",
                "192.0.2.1:443",
                "--uid",
                "1000",
                "--binary",
                "/usr/bin/curl",
            ],
            0,
        ),
        (
            &[
                "--to",
                "192.0.2.1:443",
                "--uid",
                "1001",
                "--binary",
                "/usr/bin/curl",
            ],
            4,
        ),
        (&["--to", "192.0.2.1:443", "--uid", "1000"], 4),
    ] {
        let output = case.explain(args);
        assert_eq!(
            output.code(),
            Some(code),
            "{args:?}\n{}{}",
            output.stdout,
            output.stderr
        );
        assert!(output.stdout.contains("payments"), "{}", output.stdout);
    }
}

#[test]
fn deciding_rule_and_why_others_do_not_match() {
    let case = Case::new();
    let output = case.explain(&["--to", "10.20.0.5:5433", "--uid", "7"]);
    output.expect_code(4);
    let line_of = |rule: &str| {
        let line = output.stdout.lines().find(|line| line.contains(rule));
        line.unwrap_or_else(|| panic!("no {rule} in\n{}", output.stdout))
    };
    assert!(line_of("metadata").contains("destination"));
    assert!(line_of("database").contains("port"));
    assert!(line_of("builders").contains("user"));
    assert!(output.stdout.contains("default") && output.stdout.contains("EACCES"));
}

#[test]
fn as_json() {
    let case = Case::new();
    let output = case.explain(&["--to", "169.254.169.254:80", "--output", "json"]);
    output.expect_code(4);
    let document: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (&document["denied"], &document["verdict"]),
        (&true.into(), &"kill".into())
    );
    assert_eq!(document["policies"][0]["rule"], "metadata");
}

/// A policy in audit mode denies nothing.
#[test]
fn audit_mode_does_not_deny() {
    let case = Case::new();
    let watching = case.dir.write(
        "watching.yaml",
        &policy("watching", "{mode: audit, default: kill}"),
    );
    let args = [
        "explain",
        "--to",
        "192.0.2.1:1",
        "--policy",
        watching.to_str().unwrap(),
    ];
    let output = RunningCommand::run(&mut tidegate(args));
    output.expect_code(0);
    assert!(output.stdout.contains("would_kill"), "{}", output.stdout);
    // Together with a policy that denies, the attempt is denied.
    let output = case.explain(&["--to", "192.0.2.1:1", "--policy", watching.to_str().unwrap()]);
    output.expect_code(4);
}

#[test]
fn invalid_arguments() {
    let case = Case::new();
    case.explain(&["--to", "example.org:80"]).expect_code(2);
    case.explain(&["--to", "192.0.2.1"]).expect_code(2);
    case.explain(&["--to", "192.0.2.1:99999"]).expect_code(2);
    case.explain(&[]).expect_code(2);
    RunningCommand::run(&mut tidegate([
        "explain",
        "--policy",
        "/no/such.yaml",
        "--to",
        "192.0.2.1:1",
    ]))
    .expect_code(1);
    let invalid = case.dir.write("invalid.yaml", "kind: Nonsense\n");
    RunningCommand::run(&mut tidegate([
        "explain",
        "--policy",
        invalid.to_str().unwrap(),
        "--to",
        "192.0.2.1:1",
    ]))
    .expect_code(3);
}
