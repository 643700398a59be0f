//! The policies of `exec`: from files, and from --allow and --deny.

use std::{
    io::{self, Write},
    net::{IpAddr, ToSocketAddrs},
};

use engine_common::Action;

use super::args::ExecArgs;
use crate::{Exit, Failure, Output, command::policy_files};
use tidegate_core::{
    exec::ExecPolicy,
    policy::{FlagError, FlagPolicy, LoadContext, from_flags},
};

/// Origin of a policy that is made from flags.
const COMMAND_LINE: &str = "command line";

/// All policies of the command.
///
/// # Errors
/// When a policy is not valid, or --allow would have no effect.
pub(super) fn gather(args: &ExecArgs, output: Output) -> Result<Vec<ExecPolicy>, Failure> {
    let context = args.variables.context();
    let files = policy_files::load_all(&args.policy, &context, output, Exit::ExecFailed)?;
    let files = files.into_iter().map(|of| ExecPolicy {
        policy: of.policy,
        source: of.source,
    });
    let mut policies: Vec<ExecPolicy> = files.collect();
    let rules = args.rules();
    if !rules.is_empty() || args.default.is_some() {
        refuse_ineffective_allow(args, &rules)?;
        policies.push(of_flags(args, &rules, &context, output)?);
    }
    if let Some(mode) = args.mode {
        for ExecPolicy { policy, .. } in &mut policies {
            policy.mode = mode;
        }
    }
    Ok(policies)
}

/// Refuses --allow beside policy files without --default: the strictest verdict of all policies is enforced, so it would
/// have no effect.
fn refuse_ineffective_allow(args: &ExecArgs, rules: &[(Action, String)]) -> Result<(), Failure> {
    let allows = rules.iter().any(|(action, _)| *action == Action::Allow);
    if !allows || args.policy.is_empty() || args.default.is_some() {
        return Ok(());
    }
    let message = "--allow does not widen a policy file: the strictest verdict of all policies is enforced";
    let hint = "add the rule to the policy file, or use --default block to restrict the policy further";
    Err(Failure::of(Exit::Usage, message).hint(hint))
}

fn of_flags(
    args: &ExecArgs,
    rules: &[(Action, String)],
    context: &LoadContext,
    output: Output,
) -> Result<ExecPolicy, Failure> {
    let mode = args.mode.unwrap_or(engine_common::Mode::Enforce);
    let FlagPolicy { policy, resolved } =
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
            // A closed standard error does not change the rule.
            let _ = writeln!(
                anstream::stderr(),
                "tidegate: resolved {name} to {} (once, at start)",
                list.join(", ")
            );
        }
    }
    Ok(ExecPolicy {
        policy,
        source: COMMAND_LINE.to_owned(),
    })
}

/// All addresses of a host name, from the resolver of this machine.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|a| a.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
