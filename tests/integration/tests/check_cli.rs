//! The `tidegate check` command: exit codes, both output formats, standard input. Does not need root.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{io::Write, process::Stdio};

use integration::{
    exec::{policy, tidegate},
    running_command::{CommandOutput, RunningCommand},
    shared_dir::SharedDir,
};

const VALID: &str = "{default: block, rules: [{name: web, action: allow, to: [192.0.2.0/24], ports: [443]}]}";

/// Three errors in one file, each in another location.
const INVALID: &str = "apiVersion: tidegate.io/v1
kind: EgressPolicy
metadata: {name: broken}
spec:
  default: deny
  rules:
    - name: one
      action: allow
      to: [192.0.2.1/24]
    - name: two
      action: allow
      to: any
      ports: [\"90-80\"]
";

fn check(args: &[&str]) -> CommandOutput {
    let mut all = vec!["check"];
    all.extend(args);
    RunningCommand::run(&mut tidegate(all))
}

fn check_input(text: &str, args: &[&str]) -> CommandOutput {
    let mut all = vec!["check"];
    all.extend(args);
    let mut running = RunningCommand::spawn(tidegate(all).stdin(Stdio::piped()));
    running.take_stdin().write_all(text.as_bytes()).unwrap();
    running.finish()
}

#[test]
fn valid_policy() {
    let dir = SharedDir::create();
    let file = dir.write("valid.yaml", &policy("valid", VALID));
    let output = check(&[file.to_str().unwrap()]);
    output.expect_code(0);
    assert!(output.stdout.contains("is valid"), "{}", output.stdout);
    assert_eq!(output.stderr, "");
}

#[test]
fn all_errors_with_locations() {
    let dir = SharedDir::create();
    let file = dir.write("invalid.yaml", INVALID);
    let output = check(&[file.to_str().unwrap()]);
    output.expect_code(3);
    for part in [
        "invalid.yaml:5:",
        "deny",
        "invalid.yaml:9:",
        "192.0.2.0/24",
        "invalid.yaml:13:",
        "90-80",
    ] {
        assert!(output.stderr.contains(part), "no {part} in\n{}", output.stderr);
    }
    assert_eq!(output.stdout, "");
}

#[test]
fn errors_as_json() {
    let dir = SharedDir::create();
    let valid = dir.write("valid.yaml", &policy("valid", VALID));
    let invalid = dir.write("invalid.yaml", INVALID);
    let output = check(&[
        "--output",
        "json",
        valid.to_str().unwrap(),
        invalid.to_str().unwrap(),
    ]);
    output.expect_code(3);
    let document: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let files = document["files"].as_array().unwrap();
    assert_eq!(
        (&files[0]["valid"], &files[1]["valid"]),
        (&true.into(), &false.into())
    );
    let lines: Vec<_> = files[1]["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|diagnostic| diagnostic["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [5, 9, 13]);
}

#[test]
fn from_standard_input() {
    check_input(&policy("piped", VALID), &["-"]).expect_code(0);
    let output = check_input(INVALID, &["-"]);
    output.expect_code(3);
    assert!(output.stderr.contains("<stdin>:5:"), "{}", output.stderr);
}

#[test]
fn missing_file() {
    let output = check(&["/no/such/policy.yaml"]);
    output.expect_code(1);
    assert!(
        output.stderr.contains("/no/such/policy.yaml"),
        "{}",
        output.stderr
    );
}

#[test]
fn invalid_command_line() {
    check(&[]).expect_code(2);
    check(&["--no-such-flag", "file"]).expect_code(2);
    check(&["--set", "no-equals-sign", "file"]).expect_code(2);
}

#[test]
fn variables() {
    let text = policy(
        "variables",
        r#"{default: block, rules: [{name: nodes, action: allow, to: ["${NODES}"]}]}"#,
    );
    let output = check_input(&text, &["-"]);
    output.expect_code(3);
    assert!(
        output.stderr.contains("NODES") && output.stderr.contains("<stdin>:4:"),
        "{}",
        output.stderr
    );
    check_input(&text, &["--set", "NODES=10.0.0.1 10.0.0.2,10.0.0.3", "-"]).expect_code(0);
    check_input(&text, &["--set", "NODES=nonsense", "-"]).expect_code(3);
}

/// A rule that never matches is a warning, and an error with the option for that.
#[test]
fn warnings() {
    let text = policy(
        "shadowed",
        "{default: block, rules: [{name: all, action: allow, to: any}, \
         {name: never, action: block, to: [192.0.2.0/24]}]}",
    );
    let output = check_input(&text, &["-"]);
    output.expect_code(0);
    assert!(
        output.stderr.contains("never") && output.stderr.contains("warning"),
        "{}",
        output.stderr
    );
    check_input(&text, &["--deny-warnings", "-"]).expect_code(3);
}

/// Colours only on a terminal.
#[test]
fn colours() {
    assert!(!check_input(INVALID, &["-"]).stderr.contains('\u{1b}'));
    let always = check_input(INVALID, &["--color", "always", "-"]);
    assert!(always.stderr.contains('\u{1b}'), "{}", always.stderr);
    let mut command = tidegate(["check", "-"]);
    command
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped());
    let mut running = RunningCommand::spawn(&mut command);
    running.take_stdin().write_all(INVALID.as_bytes()).unwrap();
    assert!(!running.finish().stderr.contains('\u{1b}'), "NO_COLOR");
}

/// A closed output pipe does not cause a panic.
#[test]
fn closed_pipe() {
    let mut child = tidegate(["--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
}
