//! `tidegate status`: attached policies, their counters, and problems.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use super::{
    attached,
    rule_counters::counters_of_rules,
    text_table::Column,
    units::{ago, bytes},
};
use crate::{
    Exit, Failure, Output,
    help::HelpEnd,
    output::{document, print},
};
use tidegate_core::{
    control::{AttachmentState, AttachmentStatus, Control, ControlError, PolicyStatus, Status, Totals},
    digits::grouped,
    events::escape::escaped,
    host::Enforcement,
};

/// Show attached policies, their counters, and problems
///
/// Use it to see which policies are attached to which cgroups, whether they are fully enforced, and how many
/// attempts they decided. An attempt is a call that a policy checks: a connect, a datagram with an address, or the
/// creation of a socket. There is one line for each cgroup of a policy; problems follow below the table. State and
/// counters are read from the kernel. Needs root.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct StatusArgs {
    /// Show this policy only, with the counters of its rules
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Show the counters of the rules of all policies
    #[arg(long)]
    pub rules: bool,
}

fn help() -> String {
    HelpEnd {
        notes: &[
            "STATE is ACTIVE (the kernel applies the policy to the cgroup, in the MODE beside it), INACTIVE (the policy \
             is recorded but the kernel does not apply it) or CGROUP-REMOVED (the cgroup was removed, and the attachment \
             with it).",
            "GEN is the generation, the number of the active version: 1 after `attach`, and one more after each `apply` \
             and `set-mode`. Counters are exact and cover all generations. If a policy has several cgroups, its counters \
             are on the first line only. ALLOWED attempts are not reported as events. AUDITED attempts are allowed and \
             reported. In audit mode nothing is denied: WOULD_BLOCK and WOULD_KILL count what enforce mode would have \
             denied.",
            "Duplicates are repeats of an attempt within the time that `deduplicate` sets. They are counted and not \
             reported one by one; the next event of the same attempt has their number (`repeats`).",
        ],
        examples: &[
            ("Show all attached policies", &["sudo tidegate status"]),
            ("Show how often each rule of a policy decided", &["sudo tidegate status shop"]),
            (
                "List the policies that are not fully enforced",
                &[
                    "sudo tidegate status --output json |",
                    "  jq '.policies[] | select(.enforcement != \"full\") | .name'",
                ],
            ),
        ],
        exits: &[
            (Exit::Success, "all policies are fully enforced, or none is attached"),
            (Exit::CouldNotRun, "could not run, or no such policy is attached"),
            (Exit::Usage, "invalid command line"),
            (Exit::Partial, "a policy is not fully enforced, or not at all"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Prints the status.
///
/// # Errors
/// When the state cannot be read, or the named policy is not attached.
pub fn run(args: &StatusArgs, output: Output) -> Result<ExitCode, Failure> {
    let status = read("status", args.name.as_deref())?;
    print(&match output {
        Output::Json => document(&json!(status)),
        Output::Text => text(&status, args.rules || args.name.is_some()),
    })?;
    let full = status
        .policies
        .iter()
        .all(|policy| policy.enforcement == Enforcement::Full);
    let full = full && (args.name.is_some() || status.unknown_cgroups.is_empty());
    Ok(if full { Exit::Success } else { Exit::Partial }.into())
}

/// Reads the status of all attached policies, or of one.
///
/// # Errors
/// When the state cannot be read, or `name` is not attached.
pub(super) fn read(command: &str, name: Option<&str>) -> Result<Status, Failure> {
    match (attached::open(command)?, name) {
        (Some(control), _) => read_from(&control, name),
        (None, None) => Ok(Status::default()),
        (None, Some(name)) => attached::nothing_attached(name),
    }
}

/// The same from an opened state.
///
/// # Errors
/// As [`read`].
pub(super) fn read_from(control: &Control, name: Option<&str>) -> Result<Status, Failure> {
    let mut status = control.status().map_err(attached::failed)?;
    if let Some(name) = name {
        let all: Vec<String> = status.policies.iter().map(|policy| policy.name.clone()).collect();
        status.policies.retain(|policy| policy.name == name);
        if status.policies.is_empty() {
            return Err(attached::failed(ControlError::NotAttached {
                name: name.to_owned(),
                attached: all,
            }));
        }
    }
    Ok(status)
}

/// The state of an attachment in text output.
pub(super) fn attachment_state(state: AttachmentState) -> &'static str {
    match state {
        AttachmentState::Active => "ACTIVE",
        AttachmentState::CgroupRemoved => "CGROUP-REMOVED",
        AttachmentState::Inactive => "INACTIVE",
    }
}

fn text(status: &Status, with_rules: bool) -> String {
    if status.policies.is_empty() && status.unknown_cgroups.is_empty() {
        return "no policies attached\n".to_owned();
    }
    let rows = status.policies.iter().flat_map(|policy| {
        let attachments = policy.attachments.iter().enumerate();
        attachments.map(move |(i, attachment)| Row {
            policy,
            attachment,
            is_first: i == 0,
        })
    });
    let mut text = Column::table(&columns(), rows);
    for problem in problems(status) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "! {problem}");
    }
    for note in notes(status) {
        let _ = writeln!(text, "note: {note}");
    }
    let memory: u64 = status.policies.iter().map(|policy| policy.memory).sum();
    let _ = writeln!(
        text,
        "events: {} lost; {} duplicates suppressed, of which {} are not yet in an event; memory: {}",
        grouped(status.events_lost),
        grouped(status.suppressed),
        grouped(status.suppressed_pending),
        bytes(memory)
    );
    if with_rules {
        for policy in &status.policies {
            let _ = writeln!(
                text,
                "\npolicy {} (mode {}, generation {})",
                policy.name,
                policy.mode.as_str(),
                policy.generation
            );
            text += &counters_of_rules(policy);
        }
    }
    text
}

fn problems(status: &Status) -> Vec<String> {
    let mut problems = Vec::new();
    for policy in &status.policies {
        let removed = policy
            .attachments
            .iter()
            .filter(|attachment| attachment.state == AttachmentState::CgroupRemoved);
        problems.extend(removed.map(|attachment| {
            let (name, cgroup) = (&policy.name, escaped(attachment.cgroup.as_bytes()));
            format!(
                "{name}: the cgroup {cgroup} was removed, which detached the policy from it; \
                 `tidegate detach {name} --cgroup {cgroup}` deletes the record"
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
                "{}: {} attempts could not be evaluated (fault); in mode enforce they were denied",
                policy.name,
                grouped(policy.totals.faults)
            ));
        }
    }
    problems.extend(status.unknown_cgroups.iter().map(|cgroup| {
        format!(
            "the cgroup with id {cgroup} has policies attached that are not recorded, and they are enforced; \
             `tidegate detach --all` removes all policies"
        )
    }));
    problems
}

/// Features that this kernel lacks. They make a policy partial only if it requires them; that is among its problems.
fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    if status.policies.is_empty() {
        return notes;
    }
    if let Some(reason) = &status.lsm_unavailable_reason {
        notes.push(format!(
            "LSM programs are not available: {}. A socket that was created in another cgroup is checked by the policies \
             of that cgroup only; unix sockets and other address families (vsock, packet, ...) are not checked",
            escaped(reason.as_bytes())
        ));
    }
    if let Some(reason) = &status.migration_unavailable_reason {
        notes.push(format!(
            "cgroup migrations are not reported: {}",
            escaped(reason.as_bytes())
        ));
    }
    notes
}

/// A row: one attachment of a policy.
struct Row<'a> {
    policy: &'a PolicyStatus,
    attachment: &'a AttachmentStatus,
    /// The first row of its policy: the others repeat no counters.
    is_first: bool,
}

