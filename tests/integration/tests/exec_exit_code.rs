//! The exit code of `tidegate exec` is the command's; its own failures are 125 to 127, as env(1) and
//! others have them.

use std::{os::unix::process::CommandExt, path::Path};

use integration::{
    captured::Captured,
    exec::{Gate, tidegate},
    requirement::{Need, met, tidegate_bin},
    shared_file::SharedFolder,
};

fn root(test: &str) -> bool {
    met(test, &[Need::Root])
}

fn gate() -> Gate {
    Gate::with("{default: allow}")
}

#[test]
fn exit_code_of_the_command() {
    if !root("exit_code_of_the_command") {
        return;
    }
    for code in [0, 1, 3, 42, 125, 255] {
        let gate = gate();
        gate.run(["/bin/sh", "-c", &format!("exit {code}")])
            .expect_code(code);
        let exit = gate.report().summary.exit;
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
        let gate = gate();
        gate.run(["/bin/sh", "-c", &format!("kill -{name} $$")])
            .expect_code(128 + number);
        let exit = gate.report().summary.exit;
        assert_eq!((exit.code, exit.signal), (None, Some(number)));
    }
}

#[test]
fn not_found() {
    if !root("not_found") {
        return;
    }
    let gate = gate();
    for command in ["no-such-program-anywhere", "/no/such/program"] {
        let ended = gate.run([command]);
        ended.expect_code(127);
        assert!(ended.stderr.contains(command), "{}", ended.stderr);
    }
    assert!(gate.cgroup().children().is_empty());
}

#[test]
fn not_executable() {
    if !root("not_executable") {
        return;
    }
    let gate = gate();
    let file = gate.folder().write("plain", "no program\n");
    for command in [file.as_path(), Path::new("/")] {
        let ended = gate.run([command]);
        ended.expect_code(126);
        assert!(
            ended.stderr.contains(&command.display().to_string()),
            "{}",
            ended.stderr
        );
    }
    assert!(gate.cgroup().children().is_empty());
}

#[test]
fn invalid_command_line() {
    for words in [
        vec!["exec"],
        vec!["exec", "--default", "allow"],
        vec!["exec", "--default", "deny", "--", "true"],
        vec!["exec", "--allow", "10.0.0.1/8", "--", "true"],
        vec!["exec", "--no-such-flag", "--", "true"],
        vec!["exec", "true"],
    ] {
        let ended = Captured::run(&mut tidegate(&words));
        ended.expect_code(2);
        assert!(!ended.stderr.is_empty() && ended.stdout.is_empty(), "{words:?}");
    }
}

/// The command must not have run: it would have left a file.
#[test]
fn invalid_policy() {
    if !root("invalid_policy") {
        return;
    }
    let folder = SharedFolder::create();
    let invalid = folder.write("invalid.yaml", "apiVersion: tidegate.io/v1\nkind: Nonsense\n");
    let missing = folder.path().join("missing.yaml");
    let trace = folder.path().join("trace");
    for (policy, codes) in [(&invalid, [3, 125]), (&missing, [125, 125])] {
        let ended = Captured::run(&mut tidegate([
            "exec".as_ref(),
            "--policy".as_ref(),
            policy.as_os_str(),
            "--".as_ref(),
            "touch".as_ref(),
            trace.as_os_str(),
        ]));
        let code = ended.code().unwrap();
        assert!(codes.contains(&code), "{code}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(policy.to_str().unwrap()),
            "the file is named: {}",
            ended.stderr
        );
        assert!(!trace.exists(), "the command was not started");
    }
}

/// Somebody without rights is told in one sentence what is needed and how to get it.
#[test]
fn unprivileged_user() {
    if !root("unprivileged_user") {
        return;
    }
    let folder = SharedFolder::create();
    let program = folder.copy_program(&tidegate_bin(), "tidegate");
    let trace = folder.path().join("trace");
    let mut command = std::process::Command::new(program);
    command
        .args(["exec", "--default", "block", "--", "touch"])
        .arg(&trace)
        .uid(65534)
        .gid(65534);
    let ended = Captured::run(&mut command);
    ended.expect_code(125);
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("needs root") && ended.stderr.contains("sudo"),
        "{}",
        ended.stderr
    );
    assert!(!trace.exists());
}
