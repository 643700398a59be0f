//! `tidegate detach`: takes standing policies away.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use super::attached::{self, CgroupArgs};
use crate::{
    cli::{Exit, Failure, Output, environment, output::print},
    control::{Control, DetachOutcome, DetachTarget},
    events::{escape::escaped, json::document},
};

/// Take a standing policy away
///
/// From one cgroup, or from all on which it stands. `--all` takes every policy away, and with them the
/// programs and tables in the kernel and the events that nobody has read.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true).args(["name", "all"]),
    after_help = "\
Examples:
  sudo tidegate detach shop
  sudo tidegate detach shop --unit shop.service
  sudo tidegate detach --all

Exit codes:
  0 done; 1 could not run, or there is no such policy; 2 the command line is wrong."
)]
pub struct DetachArgs {
    /// Name the policy stands under
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Every policy
    #[arg(long, conflicts_with_all = ["cgroup", "unit", "pid", "host"])]
    pub all: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub cgroup: CgroupArgs,
}

/// Detaches.
///
/// # Errors
/// When there is nothing like that, or something resists.
pub fn run(args: &DetachArgs, output: Output) -> Result<ExitCode, Failure> {
    let detached = match &args.name {
        None => return everything(output),
        Some(name) => {
            let Some(mut standing) = attached::open("detach")? else {
                return attached::nothing_attached(name);
            };
            let only = place(args, &standing)?;
            vec![standing.detach(name, only.as_ref()).map_err(attached::failed)?]
        }
    };
    tell(&detached, output)
}

fn tell(detached: &[DetachOutcome], output: Output) -> Result<ExitCode, Failure> {
    print(&match output {
        Output::Json => document(&json!({ "detached": detached })),
        Output::Text => text(detached),
    })?;
    Ok(Exit::Fine.into())
}

/// The way out, whatever state things are in.
fn everything(output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("detach")?;
    let invocation = environment::invocation()?;
    let opened = Control::open(&invocation, attached::hierarchy()?, attached::waiting);
    let detached = opened.and_then(|standing| standing.map_or_else(|| Ok(Vec::new()), Control::detach_all));
    let why = match &detached {
        Ok(detached) if !detached.is_empty() => return tell(detached, output),
        Ok(_) => "no record named it".to_owned(),
        Err(error) => error.to_string(),
    };
    let was_there = Control::remove_everything(&invocation, attached::waiting).map_err(attached::failed)?;
    if was_there && output == Output::Text {
        return print(&format!("everything was taken away, whatever it was ({why})\n"));
    }
    tell(&[], output)
}

/// The cgroup that is named; one that was removed is known by its path alone.
fn place(args: &DetachArgs, standing: &Control) -> Result<Option<DetachTarget>, Failure> {
    let hierarchy = standing.hierarchy();
    let missing = match args.cgroup.locate(hierarchy) {
        Ok(found) => return Ok(found.map(DetachTarget::Cgroup)),
        Err(missing) => missing,
    };
    let Some(path) = &args.cgroup.cgroup else {
        return Err(missing);
    };
    let path = hierarchy.spelled(path);
    let records = standing.records().map_err(attached::failed)?;
    let mut places = records.iter().flat_map(|record| &record.attachments);
    match places.any(|there| *there.path == *path) {
        true => Ok(Some(DetachTarget::Removed(path))),
        false => Err(missing),
    }
}

fn text(detached: &[DetachOutcome]) -> String {
    if detached.is_empty() {
        return "nothing stood\n".to_owned();
    }
    let mut text = String::new();
    for one in detached {
        let elsewhere = if one.still_attached {
            "; it stands elsewhere still"
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
            "{} was taken away from {}{elsewhere}",
            one.policy,
            cgroups.collect::<Vec<_>>().join(", ")
        );
    }
    text
}
