//! `tidegate policy show`: one attached policy, as it is in the kernel.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use super::{
    attached,
    policy_args::ShowArgs,
    rule_counters::counters_of_rules,
    status::{self, attachment_state},
    units::{ago, bytes},
};
use crate::{
    Exit, Failure, Output,
    output::{document, print, print_unchanged},
};
use tidegate_core::{
    control::{PolicyState, PolicyStatus},
    events::escape::escaped,
};

/// Prints the policy.
///
/// # Errors
/// When no such policy is attached, or its state cannot be read.
pub fn run(args: &ShowArgs, output: Output) -> Result<ExitCode, Failure> {
    let Some(control) = attached::open("policy show")? else {
        return attached::nothing_attached(&args.name);
    };
    let state = control.policy_state(&args.name).map_err(attached::failed)?;
    if args.text {
        return print_unchanged(&state.definition.text);
    }
    let status = status::read_from(&control, Some(&args.name))?;
    let Some(policy) = status.policies.first() else {
        return attached::nothing_attached(&args.name);
    };
    print(&match output {
        Output::Json => json(policy, &state),
        Output::Text => text(policy, &state),
    })?;
    Ok(Exit::Success.into())
}

fn json(policy: &PolicyStatus, state: &PolicyState) -> String {
    let PolicyState { definition, .. } = state;
    let mut object = json!(policy);
    object["text"] = json!(definition.text);
    object["variables"] = json!(definition.variables);
    object["base_dir"] = json!(definition.base_dir);
    object["origin"] = json!(state.origin);
    document(&json!({ "policy": object }))
}

fn text(policy: &PolicyStatus, state: &PolicyState) -> String {
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
    row("origin", state.origin.as_str());
    for (name, value) in state.definition.variables.iter() {
        row("variable", &format!("{name}={}", escaped(value.as_bytes())));
    }
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
    text = text + "\n" + &counters_of_rules(policy) + "\n";
    for line in state.definition.text.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", escaped(line.as_bytes()));
    }
    text
}
