//! The exit code of `tidegate exec` is that of the command; its own errors are 125 to 127, like env(1).

use std::{os::unix::process::CommandExt, path::Path};

use integration::{
    exec::{Exec, tidegate},
    requirement::{Need, met, tidegate_bin},
    running_command::RunningCommand,
    shared_dir::SharedDir,
};

fn root(test: &str) -> bool {
    met(test, &[Need::Root])
}

fn exec() -> Exec {
    Exec::with("{default: allow}")
}

#[test]
fn exit_code_of_the_command() {
    if !root("exit_code_of_the_command") {
        return;
    }
    for code in [0, 1, 3, 42, 125, 255] {
        let exec = exec();
        exec.run(["/bin/sh", "-c", &format!("exit {code}")])
            .expect_code(code);
        let exit = exec.report().summary.exit;
        assert_eq!((exit.code, exit.signal), (Some(code), None));
    }
}

#[test]
fn death_by_signal() {
    if !root("death_by_signal") {
        return;
    }
    for (name, number) in [
        ("TERM", libc::SIGTERM),
        ("KILL", libc::SIGKILL),
        ("SEGV", libc::SIGSEGV),
        ("INT", libc::SIGINT),
    ] {
        let exec = exec();
        exec.run(["/bin/sh", "-c", &format!("kill -{name} $$")])
            .expect_code(128 + number);
        let exit = exec.report().summary.exit;
        assert_eq!((exit.code, exit.signal), (None, Some(number)));
    }
}

#[test]
fn not_found() {
    if !root("not_found") {
        return;
    }
    let exec = exec();
    for command in ["no-such-program-anywhere", "/no/such/program"] {
        let output = exec.run([command]);
        output.expect_code(127);
        assert!(output.stderr.contains(command), "{}", output.stderr);
    }
    assert!(exec.cgroup().children().is_empty());
}

#[test]
fn not_executable() {
    if !root("not_executable") {
        return;
    }
    let exec = exec();
    let file = exec.dir().write("plain", "no program\n");
    for command in [file.as_path(), Path::new("/")] {
        let output = exec.run([command]);
        output.expect_code(126);
        assert!(
            output.stderr.contains(&command.display().to_string()),
            "{}",
            output.stderr
        );
    }
    assert!(exec.cgroup().children().is_empty());
}

#[test]
fn invalid_command_line() {
    for args in [
        vec!["exec"],
        vec!["exec", "--default", "allow"],
        vec!["exec", "--default", "deny", "--", "true"],
        vec!["exec", "--allow", "10.0.0.1/8", "--", "true"],
        vec!["exec", "--no-such-flag", "--", "true"],
        vec!["exec", "true"],
    ] {
        let output = RunningCommand::run(&mut tidegate(&args));
        output.expect_code(2);
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
    }
}

/// The command must not run: it would create a file.
#[test]
fn invalid_policy() {
    if !root("invalid_policy") {
        return;
    }
    let dir = SharedDir::create();
    let invalid = dir.write("invalid.yaml", "apiVersion: tidegate.io/v1\nkind: Nonsense\n");
    let missing = dir.path().join("missing.yaml");
    let trace = dir.path().join("trace");
    for (policy, codes) in [(&invalid, [3, 125]), (&missing, [125, 125])] {
        let output = RunningCommand::run(&mut tidegate([
            "exec".as_ref(),
            "--policy".as_ref(),
            policy.as_os_str(),
            "--".as_ref(),
            "touch".as_ref(),
            trace.as_os_str(),
        ]));
        let code = output.code().unwrap();
        assert!(codes.contains(&code), "{code}: {}", output.stderr);
        assert!(
            output.stderr.contains(policy.to_str().unwrap()),
            "the file is named: {}",
            output.stderr
        );
        assert!(!trace.exists(), "the command was not started");
    }
}

/// An unprivileged user gets a short message with what is missing and how to get it.
#[test]
fn unprivileged_user() {
    if !root("unprivileged_user") {
        return;
    }
    let dir = SharedDir::create();
    let program = dir.copy_program(&tidegate_bin(), "tidegate");
    let trace = dir.path().join("trace");
    let mut command = std::process::Command::new(program);
    command
        .args(["exec", "--default", "block", "--", "touch"])
        .arg(&trace)
        .uid(65534)
        .gid(65534);
    let output = RunningCommand::run(&mut command);
    output.expect_code(125);
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert!(
        matches!(lines[..], [error, hint] if error.contains("needs root") && hint.contains("sudo")),
        "{}",
        output.stderr
    );
    assert!(!trace.exists());
}
