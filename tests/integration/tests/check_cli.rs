//! `tidegate check`, from the outside: exit codes, both forms of output, standard input. Needs no root.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::{io::Write, process::Stdio};

use integration::{
    captured::{Captured, Ended},
    exec::{policy, tidegate},
    shared_file::SharedFolder,
};

const VALID: &str = "{default: block, rules: [{name: web, action: allow, to: [192.0.2.0/24], ports: [443]}]}";

/// Three faults in one file, each at a place of its own.
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

fn check(words: &[&str]) -> Ended {
    let mut all = vec!["check"];
    all.extend(words);
    Captured::run(&mut tidegate(all))
}

fn check_input(text: &str, words: &[&str]) -> Ended {
    let mut all = vec!["check"];
    all.extend(words);
    let mut running = Captured::spawn(tidegate(all).stdin(Stdio::piped()));
    running.take_stdin().write_all(text.as_bytes()).unwrap();
    running.finish()
}

#[test]
fn valid_policy() {
    let folder = SharedFolder::create();
    let file = folder.write("valid.yaml", &policy("valid", VALID));
    let ended = check(&[file.to_str().unwrap()]);
    ended.expect_code(0);
    assert!(ended.stdout.contains("is valid"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "");
}

#[test]
fn all_errors_with_locations() {
    let folder = SharedFolder::create();
    let file = folder.write("invalid.yaml", INVALID);
    let ended = check(&[file.to_str().unwrap()]);
    ended.expect_code(3);
    for part in [
        "invalid.yaml:5:",
        "deny",
        "invalid.yaml:9:",
        "192.0.2.0/24",
        "invalid.yaml:13:",
        "90-80",
    ] {
        assert!(ended.stderr.contains(part), "no {part} in\n{}", ended.stderr);
    }
    assert_eq!(ended.stdout, "");
}

#[test]
fn errors_as_json() {
    let folder = SharedFolder::create();
    let valid = folder.write("valid.yaml", &policy("valid", VALID));
    let invalid = folder.write("invalid.yaml", INVALID);
    let ended = check(&[
        "--output",
        "json",
        valid.to_str().unwrap(),
        invalid.to_str().unwrap(),
    ]);
    ended.expect_code(3);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let files = document["files"].as_array().unwrap();
    assert_eq!(
        (&files[0]["valid"], &files[1]["valid"]),
        (&true.into(), &false.into())
    );
    let lines: Vec<_> = files[1]["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [5, 9, 13]);
}

#[test]
fn from_standard_input() {
    check_input(&policy("piped", VALID), &["-"]).expect_code(0);
    let ended = check_input(INVALID, &["-"]);
    ended.expect_code(3);
    assert!(ended.stderr.contains("<stdin>:5:"), "{}", ended.stderr);
}

#[test]
fn missing_file() {
    let ended = check(&["/no/such/policy.yaml"]);
    ended.expect_code(1);
    assert!(ended.stderr.contains("/no/such/policy.yaml"), "{}", ended.stderr);
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
    let ended = check_input(&text, &["-"]);
    ended.expect_code(3);
    assert!(
        ended.stderr.contains("NODES") && ended.stderr.contains("<stdin>:4:"),
        "{}",
        ended.stderr
    );
    check_input(&text, &["--set", "NODES=10.0.0.1 10.0.0.2,10.0.0.3", "-"]).expect_code(0);
    check_input(&text, &["--set", "NODES=nonsense", "-"]).expect_code(3);
}

/// A rule that an earlier one leaves nothing to is a warning, and an error where that is asked for.
#[test]
fn warnings() {
    let text = policy(
        "shadowed",
        "{default: block, rules: [{name: all, action: allow, to: any}, \
         {name: never, action: block, to: [192.0.2.0/24]}]}",
    );
    let ended = check_input(&text, &["-"]);
    ended.expect_code(0);
    assert!(
        ended.stderr.contains("never") && ended.stderr.contains("warning"),
        "{}",
        ended.stderr
    );
    check_input(&text, &["--deny-warnings", "-"]).expect_code(3);
}

/// Colours only where somebody sees them.
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
    let mut running = Captured::spawn(&mut command);
    running.take_stdin().write_all(INVALID.as_bytes()).unwrap();
    assert!(!running.finish().stderr.contains('\u{1b}'), "NO_COLOR");
}

/// A reader that goes away is no reason to panic.
#[test]
fn closed_pipe() {
    let mut child = tidegate(["--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
}
