//! `tidegate explain`: evaluates policies for one attempt.

use std::{fmt::Write, net::IpAddr, process::ExitCode};

use engine_common::{Action, ExecutableId, Protocol};
use serde::Serialize;

use super::{attached, explain_args::ExplainArgs, policy_files};
use crate::{
    Exit, Failure, Output,
    output::{document, print},
};
use tidegate_core::{
    compile::{
        Explanation, Identities,
        diff::PolicyDiff,
        explain::{UNKNOWN_EXECUTABLE, attempt_at},
        oracle::Mismatch,
    },
    control::LivePolicy,
    policy::{Policy, Target, parse_target},
};

#[derive(Serialize)]
struct Document<'a> {
    to: String,
    protocol: String,
    uid: u32,
    binary: Option<String>,
    denied: bool,
    verdict: &'static str,
    policies: &'a [Explanation],
    /// Of --live: whether the text still compiles to the image in the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    live: Vec<LiveImage<'a>>,
}

#[derive(Serialize)]
struct LiveImage<'a> {
    policy: &'a str,
    equals_live: bool,
    changes: &'a PolicyDiff,
}

/// Evaluates the policies and prints the verdicts with their reasons.
///
/// # Errors
/// When the destination cannot be parsed, a policy is not valid, or one of --live is not attached.
pub fn run(args: &ExplainArgs, output: Output) -> Result<ExitCode, Failure> {
    let target = parse_target(&args.to).map_err(|e| Failure::by(Exit::Usage, &e))?;
    let context = args.variables.context();
    let policies = policy_files::load_all(&args.policy, &context, output, Exit::CouldNotRun)?;
    let live = live_policies(&args.live)?;
    let uid = args.uid.unwrap_or_else(|| nix::unistd::getuid().as_raw());
    let mut explanations = Vec::new();
    let of_files = policies.iter().map(|sourced| &sourced.policy);
    for policy in of_files.chain(live.iter().map(|live| &live.policy)) {
        explanations.push(evaluate(policy, &target, uid, args)?);
    }
    let strictest = explanations.iter().max_by_key(|e| strictness(e));
    let denied = explanations.iter().any(|e| e.denied);
    let text = match output {
        Output::Text => {
            let mut text = String::new();
            for explanation in &explanations {
                text += &render(explanation, &target);
            }
            for live in &live {
                text += &different_image(live);
            }
            if let (Some(strictest), true) = (strictest, explanations.len() > 1) {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "all policies: {} (the strictest verdict is enforced)",
                    strictest.outcome
                );
            }
            text
        }
        Output::Json => document(&Document {
            to: args.to.clone(),
            protocol: protocol_of(&target).to_string(),
            uid,
            binary: args.binary.as_ref().map(|path| path.display().to_string()),
            denied,
            verdict: strictest.map_or("allow", |e| e.verdict),
            policies: &explanations,
            live: live
                .iter()
                .map(|live| LiveImage {
                    policy: &live.state.name,
                    equals_live: live.diff.is_empty(),
                    changes: &live.diff,
                })
                .collect(),
        }),
    };
    print(&text)?;
    Ok(if denied { Exit::Denied } else { Exit::Success }.into())
}

/// The attached policies with these names, compiled again from their texts.
fn live_policies(names: &[String]) -> Result<Vec<LivePolicy>, Failure> {
    let Some(first) = names.first() else {
        return Ok(Vec::new());
    };
    let Some(control) = attached::open("explain --live")? else {
        return attached::nothing_attached(first);
    };
    let read = |name: &String| control.live_policy(name).map_err(attached::failed);
    names.iter().map(read).collect()
}

/// What to know about a live policy whose text compiles to another image now; empty if it does not.
fn different_image(live: &LivePolicy) -> String {
    if live.diff.is_empty() {
        return String::new();
    }
    let name = &live.state.name;
    format!(
        "note: the text of policy {name} now compiles to another image than the live one: an executable, an address file \
         or a name server has changed. The kernel uses the live image. `tidegate apply` would change:\n{}",
        live.diff.render()
    )
}

