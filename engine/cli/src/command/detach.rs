//! `tidegate detach`: detaches policies from cgroups.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use super::{attached, cgroup_args::CgroupArgs};
use crate::{
    Exit, Failure, Output, environment,
    help::HelpEnd,
    output::{document, print},
};
use tidegate_core::{
    control::{Control, DetachOutcome, DetachTarget},
    events::escape::escaped,
};

/// Detach a policy from its cgroups
///
/// Use it to stop enforcing a policy, on one cgroup or on all. Existing connections continue. `--all` detaches
/// all policies of all cgroups and removes everything that tidegate keeps: programs, maps, unread events and records,
/// and the loaded programs of `exec`. It also works when that state is damaged. Needs root.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true).args(["name", "all"]),
    after_help = help()
)]
pub struct DetachArgs {
    /// Name of the attached policy
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Detach all policies of all cgroups, and remove programs, maps, unread events and records
    #[arg(long, conflicts_with_all = CgroupArgs::OPTIONS)]
    pub all: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub cgroup: CgroupArgs,
}

fn help() -> String {
    HelpEnd {
        examples: &[
            (
                "Detach a policy from all its cgroups",
                &["sudo tidegate detach shop"],
            ),
            (
                "Detach it from one service only",
                &["sudo tidegate detach shop --unit shop.service"],
            ),
            (
                "Detach all policies, and remove everything",
                &["sudo tidegate detach --all"],
            ),
        ],
        exits: &[
            (Exit::Success, "detached; with --all also if nothing was attached"),
            (Exit::CouldNotRun, "could not run, or no such policy is attached"),
            (Exit::Usage, "invalid command line"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Detaches.
///
/// # Errors
/// When no such policy is attached, or the kernel refuses a step.
pub fn run(args: &DetachArgs, output: Output) -> Result<ExitCode, Failure> {
    let detached = match &args.name {
        None => return everything(output),
        Some(name) => {
            let Some(mut control) = attached::open("detach")? else {
                return attached::nothing_attached(name);
            };
            let only = target(args, &control)?;
            vec![control.detach(name, only.as_ref()).map_err(attached::failed)?]
        }
    };
    report(&detached, output)
}

fn report(detached: &[DetachOutcome], output: Output) -> Result<ExitCode, Failure> {
    print(&match output {
        Output::Json => document(&json!({ "detached": detached })),
        Output::Text => text(detached),
    })?;
    Ok(Exit::Success.into())
}

/// Removes everything, also when records or pins are damaged or missing.
fn everything(output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("detach")?;
    let invocation = environment::invocation()?;
    let opened = Control::open(&invocation, attached::hierarchy()?, attached::waiting);
    let detached = opened.and_then(|control| control.map_or_else(|| Ok(Vec::new()), Control::detach_all));
    let why = match &detached {
        Ok(detached) if !detached.is_empty() => return report(detached, output),
        Ok(_) => "it was not recorded".to_owned(),
        Err(error) => error.to_string(),
    };
    let was_there = Control::remove_everything(&invocation, attached::waiting).map_err(attached::failed)?;
    if was_there && output == Output::Text {
        return print(&format!(
            "removed everything that tidegate had pinned or recorded ({why})\n"
        ));
    }
    report(&[], output)
}

/// The selected cgroup. A removed cgroup is found by its path in the records.
fn target(args: &DetachArgs, control: &Control) -> Result<Option<DetachTarget>, Failure> {
    let hierarchy = control.hierarchy();
    let missing = match args.cgroup.locate(hierarchy) {
        Ok(found) => return Ok(found.map(DetachTarget::Cgroup)),
        Err(missing) => missing,
    };
    let Some(path) = &args.cgroup.cgroup else {
        return Err(missing);
    };
    let path = hierarchy.hierarchy_path(path);
    let records = control.records().map_err(attached::failed)?;
    let mut attachments = records.iter().flat_map(|record| &record.attachments);
    match attachments.any(|attachment| *attachment.path == *path) {
        true => Ok(Some(DetachTarget::Removed(path))),
        false => Err(missing),
    }
}

fn text(detached: &[DetachOutcome]) -> String {
    if detached.is_empty() {
        return "no policies attached\n".to_owned();
    }
    let mut text = String::new();
    for one in detached {
        let elsewhere = if one.still_attached {
            "; it is still attached to other cgroups"
        } else {
            ""
        };
        let cgroups = one
            .cgroups
            .iter()
            .map(|path| escaped(path.as_bytes()).to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "detached policy {} from {}{elsewhere}",
            one.policy,
            cgroups.collect::<Vec<_>>().join(", ")
        );
    }
    text
}
