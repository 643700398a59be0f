//! `tidegate policy list` and `tidegate policy stats`: the policies that stand, and what they decided.

use std::{fmt::Write, process::ExitCode};

use serde_json::json;

use super::{
    attached,
    policy_args::StatsArgs,
    status_text::{grouped, table},
};
use crate::{
    cli::{Exit, Failure, Output, output::print},
    control::{PolicyStatus, Status},
    events::{escape::escaped, json::document},
};

fn status(command: &str) -> Result<Option<Status>, Failure> {
    let standing = attached::open(command)?;
    standing
        .map(|standing| standing.status().map_err(attached::failed))
        .transpose()
}

/// Lists the policies that stand, a line each.
///
/// # Errors
/// When journal or kernel cannot be read.
pub fn list(output: Output) -> Result<ExitCode, Failure> {
    let policies = status("policy list")?.map_or_else(Vec::new, |status| status.policies);
    print(&match output {
        Output::Json => {
            let short = policies.iter().map(|policy| {
                json!({
                    "name": policy.name, "mode": policy.mode.as_str(), "generation": policy.generation,
                    "enforcement": policy.enforcement, "source": policy.source,
                    "rules": policy.rules.len(),
                    "cgroups": policy.attachments.iter().map(|there| &there.cgroup).collect::<Vec<_>>(),
                })
            });
            document(&json!({"policies": short.collect::<Vec<_>>()}))
        }
        Output::Text if policies.is_empty() => "nothing stands\n".to_owned(),
        Output::Text => table(
            ["POLICY", "MODE", "GENERATION", "RULES", "CGROUPS", "SOURCE"],
            policies.iter().map(|policy| {
                [
                    policy.name.clone(),
                    policy.mode.as_str().to_owned(),
                    policy.generation.to_string(),
                    policy.rules.len().to_string(),
                    policy.attachments.len().to_string(),
                    escaped(policy.source.as_bytes()).to_string(),
                ]
            }),
            &[2, 3, 4],
        ),
    })?;
    Ok(Exit::Fine.into())
}

/// Prints what each rule decided.
///
/// # Errors
/// When there is no such policy, or journal or kernel cannot be read.
pub fn stats(args: &StatsArgs, output: Output) -> Result<ExitCode, Failure> {
    let mut policies = status("policy stats")?.map_or_else(Vec::new, |status| status.policies);
    if let Some(name) = &args.name {
        let attached = policies.iter().map(|policy| policy.name.clone()).collect();
        policies.retain(|policy| policy.name == *name);
        if policies.is_empty() {
            return Err(attached::failed(crate::control::ControlError::NotAttached {
                name: name.clone(),
                attached,
            }));
        }
    }
    print(&match output {
        Output::Json => {
            let of = |policy: &PolicyStatus| {
                json!({
                    "name": policy.name, "mode": policy.mode.as_str(), "generation": policy.generation,
                    "rules": policy.rules, "default": policy.default, "totals": policy.totals,
                })
            };
            document(&json!({"policies": policies.iter().map(of).collect::<Vec<_>>()}))
        }
        Output::Text if policies.is_empty() => "nothing stands\n".to_owned(),
        Output::Text => policies.iter().map(text).collect::<Vec<_>>().join("\n"),
    })?;
    Ok(Exit::Fine.into())
}

fn text(policy: &PolicyStatus) -> String {
    let mut text = format!(
        "policy {} ({}, generation {})\n",
        policy.name,
        policy.mode.as_str(),
        policy.generation
    );
    let rows = policy.rules.iter().chain([&policy.default]).map(|rule| {
        let in_all = match rule.name.as_str() {
            "(default)" => policy.totals.default,
            name => policy.totals.rules.get(name).copied().unwrap_or(0),
        };
        [
            rule.name.clone(),
            rule.action.as_str().to_owned(),
            grouped(rule.attempts),
            grouped(in_all),
        ]
    });
    text += &table(["RULE", "ACTION", "ATTEMPTS", "IN ALL VERSIONS"], rows, &[2, 3]);
    if policy.totals.faults > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} faults: attempts that could not be judged",
            grouped(policy.totals.faults)
        );
    }
    text
}
