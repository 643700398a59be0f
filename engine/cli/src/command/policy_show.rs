//! `tidegate policy show`: one attached policy, as it is in the kernel.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use super::{
    attached,
    policy_args::ShowArgs,
    status::{self, attachment_state},
    status_text::{ago, bytes, counters_of_rules},
};
use crate::{
    Exit, Failure, Output,
    output::{document, print},
};
use tidegate_core::{control::PolicyStatus, events::escape::escaped};

/// Prints the policy.
///
/// # Errors
/// When no such policy is attached, or its state cannot be read.
pub fn run(args: &ShowArgs, output: Output) -> Result<ExitCode, Failure> {
    let status = status::read("policy show", Some(&args.name))?;
    let Some(policy) = status.policies.first() else {
        return attached::nothing_attached(&args.name);
    };
    print(&match output {
        Output::Json => document(&json!({ "policy": policy })),
        Output::Text => text(policy),
    })?;
    Ok(Exit::Success.into())
}

fn text(policy: &PolicyStatus) -> String {
    let mut text = format!("policy {}\n", policy.name);
    let mut row = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {key:<12} {value}");
    };
    row("mode", policy.mode.as_str());
    row(
        "generation",
        &format!(
            "{} (since {}, by {})",
            policy.generation,
            ago(&policy.since),
            policy.by
        ),
    );
    row("source", &escaped(policy.source.as_bytes()).to_string());
    row("enforcement", policy.enforcement.as_str());
    row("memory", &bytes(policy.memory));
    for attachment in &policy.attachments {
        let cgroup = escaped(attachment.cgroup.as_bytes());
        row(
            "cgroup",
            &format!("{cgroup} ({})", attachment_state(attachment.state)),
        );
    }
    for reason in &policy.reasons {
        row("problem", &escaped(reason.as_bytes()).to_string());
    }
    text + "\n" + &counters_of_rules(policy)
}
