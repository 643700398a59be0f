//! Exit codes and output streams of the program, as a shell sees them. Needs no privileges.

use std::{
    io::Read,
    process::{Command, Output, Stdio},
};

fn tidegate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).stdin(Stdio::null());
    for variable in ["TIDEGATE_LOG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

#[expect(clippy::unwrap_used, reason = "a test's own function")]
fn run(args: &[&str]) -> Output {
    tidegate(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn usage_errors_are_2_and_help_is_0() {
    for args in [
        &[][..],
        &["nonsense"],
        &["exec", "true"],
        &["--output", "xml", "check", "x"],
        &["completions"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains("--help"),
            "{args:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["exec", "-h"], &["--version"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(text(&output.stdout).contains("tidegate"), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    // The first write fails with EPIPE.
    drop(reader);
    let mut child = tidegate(&["completions", "bash"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn output_that_cannot_be_written_is_1() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = tidegate(&["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("tidegate: error: cannot write to standard output: "));
}

#[test]
fn an_invalid_log_filter_is_reported_in_the_requested_format() {
    let wrong = |args: &[&str]| {
        let output = tidegate(args)
            .env("TIDEGATE_LOG", "tidegate=loud")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    let plain = wrong(&["completions", "bash"]);
    assert!(
        plain.starts_with("tidegate: error: cannot understand TIDEGATE_LOG=tidegate=loud: "),
        "{plain}"
    );
    assert!(plain.contains("\n  hint: write TIDEGATE_LOG=debug"), "{plain}");

    let coloured = wrong(&["completions", "bash", "--color", "always"]);
    assert!(coloured.contains("\x1b["), "{coloured:?}");

    let json = wrong(&["completions", "bash", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["error"]["exit_code"], 2);
}
