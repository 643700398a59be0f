//! Explains the verdict of a policy: which rules match, and why the others do not.

use std::net::IpAddr;

use engine_common::{
    Address, Attempt, ExecutableId, KillAbility, Outcome, Protocol, Reason, SocketFamily, Substitute,
    Verdict, destination::canonical, image::Revision,
};
use serde::Serialize;

use super::{
    CompileError, Identities, Image, compile,
    oracle::{self, Mismatch},
};
use crate::policy::{Policy, Rule, UnixName};

/// The verdict of one policy and its reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Name of the policy.
    pub policy: String,
    /// The canonical destination address; for an unspecified one what a socket without address and device sends to.
    /// `None` for a unix socket.
    pub destination: Option<IpAddr>,
    /// The unix socket, in policy syntax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<String>,
    /// The IPv4 address embedded in `destination`, which is looked up too.
    pub embedded_ipv4: Option<IpAddr>,
    /// `allow`, `audit`, `block` or `kill`.
    pub verdict: &'static str,
    /// The outcome of the verdict in the mode of the policy.
    pub outcome: &'static str,
    /// Whether the attempt is denied.
    pub denied: bool,
    /// Name of the rule that decides; `None` for the default.
    pub rule: Option<String>,
    /// The errno that the caller gets; `None` unless denied.
    pub errno: Option<&'static str>,
    /// The operation at which the policy is evaluated.
    pub decided_at: DecisionPoint,
    /// The rules up to the one that decides, in their order; all rules if the default decides.
    pub rules: Vec<RuleResult>,
}

/// The operation at which a policy is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionPoint {
    /// connect(2) or sendmsg(2), by destination address.
    Destination,
    /// socket(2), for protocols without an address hook.
    Socket,
    /// connect(2) or sendmsg(2) to a unix socket.
    Unix,
}

