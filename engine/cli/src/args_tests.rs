use clap::{Command as Definition, CommandFactory, error::ErrorKind};
use engine_common::{Action, Mode};

use super::*;
use crate::command::exec::args::{DescendantsAction, KeptFds};

fn exec(line: &[&str]) -> Result<ExecArgs, clap::Error> {
    let line = ["tidegate", "exec"].iter().chain(line);
    match Cli::try_parse_from(line)?.command {
        Command::Exec(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
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
fn exec_defaults() {
    let args = exec(&[
        "-p", "a.yaml", "--policy", "b.yaml", "--", "npm", "ci", "--allow", "x",
    ])
    .unwrap();
    assert_eq!(args.policy.len(), 2);
    assert_eq!(args.command, ["npm", "ci", "--allow", "x"]);
    assert_eq!((args.default, args.mode), (None, None));
    assert_eq!(
        (args.keep_fds, args.descendants),
        (KeptFds::Standard, DescendantsAction::End)
    );
    assert!(args.rule_flags.rules().is_empty() && args.report.is_none());
    assert!(!args.quiet && !args.live);
}

#[test]
fn exec_flags() {
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
        (DescendantsAction::Wait, Some("nobody"))
    );
    assert_eq!(args.variables.set, [("A".to_owned(), "b".to_owned())]);
    assert!(args.variables.env && args.quiet && args.live);
    let args = exec(&["--default", "allow", "--keep-fds=all", "--", "x"]).unwrap();
    assert_eq!(args.keep_fds, KeptFds::All);
}

#[test]
fn invalid_command_lines_are_usage_errors() {
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
fn global_options_are_accepted_after_the_command() {
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

/// The help text of a command, wrapped at `width` columns.
fn help_of(path: &[String], width: usize) -> String {
    let line = ["tidegate"]
        .into_iter()
        .chain(path.iter().map(String::as_str))
        .chain(["--help"]);
    let error = Cli::command()
        .term_width(width)
        .try_get_matches_from(line)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    error.to_string()
}

/// The paths of all commands that the help lists, such as `policy dump`.
fn commands() -> Vec<Vec<String>> {
    fn visit(definition: &Definition, path: &[String], found: &mut Vec<Vec<String>>) {
        found.push(path.to_vec());
        for command in definition
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            visit(command, &[path, &[command.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    visit(&Cli::command(), &[], &mut found);
    found
}

#[test]
fn help() {
    let mut texts = String::new();
    for path in commands() {
        let line: String = path.iter().map(|word| format!("{word} ")).collect();
        texts += &format!("$ tidegate {line}--help\n{}\n", help_of(&path, 100));
    }
    insta::assert_snapshot!(texts);
}

/// Examples can be copied, and tables are not broken.
#[test]
fn examples_and_exit_codes_are_not_wrapped_at_80_columns() {
    for path in commands() {
        let end = |width| {
            let text = help_of(&path, width);
            let start = text
                .find("\nExamples:")
                .unwrap_or_else(|| panic!("{path:?} has no examples"));
            assert!(text[start..].contains("\nExit codes:\n"), "{path:?}");
            text[start..].to_owned()
        };
        assert_eq!(end(80), end(100), "{path:?}");
    }
}

#[test]
fn help_is_never_wider_than_the_terminal() {
    for path in commands() {
        for width in [80, 100] {
            let text = help_of(&path, width);
            let usage = |line: &&str| line.starts_with("Usage:");
            let too_long = text
                .lines()
                .filter(|line| !usage(line))
                .find(|line| line.chars().count() > width);
            assert_eq!(too_long, None, "{path:?} at {width} columns");
        }
    }
}