/// The columns. A new column is a new line here.
fn columns<'a>() -> [Column<Row<'a>>; 14] {
    [
        Column::text("POLICY", |row| row.policy.name.clone()),
        Column::text("CGROUP", |row| {
            escaped(row.attachment.cgroup.as_bytes()).to_string()
        }),
        Column::text("STATE", |row| attachment_state(row.attachment.state).to_owned()),
        Column::text("MODE", |row| row.policy.mode.as_str().to_owned()),
        Column::number("GEN", |row| row.policy.generation.to_string()),
        Column::text("SINCE", |row| ago(&row.attachment.since)),
        Column::number("RULES", |row| row.policy.rules.len().to_string()),
        Column::number("ALLOWED", |row| counter(row, |totals| totals.allowed)),
        Column::number("AUDITED", |row| counter(row, |totals| totals.audited)),
        Column::number("WOULD_BLOCK", |row| counter(row, |totals| totals.would_block)),
        Column::number("WOULD_KILL", |row| counter(row, |totals| totals.would_kill)),
        Column::number("BLOCKED", |row| counter(row, |totals| totals.blocked)),
        Column::number("KILLED", |row| counter(row, |totals| totals.killed)),
        Column::text("SOURCE", |row| escaped(row.policy.source.as_bytes()).to_string()),
    ]
}

/// A counter of the policy, in its first row only.
fn counter(row: &Row<'_>, of: fn(&Totals) -> u64) -> String {
    match row.is_first {
        true => grouped(of(&row.policy.totals)),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_policies_there_is_one_line() {
        assert_eq!(text(&Status::default(), true), "no policies attached\n");
    }
}
