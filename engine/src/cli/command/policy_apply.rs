//! `tidegate policy apply`: another version of a standing policy.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{Args, ValueHint};
use serde_json::json;

use super::{attach::full_path, attached, policy_files};
use crate::{
    cli::{Exit, Failure, Output, output::print, variable::VariableArgs},
    control::{ApplyOutcome, Change},
    events::json,
};

/// Arguments of `tidegate policy apply`.
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// Policy file; `-` is standard input
    #[arg(long = "file", short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Name it stands under, instead of the policy's own
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Take what this kernel can do of the policy, where it cannot do all
    #[arg(long)]
    pub best_effort: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

/// Applies.
///
/// # Errors
/// When the policy is not valid or does not stand; the live version stays.
pub fn run(args: &ApplyArgs, output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("policy apply")?;
    let files = std::slice::from_ref(&args.file);
    let policies = policy_files::load_all(files, &args.variables.context(), output, Exit::CouldNotRun)?;
    let Some(sourced) = policies.into_iter().next() else {
        return Err(Failure::of(Exit::Usage, "there is no policy"));
    };
    let name = args.name.clone().unwrap_or_else(|| sourced.policy.name.clone());
    let Some(mut standing) = attached::open("policy apply")? else {
        return attached::nothing_attached(&name);
    };
    let source = full_path(&sourced.source);
    let change = standing
        .change(&name, &sourced.policy, &source, args.best_effort)
        .map_err(attached::failed)?;
    let partial = !change.partial.is_empty();
    let nothing = change.diff.is_empty();
    let told = told(&change, args.dry_run, output);
    let applied = if args.dry_run || nothing {
        None
    } else {
        Some(standing.apply(change).map_err(attached::failed)?)
    };
    print(&told(applied.as_ref()))?;
    Ok(if partial { Exit::Partial } else { Exit::Fine }.into())
}

/// What to print once the change was made, or was not. The text of the change comes first: who sees an error
/// after it knows what was tried.
fn told(
    change: &Change,
    dry_run: bool,
    output: Output,
) -> impl FnOnce(Option<&ApplyOutcome>) -> String + use<> {
    let heading = format!(
        "policy {}: generation {} -> {}",
        change.name, change.old_generation, change.new_generation
    );
    let rendered = change.diff.render();
    let nothing = change.diff.is_empty();
    let document = json!({
        "policy": change.name,
        "from_generation": change.old_generation,
        "to_generation": change.new_generation,
        "changes": change.diff,
        "partial": change.partial,
        "dry_run": dry_run,
    });
    if output == Output::Text && !nothing {
        // Where the reader is gone, the change is made all the same.
        let _ = write!(anstream::stdout(), "{heading}\n{rendered}");
    }
    let name = change.name.clone();
    move |applied| match (output, applied) {
        (Output::Json, applied) => {
            let mut document = document;
            document["applied"] = json!(applied.is_some());
            json::document(&document)
        }
        (Output::Text, Some(applied)) => {
            let reasons = applied
                .partial
                .iter()
                .map(|reason| format!("  partial: {reason}\n"));
            format!(
                "{} is live in generation {} ({})\n{}",
                applied.policy,
                applied.generation,
                applied.mode.as_str(),
                reasons.collect::<String>()
            )
        }
        (Output::Text, None) if nothing => format!("policy {name}: nothing changes\n"),
        (Output::Text, None) => "nothing was changed (--dry-run)\n".to_owned(),
    }
}
