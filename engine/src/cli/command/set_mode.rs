//! `tidegate set-mode`: from watching to acting, and back.

use std::process::ExitCode;

use engine_common::Mode;
use serde_json::json;

use super::{attached, exec::args::modes};
use crate::{
    cli::{Exit, Failure, Output, output::print},
    events::json::document,
};

/// Set whether a standing policy acts or only reports
///
/// At once, on all cgroups it stands on, as a new generation of the policy.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo tidegate set-mode shop audit
  sudo tidegate set-mode shop enforce

Exit codes:
  0 done; 1 could not run, or there is no such policy; 2 the command line is wrong; 5 done, but this
  kernel cannot do all of what the policy says (--best-effort).")]
pub struct SetModeArgs {
    /// Name the policy stands under
    #[arg(value_name = "NAME")]
    pub name: String,

    /// enforce carries block and kill out, audit only reports them
    #[arg(value_name = "MODE", value_parser = modes())]
    pub mode: Mode,

    /// Take what this kernel can do of the policy, where it cannot do all
    #[arg(long)]
    pub best_effort: bool,
}

/// Sets it.
///
/// # Errors
/// When there is no such policy.
pub fn run(args: &SetModeArgs, output: Output) -> Result<ExitCode, Failure> {
    let Some(mut standing) = attached::open("set-mode")? else {
        return attached::nothing_attached(&args.name);
    };
    let applied = standing.set_mode(&args.name, args.mode, args.best_effort);
    let applied = applied.map_err(attached::failed)?;
    print(&match output {
        Output::Json => document(&json!(applied)),
        Output::Text => {
            let reasons = applied
                .partial
                .iter()
                .map(|reason| format!("  partial: {reason}\n"));
            format!(
                "{} is in mode {} (generation {})\n{}",
                applied.policy,
                applied.mode.as_str(),
                applied.generation,
                reasons.collect::<String>()
            )
        }
    })?;
    let partial = !applied.partial.is_empty();
    Ok(if partial { Exit::Partial } else { Exit::Fine }.into())
}
