use clap::{CommandFactory, error::ErrorKind};
use engine_common::{Action, Mode};

use super::*;
use crate::cli::command::exec::args::{KeptFds, Survivors};

fn exec(line: &[&str]) -> Result<ExecArgs, clap::Error> {
    let line = ["tidegate", "exec"].iter().chain(line);
    match Cli::try_parse_from(line)?.command {
        Command::Exec(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn rules_keep_the_order_of_the_command_line() {
    let args = exec(&[
        "--deny",
        "a",
        "--allow",
        "b",
        "--allow=c",
        "--deny=d",
        "--allow",
        "e",
        "--",
        "true",
    ])
    .unwrap();
    let rules: Vec<(Action, &str)> = args
        .rule_flags
        .rules()
        .iter()
        .map(|(a, s)| (*a, s.as_str()))
        .collect();
    assert_eq!(
        rules,
        [
            (Action::Block, "a"),
            (Action::Allow, "b"),
            (Action::Allow, "c"),
            (Action::Block, "d"),
            (Action::Allow, "e"),
        ]
    );
}

#[test]
fn exec_has_sensible_defaults() {
    let args = exec(&[
        "-p", "a.yaml", "--policy", "b.yaml", "--", "npm", "ci", "--allow", "x",
    ])
    .unwrap();
    assert_eq!(args.policy.len(), 2);
    assert_eq!(args.command, ["npm", "ci", "--allow", "x"]);
    assert_eq!((args.default, args.mode), (None, None));
    assert_eq!(
        (args.keep_fds, args.descendants),
        (KeptFds::Standard, Survivors::End)
    );
    assert!(args.rule_flags.rules().is_empty() && args.report.is_none());
    assert!(!args.quiet && !args.live);
}

#[test]
fn exec_understands_its_flags() {
    let line = [
        "--default=kill",
        "--mode",
        "audit",
        "--keep-fds",
        "4,3,4",
        "--keep-capability",
        "CAP_NET_RAW,CAP_BPF",
        "--descendants",
        "wait",
        "--user",
        "nobody",
        "--set",
        "A=b",
        "--env",
        "-q",
        "--live",
        "--report",
        "-",
        "--",
        "x",
    ];
    let args = exec(&line).unwrap();
    assert_eq!((args.default, args.mode), (Some(Action::Kill), Some(Mode::Audit)));
    assert_eq!(args.keep_fds, KeptFds::Also(vec![3, 4]));
    assert_eq!(args.keep_capability, ["CAP_NET_RAW", "CAP_BPF"]);
    assert_eq!(
        (args.descendants, args.user.as_deref()),
        (Survivors::Wait, Some("nobody"))
    );
    assert_eq!(args.variables.set, [("A".to_owned(), "b".to_owned())]);
    assert!(args.variables.env && args.quiet && args.live);
    let args = exec(&["--default", "allow", "--keep-fds=all", "--", "x"]).unwrap();
    assert_eq!(args.keep_fds, KeptFds::All);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    use ErrorKind::{InvalidValue, MissingRequiredArgument, UnknownArgument, ValueValidation};
    let cases: [(&[&str], ErrorKind); 8] = [
        (&["--", "true"], MissingRequiredArgument),
        (&["--mode", "audit", "--", "true"], MissingRequiredArgument),
        (&["--default", "allow"], MissingRequiredArgument),
        (&["--default", "deny", "--", "true"], InvalidValue),
        (&["--default", "allow", "true"], UnknownArgument),
        (
            &["--default", "allow", "--keep-fds", "1", "--", "true"],
            ValueValidation,
        ),
        (
            &["--default", "allow", "--keep-fds", "3,x", "--", "true"],
            ValueValidation,
        ),
        (
            &["--default", "allow", "--keep-fds=-1", "--", "true"],
            ValueValidation,
        ),
    ];
    for (line, kind) in cases {
        let error = exec(line).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line:?}: {error}");
    }
}

#[test]
fn global_flags_may_stand_after_the_command() {
    let cli = Cli::try_parse_from([
        "tidegate",
        "check",
        "--output=json",
        "a.yaml",
        "--color",
        "never",
        "-vv",
    ])
    .unwrap();
    assert_eq!(
        (cli.output, cli.color, cli.verbose),
        (Output::Json, ColorChoice::Never, 2)
    );
}

/// The help texts, so that a change of them is seen.
#[test]
fn help() {
    let mut texts = String::new();
    for path in [
        &[][..],
        &["exec"],
        &["check"],
        &["explain"],
        &["policy"],
        &["policy", "dump"],
        &["probe"],
        &["selftest"],
        &["completions"],
    ] {
        let line = ["tidegate"].iter().chain(path).chain(&["--help"]);
        let command = Cli::command().term_width(100);
        let error = command.try_get_matches_from(line).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayHelp);
        let line: String = path.iter().map(|word| format!("{word} ")).collect();
        texts += &format!("$ tidegate {line}--help\n{error}\n");
    }
    insta::assert_snapshot!(texts);
}
