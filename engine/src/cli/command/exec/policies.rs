//! The policies of `exec`: those of files, and the one that flags make.

use std::{
    io::{self, Write},
    net::{IpAddr, ToSocketAddrs},
};

use engine_common::{Action, limits::MAX_STACKED};

use super::args::ExecArgs;
use crate::{
    cli::{
        Exit, Failure, Output,
        command::policy_files::{self, SourcedPolicy},
    },
    control::why_unmet,
    datapath::Features,
    instance::Disabled,
    policy::{FlagError, FromFlags, LoadContext, from_flags},
};

/// Where a policy of flags comes from.
const COMMAND_LINE: &str = "command line";

/// All policies that the command is to run under, at least one.
///
/// # Errors
/// When one of them is not valid, or together they make no sense.
pub(super) fn gather(args: &ExecArgs, output: Output) -> Result<Vec<SourcedPolicy>, Failure> {
    let context = args.variables.context();
    let mut policies = policy_files::load_all(&args.policy, &context, output, Exit::ExecFailed)?;
    let rules = args.rules();
    if !rules.is_empty() || args.default.is_some() {
        refuse_idle_allow(args, &rules)?;
        policies.push(of_flags(args, &rules, &context, output)?);
    }
    if let Some(mode) = args.mode {
        for SourcedPolicy { policy, source } in &mut policies {
            if !policy.hooks.allow(mode) {
                let message = format!("the policy {source} is for the probe alone, which only watches");
                return Err(Failure::of(Exit::Usage, message)
                    .hint("leave --mode out, or give it the hooks of the cgroup too"));
            }
            policy.mode = mode;
        }
    }
    if policies.len() > MAX_STACKED {
        let message = format!("{} policies: a cgroup carries {MAX_STACKED}", policies.len());
        return Err(Failure::of(Exit::Usage, message).hint("merge some of them into one file"));
    }
    Ok(policies)
}

/// A hook that a policy names is there, or the command is not run.
///
/// # Errors
/// When one is not.
pub(super) fn require_hooks(
    policies: &[SourcedPolicy],
    features: Features,
    disabled: &Disabled,
) -> Result<(), Failure> {
    for SourcedPolicy { policy, source } in policies {
        if let Some(name) = policy.hooks.lacking(features.hooks()).first() {
            let message = format!(
                "the policy {source} cannot be enforced fully here: {}",
                why_unmet(name, disabled)
            );
            return Err(Failure::of(Exit::ExecFailed, message)
                .hint("`hooks: auto`, which is the default, takes what the kernel has"));
        }
    }
    Ok(())
}

/// The strictest answer of all policies holds, so an --allow beside a file opens nothing: most
/// likely it is meant to.
fn refuse_idle_allow(args: &ExecArgs, rules: &[(Action, String)]) -> Result<(), Failure> {
    let allows = rules.iter().any(|(action, _)| *action == Action::Allow);
    if !allows || args.policy.is_empty() || args.default.is_some() {
        return Ok(());
    }
    let message = "--allow beside --policy cannot widen the policy: of several, the strictest answer holds";
    let hint =
        "put the rule into the policy file; or, to narrow the policy further, say so by --default block";
    Err(Failure::of(Exit::Usage, message).hint(hint))
}

fn of_flags(
    args: &ExecArgs,
    rules: &[(Action, String)],
    context: &LoadContext,
    output: Output,
) -> Result<SourcedPolicy, Failure> {
    let mode = args.mode.unwrap_or(engine_common::Mode::Enforce);
    let FromFlags { policy, resolved } =
        from_flags(rules, args.default, mode, context, &resolve).map_err(|error| {
            let exit = match &error {
                FlagError::Resolve { .. } | FlagError::NoAddresses { .. } => Exit::ExecFailed,
                _ => Exit::Usage,
            };
            Failure::by(exit, &error)
        })?;
    for (name, addresses) in &resolved {
        if output == Output::Text && !args.quiet {
            let list: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            // Where a reader is gone, the rule holds all the same.
            let _ = writeln!(
                anstream::stderr(),
                "tidegate: {name} is {}, resolved once, now",
                list.join(", ")
            );
        }
    }
    Ok(SourcedPolicy {
        policy,
        source: COMMAND_LINE.to_owned(),
    })
}

/// All addresses of a name, by the machine's own resolver.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|a| a.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
