//! The program as a shell sees it: exit codes, streams, closed pipes. Needs no privileges.

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

#[expect(clippy::unwrap_used, reason = "test code")]
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
        let is_help = args.is_empty();
        assert_eq!(
            !is_help,
            text(&output.stderr).starts_with("tidegate: error: "),
            "{args:?}"
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
fn renamed_commands_are_usage_errors_that_name_the_new_command() {
    for (old, new) in [
        (
            &["policy", "apply", "-f", "x.yaml"][..],
            "tidegate: error: `policy apply` is now `tidegate apply`\n",
        ),
        (
            &["policy", "list"],
            "tidegate: error: `policy list` is now `tidegate status`\n",
        ),
        (
            &["policy", "stats", "shop"],
            "tidegate: error: `policy stats` is now `tidegate status --rules`\n",
        ),
    ] {
        let output = run(old);
        assert_eq!(output.status.code(), Some(2), "{old:?}");
        assert!(text(&output.stderr).starts_with(new), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{old:?}");
    }
}

#[test]
fn a_reader_that_closes_the_pipe_is_not_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    // Without a reader the first write fails.
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
fn an_invalid_log_filter_is_reported_in_the_output_format() {
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
        plain.starts_with(
            "tidegate: error: invalid log filter TIDEGATE_LOG=tidegate=loud: `loud` is not a level"
        ),
        "{plain}"
    );
    assert!(
        plain.contains("\n  hint: use a level (error, warn, info, debug, trace)"),
        "{plain}"
    );

    let coloured = wrong(&["completions", "bash", "--color", "always"]);
    assert!(coloured.contains("\x1b["), "{coloured:?}");

    let json = wrong(&["completions", "bash", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["error"]["exit_code"], 2);
}
