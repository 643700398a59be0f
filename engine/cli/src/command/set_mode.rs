//! `tidegate set-mode`: switches an attached policy between audit and enforce.

use std::process::ExitCode;

use engine_common::Mode;
use serde_json::json;

use super::{attached, exec::args::modes};
use crate::{
    Exit, Failure, Output,
    help::HelpEnd,
    output::{document, print},
};

/// Switch an attached policy between audit and enforce mode
///
/// Use it to enforce a policy after its events have shown that it denies the right connections. The mode changes on
/// all cgroups of the policy in one atomic step, as a new version: its generation is one higher. The next `apply` sets
/// the mode of the file again. Needs root.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct SetModeArgs {
    /// Name of the attached policy
    #[arg(value_name = "NAME")]
    pub name: String,

    /// The new mode
    #[arg(value_name = "MODE", value_parser = modes())]
    pub mode: Mode,

    /// Switch the mode even if this kernel can enforce only a part of the policy
    #[arg(long)]
    pub best_effort: bool,
}

fn help() -> String {
    HelpEnd {
        examples: &[
            ("Enforce a policy", &["sudo tidegate set-mode shop enforce"]),
            (
                "Stop denying, and only report",
                &["sudo tidegate set-mode shop audit"],
            ),
        ],
        exits: &[
            (Exit::Success, "the policy is in this mode"),
            (Exit::CouldNotRun, "could not run, or no such policy is attached"),
            (Exit::Usage, "invalid command line"),
            (Exit::Partial, "not fully enforced (--best-effort)"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Sets the mode.
///
/// # Errors
/// When no such policy is attached, or it cannot be in this mode.
pub fn run(args: &SetModeArgs, output: Output) -> Result<ExitCode, Failure> {
    let Some(mut control) = attached::open("set-mode")? else {
        return attached::nothing_attached(&args.name);
    };
    let applied = control.set_mode(&args.name, args.mode, args.best_effort);
    let applied = applied.map_err(attached::failed)?;
    print(&match output {
        Output::Json => document(&json!(applied)),
        Output::Text => {
            format!(
                "policy {} is now in mode {} (generation {})\n{}",
                applied.policy,
                applied.mode.as_str(),
                applied.generation,
                attached::partial_lines(&applied.partial)
            )
        }
    })?;
    let partial = !applied.partial.is_empty();
    Ok(if partial { Exit::Partial } else { Exit::Success }.into())
}