/// Whether a rule matches, and if not, why.
#[derive(Clone, Debug, Serialize)]
pub struct RuleResult {
    /// Name of the rule.
    pub name: String,
    /// Action of the rule.
    pub action: &'static str,
    /// Whether the rule matches some form of the destination address. For [`DecisionPoint::Socket`]:
    /// whether it can match some destination.
    pub matches: bool,
    /// Why the rule does not match: one entry for each form of the address that it misses, the canonical form first.
    pub mismatches: Vec<Mismatch>,
    /// `reason` of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Explains the verdict for an attempt, whose address need not be canonical. The verdict comes from the
/// compiled image, as in the kernel.
///
/// # Errors
/// If the policy cannot be compiled.
pub fn explain(
    policy: &Policy,
    executables: &Identities,
    attempt: &Attempt,
) -> Result<Explanation, CompileError> {
    let address = canonical(attempt.address);
    let mut attempt = Attempt {
        address: Substitute::of_unbound(address).address(address),
        ..*attempt
    };
    // The address hooks see the subflows of an MPTCP socket, which are TCP.
    if attempt.protocol == Protocol::MPTCP {
        attempt.protocol = Protocol::TCP;
    }
    let image = image_of(policy, executables)?;
    let (own, embedded_ipv4) = oracle::address_forms(policy, attempt.address);
    let family = match attempt.address {
        Address::V4(_) => SocketFamily::Inet,
        Address::V6 { .. } => SocketFamily::Inet6,
    };
    let (protocol, uid, executable) = (attempt.protocol, attempt.uid, attempt.executable);
    let (verdict, at) = if protocol.has_address_hook() {
        (image.decide(&attempt), DecisionPoint::Destination)
    } else {
        let verdict = image.decide_socket(family, protocol, uid, executable);
        (verdict, DecisionPoint::Socket)
    };
    let mismatches = |rule: &Rule| match at {
        DecisionPoint::Destination => {
            let address_forms = [Some(own), embedded_ipv4].into_iter().flatten();
            let missed = |address| oracle::mismatch(rule, executables, address, &attempt);
            address_forms.map(missed).collect()
        }
        DecisionPoint::Socket | DecisionPoint::Unix => {
            vec![oracle::socket_mismatch(
                rule,
                executables,
                family,
                protocol,
                uid,
                executable,
            )]
        }
    };
    let rules = considered(policy, verdict).map(|rule| RuleResult::of(rule, mismatches(rule)));
    Ok(Explanation {
        destination: Some(own),
        embedded_ipv4,
        ..Explanation::of(policy, verdict, at, rules.collect())
    })
}

/// Explains the verdict for a unix socket. Sockets are compared by path: `identities` must come from
/// [`Identities::synthetic`].
///
/// # Errors
/// If the policy cannot be compiled.
pub fn explain_unix(
    policy: &Policy,
    identities: &Identities,
    name: &UnixName,
    uid: u32,
    executable: ExecutableId,
) -> Result<Explanation, CompileError> {
    let image = image_of(policy, identities)?;
    let socket = Identities::synthetic_socket(name);
    let verdict = image.decide_unix(socket, uid, executable);
    let rules = considered(policy, verdict)
        .filter(|rule| rule.selects_unix_sockets())
        .map(|rule| {
            let mismatch = oracle::unix_mismatch(rule, identities, socket, uid, executable);
            RuleResult::of(rule, vec![mismatch])
        });
    Ok(Explanation {
        unix: Some(name.to_string()),
        ..Explanation::of(policy, verdict, DecisionPoint::Unix, rules.collect())
    })
}

impl Explanation {
    /// A verdict without its target.
    fn of(
        policy: &Policy,
        verdict: Verdict,
        decided_at: DecisionPoint,
        rules: Vec<RuleResult>,
    ) -> Explanation {
        let outcome = Outcome::of(verdict.action, policy.mode, KillAbility::Now);
        Explanation {
            policy: policy.name.clone(),
            destination: None,
            unix: None,
            embedded_ipv4: None,
            verdict: verdict.action.as_str(),
            outcome: outcome.as_str(),
            denied: outcome.denied(),
            rule: rule_name(policy, verdict),
            errno: outcome.denied().then_some(policy.errno.as_str()),
            decided_at,
            rules,
        }
    }
}

impl RuleResult {
    /// `mismatches` has an entry for each form of the target; `None` for one that the rule matches.
    fn of(rule: &Rule, mismatches: Vec<Option<Mismatch>>) -> RuleResult {
        RuleResult {
            name: rule.name.clone(),
            action: rule.action.as_str(),
            matches: mismatches.contains(&None),
            mismatches: mismatches.into_iter().flatten().collect(),
            reason: rule.reason.clone(),
        }
    }
}

fn image_of(policy: &Policy, identities: &Identities) -> Result<Image, CompileError> {
    let revision = Revision {
        generation: 1,
        mode: policy.mode,
    };
    compile(policy, identities, revision)
}

/// The rules up to the one that decides; all rules if the default decides.
fn considered(policy: &Policy, verdict: Verdict) -> impl Iterator<Item = &Rule> {
    let count = match verdict.reason {
        Reason::Rule(rule) => rule as usize + 1,
        Reason::Default | Reason::Fault(_) => policy.rules.len(),
    };
    policy.rules.iter().take(count)
}

fn rule_name(policy: &Policy, verdict: Verdict) -> Option<String> {
    match verdict.reason {
        Reason::Rule(rule) => policy.rules.get(rule as usize).map(|rule| rule.name.clone()),
        Reason::Default | Reason::Fault(_) => None,
    }
}

/// The identity used for an unknown executable; no rule selects it.
pub const UNKNOWN_EXECUTABLE: ExecutableId = ExecutableId {
    device: u64::MAX,
    inode: u64::MAX,
};

/// Builds an attempt for [`explain`].
pub fn attempt_at(
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    uid: u32,
    executable: ExecutableId,
) -> Attempt {
    let address = match address {
        IpAddr::V4(v4) => Address::V4(u32::from(v4)),
        IpAddr::V6(v6) => Address::v6(u128::from(v6)),
    };
    Attempt {
        address,
        port,
        protocol,
        uid,
        executable,
    }
}

#[cfg(test)]
mod tests;
