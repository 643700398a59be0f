//! `tidegate apply`: replaces an attached policy by a new version.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{Args, ValueHint};
use serde_json::json;

use super::{attach::full_path, attached, policy_files};
use crate::{
    Exit, Failure, Output,
    help::HelpEnd,
    output::{document, print},
    variable_args::VariableArgs,
};
use tidegate_core::control::{ApplyOutcome, Change};

/// Replace an attached policy by a new version
///
/// Use it to change the rules of a policy without detaching it. The version changes on all its cgroups in one atomic
/// step: each attempt is decided by the old version or by the new one. If the new version is not valid or cannot be
/// fully enforced, the old version stays active. Prints the difference in rules and addresses. Needs root.
///
/// The policy gets the mode of the file. A file without `mode` means enforce, also if the policy was attached with
/// `--mode audit` or is in audit mode by `set-mode`: add `mode: audit` to the file to stay in audit mode.
#[derive(Clone, Debug, Args)]
#[command(after_help = help())]
pub struct ApplyArgs {
    /// Policy file; `-` is standard input
    #[arg(long = "file", short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Name of the attached policy, if it differs from the name in the file
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Print the difference and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Apply the policy even if this kernel can enforce only a part of it
    #[arg(long)]
    pub best_effort: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

fn help() -> String {
    HelpEnd {
        notes: &["Connected sockets keep their connection, unless the policy has `strict: true`."],
        examples: &[
            (
                "Show what a new version would change",
                &["sudo tidegate apply -f shop.yaml --dry-run"],
            ),
            ("Replace the policy", &["sudo tidegate apply -f shop.yaml"]),
            (
                "Replace the policy that is attached under another name",
                &["sudo tidegate apply -f shop-2.yaml --name shop"],
            ),
        ],
        exits: &[
            (Exit::Success, "the new version is active, or nothing differs"),
            (Exit::CouldNotRun, "could not run, or no such policy is attached"),
            (Exit::Usage, "invalid command line"),
            (Exit::PolicyInvalid, "the policy is not valid"),
            (Exit::Partial, "active, but not fully enforced (--best-effort)"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Applies the file.
///
/// # Errors
/// When the policy is not valid, not attached, or cannot be enforced; the old version then stays active.
pub fn run(args: &ApplyArgs, output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("apply")?;
    let files = std::slice::from_ref(&args.file);
    let policies = policy_files::load_all(files, &args.variables.context(), output, Exit::CouldNotRun)?;
    let Some(sourced) = policies.into_iter().next() else {
        return Err(Failure::of(Exit::Usage, "no policy given"));
    };
    let name = args.name.clone().unwrap_or_else(|| sourced.policy.name.clone());
    let Some(mut control) = attached::open("apply")? else {
        return attached::nothing_attached(&name);
    };
    let source = full_path(&sourced.source);
    let change = control
        .change(
            &name,
            &sourced.policy,
            &source,
            &sourced.definition,
            args.best_effort,
        )
        .map_err(attached::failed)?;
    let partial = !change.partial.is_empty();
    let nothing = change.diff.is_empty();
    let format = format_change(&change, args.dry_run, output);
    let applied = if args.dry_run || nothing {
        None
    } else {
        Some(control.apply(change).map_err(attached::failed)?)
    };
    print(&format(applied.as_ref()))?;
    Ok(if partial { Exit::Partial } else { Exit::Success }.into())
}

/// Prints the difference as text, and returns what formats the rest once the change was made or skipped: an error
/// in between is then preceded by what was tried.
fn format_change(
    change: &Change,
    dry_run: bool,
    output: Output,
) -> impl FnOnce(Option<&ApplyOutcome>) -> String + use<> {
    let heading = format!(
        "policy {}: generation {} -> {}",
        change.name, change.old_generation, change.new_generation
    );
    let nothing = change.diff.is_empty();
    let object = json!({
        "policy": change.name,
        "from_generation": change.old_generation,
        "to_generation": change.new_generation,
        "changes": change.diff,
        "partial": change.partial,
        "dry_run": dry_run,
    });
    if output == Output::Text && !nothing {
        // A closed standard output does not stop the change.
        let _ = write!(anstream::stdout(), "{heading}\n{}", change.diff.render());
    }
    let name = change.name.clone();
    move |applied| match (output, applied) {
        (Output::Json, applied) => {
            let mut object = object;
            object["applied"] = json!(applied.is_some());
            document(&object)
        }
        (Output::Text, Some(applied)) => format!(
            "applied policy {} (mode {}, generation {})\n{}",
            applied.policy,
            applied.mode.as_str(),
            applied.generation,
            attached::partial_lines(&applied.partial)
        ),
        (Output::Text, None) if nothing => format!("policy {name}: no changes\n"),
        (Output::Text, None) => "nothing was changed (--dry-run)\n".to_owned(),
    }
}
