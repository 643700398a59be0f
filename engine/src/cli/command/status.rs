//! `tidegate status`: what stands where, and what it decided.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use super::{
    attached,
    status_text::{ago, bytes, grouped, table},
};
use crate::{
    cli::{Exit, Failure, Output, output::print},
    control::{AttachmentState, Enforcement, PolicyStatus, Status},
    events::{escape::escaped, json::document},
};

/// Show what stands where, and what it decided
///
/// A line for each place where a policy stands, with the attempts it decided over all its versions;
/// below, whatever is not as it should be.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Counters: ALLOWED silently, AUDITED (let through and reported), BLOCKED, KILLED. In audit mode nothing
is denied: what would have been is marked (would).

Exit codes:
  0 all that stands is enforced fully (or nothing stands); 1 could not run; 5 something is enforced
  in part, or not at all.")]
pub struct StatusArgs {}

/// Prints it.
///
/// # Errors
/// When journal or kernel cannot be read.
pub fn run(_args: &StatusArgs, output: Output) -> Result<ExitCode, Failure> {
    let status = match attached::open("status")? {
        Some(standing) => standing.status().map_err(attached::failed)?,
        None => Status::default(),
    };
    print(&match output {
        Output::Json => document(&json!(status)),
        Output::Text => text(&status),
    })?;
    let full = status
        .policies
        .iter()
        .all(|policy| policy.enforcement == Enforcement::Full);
    let full = full && status.unknown_cgroups.is_empty();
    Ok(if full { Exit::Fine } else { Exit::Partial }.into())
}

fn text(status: &Status) -> String {
    if status.policies.is_empty() && status.unknown_cgroups.is_empty() {
        return "nothing stands; `tidegate attach --help` tells how to put a policy on a cgroup\n".to_owned();
    }
    let header = [
        "POLICY", "CGROUP", "STATE", "MODE", "GEN", "SINCE", "ALLOWED", "AUDITED", "BLOCKED", "KILLED",
    ];
    let rows = status.policies.iter().flat_map(rows);
    let mut text = table(header, rows, &[4, 6, 7, 8, 9]);
    let mut problems = Vec::new();
    for policy in &status.policies {
        let gone = policy
            .attachments
            .iter()
            .filter(|there| there.state == AttachmentState::CgroupRemoved);
        problems.extend(gone.map(|there| {
            let (name, cgroup) = (&policy.name, escaped(there.cgroup.as_bytes()));
            format!(
                "{name}: the cgroup {cgroup} was removed, and the policy went with it; \
                 `tidegate detach {name} --cgroup {cgroup}` forgets it"
            )
        }));
        problems.extend(
            policy
                .reasons
                .iter()
                .map(|reason| format!("{}: {}", policy.name, escaped(reason.as_bytes()))),
        );
        if policy.totals.faults > 0 {
            problems.push(format!(
                "{}: {} attempts could not be judged, and were denied where it enforces",
                policy.name,
                grouped(policy.totals.faults)
            ));
        }
    }
    problems.extend(status.unknown_cgroups.iter().map(|cgroup| {
        format!(
            "the cgroup with the id {cgroup} carries policies that the journal does not name, and they hold; \
             `tidegate detach --all` takes everything away"
        )
    }));
    for problem in problems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "! {problem}");
    }
    if let Some(obstacle) = &status.lsm_unavailable_reason
        && !status.policies.is_empty()
    {
        let _ = writeln!(
            text,
            "LSM programs do not run here: {}. Sockets that were made in other cgroups are judged by the policies of those only, other families (vsock, packet, ...) and unix sockets not at all",
            escaped(obstacle.as_bytes())
        );
    }
    if let Some(obstacle) = &status.migration_unavailable_reason
        && !status.policies.is_empty()
    {
        let _ = writeln!(
            text,
            "processes that leave a cgroup are not reported here: {}",
            escaped(obstacle.as_bytes())
        );
    }
    let memory: u64 = status.policies.iter().map(|policy| policy.memory).sum();
    let _ = writeln!(
        text,
        "events: {} lost; {} repeats folded, {} of them still to be told; tables: {}",
        grouped(status.events_lost),
        grouped(status.suppressed),
        grouped(status.suppressed_pending),
        bytes(memory)
    );
    text
}

/// A row a place; the counters are the policy's, so they stand in its first row only.
fn rows(policy: &PolicyStatus) -> Vec<[String; 10]> {
    let totals = &policy.totals;
    let either = |done: u64, would: u64| match (done, would) {
        (done, 0) => grouped(done),
        (0, would) => format!("{} (would)", grouped(would)),
        (done, would) => format!("{} + {} (would)", grouped(done), grouped(would)),
    };
    let counters = [
        grouped(totals.allowed),
        grouped(totals.audited),
        either(totals.blocked, totals.would_block),
        either(totals.killed, totals.would_kill),
    ];
    let mut rows: Vec<[String; 10]> = Vec::new();
    for there in &policy.attachments {
        let [allowed, audited, blocked, killed] = match rows.is_empty() {
            true => counters.clone(),
            false => Default::default(),
        };
        rows.push([
            policy.name.clone(),
            escaped(there.cgroup.as_bytes()).to_string(),
            there.state.as_str().to_uppercase().replace('_', "-"),
            policy.mode.as_str().to_owned(),
            policy.generation.to_string(),
            ago(&there.since),
            allowed,
            audited,
            blocked,
            killed,
        ]);
    }
    rows
}
