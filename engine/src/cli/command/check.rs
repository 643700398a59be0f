//! `tidegate check`: whether policies are valid, and what they probably do not mean to say.

use std::{io::Write, path::PathBuf, process::ExitCode};

use crate::{
    cli::{output::Output, variable::VariableArgs},
    policy::{LoadResult, Policy},
};

/// Check policy files
///
/// Reports every fault of each file with its line and column and what to write instead. Needs no
/// privileges and changes nothing.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  every policy is valid
  1  a file could not be read
  2  the command line is wrong
  3  a policy is not valid (or, with --deny-warnings, has a warning)

Examples:
  tidegate check payments.yaml
  tidegate check --set PODCIDR=10.244.0.0/16 --set SERVICECIDR=10.96.0.0/12 policies/*.yaml
  generate-policy | tidegate check -")]
pub struct CheckArgs {
    /// Policy files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,

    /// Take a policy with warnings for invalid
    #[arg(long)]
    pub deny_warnings: bool,
}

/// Checks the files and prints what there is to say.
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
                // Where a reader is gone, the exit code still tells.
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
        let all = serde_json::json!({ "files": documents });
        // As above.
        let _ = writeln!(stdout, "{all:#}");
    }
    worst.exit_code()
}

/// What was found about a file, mildest first.
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
        ExitCode::from(match self {
            Finding::Valid => 0,
            Finding::Unreadable => 1,
            Finding::Invalid => 3,
        })
    }
}

/// The line that ends the report of a file; `Err` for standard error.
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
            "{file}: policy \"{}\" is refused for its warnings (--deny-warnings)",
            policy.name
        )),
        (None, Finding::Unreadable) => Err(format!("{file}: could not be read")),
        (None, _) => Err(format!(
            "{file}: not valid: {}",
            counted(loaded.errors, "error", "errors")
        )),
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{out} {}", if count == 1 { one } else { many })
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
    use crate::{
        cli::command::policy_files::load,
        policy::{self, LoadContext},
    };

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
    fn findings_and_their_lines() {
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
    fn the_document_has_what_programs_need() {
        let loaded = loaded("{default: block, mode: audit, extra: 1}");
        let document = document(&loaded, Finding::of(&loaded, false));
        assert_eq!(document["valid"], false);
        assert_eq!(document["policy"], serde_json::Value::Null);
        let fault = &document["diagnostics"][0];
        assert_eq!(fault["code"], "unknown_field");
        assert_eq!((&fault["line"], &fault["text"]), (&4.into(), &"extra".into()));
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(counted(1, "rule", "rules"), "1 rule");
        assert_eq!(counted(1204, "address", "addresses"), "1,204 addresses");
        assert_eq!(counted(1_000_000, "", "").trim(), "1,000,000");
    }
}