fn evaluate(policy: &Policy, target: &Target, uid: u32, args: &ExplainArgs) -> Result<Explanation, Failure> {
    // Executables are compared by path: the policy may be for another machine.
    let executables = Identities::synthetic(policy);
    let named = args.binary.as_ref().and_then(|path| executables.executable(path));
    let executable: ExecutableId = named.unwrap_or(UNKNOWN_EXECUTABLE);
    let explanation = match target {
        Target::Destination(target) => {
            let attempt = attempt_at(target.address, target.port, target.protocol, uid, executable);
            tidegate_core::compile::explain(policy, &executables, &attempt)
        }
        Target::Unix(name) => {
            tidegate_core::compile::explain_unix(policy, &executables, name, uid, executable)
        }
    };
    explanation.map_err(|e| Failure::by(Exit::CouldNotRun, &e))
}

fn protocol_of(target: &Target) -> Protocol {
    match target {
        Target::Destination(target) => target.protocol,
        Target::Unix(_) => Protocol::UNIX,
    }
}

/// Orders verdicts by strictness. In audit mode a verdict does not deny.
fn strictness(explanation: &Explanation) -> (bool, Option<Action>) {
    let action = Action::ALL
        .into_iter()
        .find(|a| a.as_str() == explanation.verdict);
    (explanation.denied, action)
}

fn render(explanation: &Explanation, target: &Target) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_explanation(&mut text, explanation, target);
    text
}

fn write_explanation(text: &mut String, e: &Explanation, target: &Target) -> std::fmt::Result {
    let by = match &e.rule {
        Some(rule) => format!("rule `{rule}`"),
        None if e.unix.is_some() => "no rule: unix sockets that no rule names are allowed".to_owned(),
        None => "the default (no rule matches)".to_owned(),
    };
    let errno = e
        .errno
        .map(|errno| format!("; the call fails with {errno}"))
        .unwrap_or_default();
    writeln!(text, "{}: {} by {by}{errno}", e.policy, e.outcome)?;
    if let (Target::Destination(target), Some(destination)) = (target, e.destination) {
        if destination != target.address {
            writeln!(text, "  {} is checked as {destination}", target.address)?;
        }
        if target.address.to_canonical().is_unspecified() {
            writeln!(text, "  {}", of_unspecified(target.address))?;
        }
        if let Some(inside) = e.embedded_ipv4 {
            writeln!(
                text,
                "  {destination} contains {inside}: both are checked, the stricter verdict is enforced"
            )?;
        }
    }
    if let tidegate_core::compile::explain::DecisionPoint::Socket = e.decided_at {
        writeln!(
            text,
            "  no hook sees the destination of {}: it is checked when the socket is created, with the strictest \
             verdict of any destination",
            protocol_of(target)
        )?;
    }
    for rule in &e.rules {
        let result = if rule.matches {
            "matches".to_owned()
        } else {
            let mut why: Vec<&str> = rule.mismatches.iter().map(|&m| reason(m)).collect();
            why.dedup();
            format!("does not match: {}", why.join("; embedded address: "))
        };
        writeln!(text, "  {:<5} {}: {result}", rule.action, rule.name)?;
        if let (true, Some(reason)) = (rule.matches, &rule.reason) {
            writeln!(text, "        reason: {reason}")?;
        }
    }
    Ok(())
}

/// What an unspecified destination is checked as, if the socket has an address or a device.
fn of_unspecified(address: IpAddr) -> &'static str {
    if address.to_canonical().is_ipv4() {
        "(a socket with an address of its own sends to that address, and is checked for it; one that is bound to a \
         device gets the strictest verdict of any destination)"
    } else {
        "(a socket that is bound to an IPv4-mapped address sends to 127.0.0.1, and is checked for it)"
    }
}

fn reason(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::Destination => "different destination",
        Mismatch::Protocol => "different protocol",
        Mismatch::Port => "different port",
        Mismatch::Uid => "different user",
        Mismatch::Binary => "different executable",
    }
}
