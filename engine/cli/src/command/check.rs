//! `tidegate check`: errors and warnings of policy files.

use std::{io::Write, path::PathBuf, process::ExitCode};

use crate::{
    Exit,
    help::HelpEnd,
    output::{self, Output},
    variable_args::VariableArgs,
};
use tidegate_core::{
    digits::grouped,
    policy::{LoadResult, Policy},
};

/// Check policy files for errors and warnings
///
/// Use it before you apply a policy, and in CI. Reports all errors of each file with line, column and a suggested
/// fix. A warning marks a likely mistake in a valid policy, such as a rule that never matches. Needs no privileges
/// and reads no kernel state.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct CheckArgs {
    /// Policy files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,

    /// Treat warnings as errors
    #[arg(long)]
    pub deny_warnings: bool,
}

fn help() -> String {
    HelpEnd {
        examples: &[
            ("Check a policy", &["tidegate check shop.yaml"]),
            (
                "Check several policies, and set a variable that one of them uses",
                &["tidegate check --set PODCIDR=10.244.0.0/16 policies/*.yaml"],
            ),
            (
                "Check standard input and print the diagnostics as JSON",
                &["tidegate check --output json - < shop.yaml"],
            ),
        ],
        exits: &[
            (Exit::Success, "all policies are valid"),
            (Exit::CouldNotRun, "a file cannot be read"),
            (Exit::Usage, "invalid command line"),
            (
                Exit::PolicyInvalid,
                "a policy has errors, or warnings with --deny-warnings",
            ),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Checks the files and prints their diagnostics.
pub fn run(args: &CheckArgs, output: Output) -> ExitCode {
    let context = args.variables.context();
    let mut worst = Finding::Valid;
    let mut documents = Vec::new();
    let mut stdout = anstream::stdout();
    let mut stderr = anstream::stderr();
    for file in &args.files {
        let loaded = super::policy_files::load(file, &context);
        let finding = Finding::of(&loaded, args.deny_warnings);
        worst = worst.max(finding);
        match output {
            Output::Json => documents.push(document(&loaded, finding)),
            Output::Text => {
                // When the output is closed, only the exit code is left.
                if !loaded.diagnostics.is_empty() {
                    let _ = writeln!(stderr, "{}", loaded.render(true));
                }
                let _ = match summary(&loaded, finding) {
                    Ok(valid) => writeln!(stdout, "{valid}"),
                    Err(invalid) => writeln!(stderr, "{invalid}"),
                };
            }
        }
    }
    if output == Output::Json {
        let text = output::document(&serde_json::json!({ "files": documents }));
        // As above.
        let _ = stdout.write_all(text.as_bytes());
    }
    worst.exit_code()
}

/// The result for a file, in the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    Valid,
    Invalid,
    Unreadable,
}

impl Finding {
    fn of(loaded: &LoadResult, deny_warnings: bool) -> Finding {
        match loaded {
            _ if loaded.unreadable => Finding::Unreadable,
            _ if loaded.has_errors() || (deny_warnings && loaded.has_warnings()) => Finding::Invalid,
            _ => Finding::Valid,
        }
    }

    fn exit_code(self) -> ExitCode {
        let exit = match self {
            Finding::Valid => Exit::Success,
            Finding::Unreadable => Exit::CouldNotRun,
            Finding::Invalid => Exit::PolicyInvalid,
        };
        exit.into()
    }
}

/// The last line about a file; `Err` goes to standard error.
fn summary(loaded: &LoadResult, finding: Finding) -> Result<String, String> {
    let file = &loaded.file;
    match (&loaded.policy, finding) {
        (Some(policy), Finding::Valid) => Ok(format!(
            "{file}: policy \"{}\" is valid: {}, {}",
            policy.name,
            counted(policy.rules.len(), "rule", "rules"),
            counted(loaded.cidrs, "address", "addresses"),
        )),
        (Some(policy), _) => Err(format!(
            "{file}: policy \"{}\" has warnings (--deny-warnings)",
            policy.name
        )),
        (None, Finding::Unreadable) => Err(format!("{file}: cannot be read")),
        (None, _) => Err(format!(
            "{file}: not valid: {}",
            counted(loaded.errors, "error", "errors")
        )),
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(count as u64),
        if count == 1 { one } else { many }
    )
}

fn document(loaded: &LoadResult, finding: Finding) -> serde_json::Value {
    let about = |policy: &Policy| {
        serde_json::json!({
            "name": policy.name,
            "mode": policy.mode.as_str(),
            "default": policy.default.as_str(),
            "rules": policy.rules.len(),
            "cidrs": loaded.cidrs,
        })
    };
    serde_json::json!({
        "file": loaded.file,
        "valid": finding == Finding::Valid,
        "policy": loaded.policy.as_ref().map(about),
        "diagnostics": loaded.to_json(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::command::policy_files::load;
    use tidegate_core::policy::{self, LoadContext};

    const VALID: &str = "apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {name: p}\n";

    fn loaded(spec: &str) -> LoadResult {
        policy::load_text(
            "p.yaml",
            &format!("{VALID}spec: {spec}\n"),
            Path::new(""),
            &LoadContext::default(),
        )
    }

    #[test]
    fn results_and_their_lines() {
        let valid = loaded("{default: block}");
        let finding = Finding::of(&valid, true);
        assert_eq!(
            summary(&valid, finding).unwrap(),
            "p.yaml: policy \"p\" is valid: 0 rules, 0 addresses"
        );

        let invalid = loaded("{default: deny}");
        let finding = Finding::of(&invalid, false);
        assert_eq!(
            summary(&invalid, finding).unwrap_err(),
            "p.yaml: not valid: 1 error"
        );

        let warned = loaded("{default: block, sets: {unused: [10.0.0.0/8]}}");
        assert_eq!(Finding::of(&warned, false), Finding::Valid);
        assert_eq!(Finding::of(&warned, true), Finding::Invalid);

        let missing = load(Path::new("/nonexistent/p.yaml"), &LoadContext::default());
        assert_eq!(Finding::of(&missing, false), Finding::Unreadable);
    }

    #[test]
    fn the_document_has_codes_and_positions() {
        let loaded = loaded("{default: block, mode: audit, extra: 1}");
        let document = document(&loaded, Finding::of(&loaded, false));
        assert_eq!(document["valid"], false);
        assert_eq!(document["policy"], serde_json::Value::Null);
        let fault = &document["diagnostics"][0];
        assert_eq!(fault["code"], "unknown_field");
        assert_eq!((&fault["line"], &fault["text"]), (&4.into(), &"extra".into()));
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!(counted(1, "rule", "rules"), "1 rule");
        assert_eq!(counted(1204, "address", "addresses"), "1,204 addresses");
        assert_eq!(counted(1_000_000, "", "").trim(), "1,000,000");
    }
}
