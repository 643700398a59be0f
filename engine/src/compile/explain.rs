//! Why a policy answers what it answers.

use std::net::IpAddr;

use engine_common::{
    Address, Attempt, ExecutableId, KillAbility, Outcome, Protocol, Reason, SocketFamily, Verdict,
    destination::canonical, image::Revision,
};
use serde::Serialize;

use super::{
    CompileError, Identities, compile,
    oracle::{self, Mismatch},
};
use crate::policy::{Policy, Rule, UnixName};

/// The answer of one policy with its reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The policy's name.
    pub policy: String,
    /// The destination as the rules see it; `None` for a unix socket.
    pub destination: Option<IpAddr>,
    /// The unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<String>,
    /// The IPv4 address inside it, which is judged too.
    pub inside: Option<IpAddr>,
    /// Allow, audit, block or kill.
    pub verdict: &'static str,
    /// What would be done, by the policy's mode.
    pub outcome: &'static str,
    /// Whether the attempt would be denied.
    pub denied: bool,
    /// Name of the rule that decides; none when it is the default.
    pub rule: Option<String>,
    /// The errno that the caller would see.
    pub errno: Option<&'static str>,
    /// Where it is decided: at the destination, or for protocols without an address hook when the
    /// socket is made.
    pub at: Decided,
    /// The rules up to the one that decides (all, when it is the default), in their order.
    pub rules: Vec<RuleView>,
}

/// Where an attempt is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// connect or sendmsg.
    Destination,
    /// socket(2).
    Socket,
    /// connect or a datagram, to a unix socket.
    Unix,
}

/// What a rule had to say.
#[derive(Clone, Debug, Serialize)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// Its action.
    pub action: &'static str,
    /// Whether it matches, by some spelling of the destination; where the socket is judged,
    /// whether some destination could match.
    pub matches: bool,
    /// Why it does not match: per spelling of the destination, its own first.
    pub mismatches: Vec<Mismatch>,
    /// The author's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks a policy about an attempt (its address need not be canonical) and lists the reasons. The
/// verdict is that of the compiled image: what the kernel would say.
///
/// # Errors
/// [`CompileError`].
pub fn explain(
    policy: &Policy,
    executables: &Identities,
    attempt: &Attempt,
) -> Result<Explanation, CompileError> {
    let mut attempt = Attempt {
        address: canonical(attempt.address),
        ..*attempt
    };
    // What the address hooks see of an MPTCP socket are its subflows, which are TCP.
    if attempt.protocol == Protocol::MPTCP {
        attempt.protocol = Protocol::TCP;
    }
    let life = Revision {
        generation: 1,
        mode: policy.mode,
    };
    let image = compile(policy, executables, life)?;
    let (own, inside) = oracle::spellings(policy, attempt.address);
    let family = match attempt.address {
        Address::V4(_) => SocketFamily::Inet,
        Address::V6 { .. } => SocketFamily::Inet6,
    };
    let (protocol, uid, executable) = (attempt.protocol, attempt.uid, attempt.executable);
    let (verdict, at) = if protocol.has_address_hook() {
        (image.decide(&attempt), Decided::Destination)
    } else {
        let verdict = image.decide_socket(family, protocol, uid, executable);
        (verdict, Decided::Socket)
    };
    let outcome = Outcome::of(verdict.action, policy.mode, KillAbility::Now);
    let shown = match verdict.reason {
        Reason::Rule(rule) => rule as usize + 1,
        Reason::Default | Reason::Fault(_) => policy.rules.len(),
    };
    let view = |rule: &Rule| {
        let mismatches: Vec<Option<Mismatch>> = match at {
            Decided::Destination => {
                let spellings = [Some(own), inside].into_iter().flatten();
                let missed = |address| oracle::mismatch(rule, executables, address, &attempt);
                spellings.map(missed).collect()
            }
            Decided::Socket | Decided::Unix => {
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
        RuleView {
            name: rule.name.clone(),
            action: rule.action.as_str(),
            matches: mismatches.contains(&None),
            mismatches: mismatches.into_iter().flatten().collect(),
            reason: rule.reason.clone(),
        }
    };
    Ok(Explanation {
        policy: policy.name.clone(),
        destination: Some(own),
        unix: None,
        inside,
        verdict: verdict.action.as_str(),
        outcome: outcome.as_str(),
        denied: outcome.denied(),
        rule: rule_name(policy, verdict),
        errno: outcome.denied().then_some(policy.errno.as_str()),
        at,
        rules: policy.rules.iter().take(shown).map(view).collect(),
    })
}

/// Asks a policy about a unix socket and lists the reasons. Files are compared by their paths: `identities` are those
/// that [`Identities::synthetic`] makes up.
///
/// # Errors
/// [`CompileError`].
pub fn explain_unix(
    policy: &Policy,
    identities: &Identities,
    name: &UnixName,
    uid: u32,
    executable: ExecutableId,
) -> Result<Explanation, CompileError> {
    let life = Revision {
        generation: 1,
        mode: policy.mode,
    };
    let image = compile(policy, identities, life)?;
    let place = Identities::synthetic_place(name);
    let verdict = image.decide_unix(place, uid, executable);
    let outcome = Outcome::of(verdict.action, policy.mode, KillAbility::Now);
    let shown = match verdict.reason {
        Reason::Rule(rule) => rule as usize + 1,
        Reason::Default | Reason::Fault(_) => policy.rules.len(),
    };
    let view = |rule: &Rule| {
        let mismatch = oracle::unix_mismatch(rule, identities, place, uid, executable);
        RuleView {
            name: rule.name.clone(),
            action: rule.action.as_str(),
            matches: mismatch.is_none(),
            mismatches: mismatch.into_iter().collect(),
            reason: rule.reason.clone(),
        }
    };
    let about_unix = policy
        .rules
        .iter()
        .take(shown)
        .filter(|rule| rule.is_about_unix());
    Ok(Explanation {
        policy: policy.name.clone(),
        destination: None,
        unix: Some(name.to_string()),
        inside: None,
        verdict: verdict.action.as_str(),
        outcome: outcome.as_str(),
        denied: outcome.denied(),
        rule: rule_name(policy, verdict),
        errno: outcome.denied().then_some(policy.errno.as_str()),
        at: Decided::Unix,
        rules: about_unix.map(view).collect(),
    })
}

fn rule_name(policy: &Policy, verdict: Verdict) -> Option<String> {
    match verdict.reason {
        Reason::Rule(rule) => policy.rules.get(rule as usize).map(|rule| rule.name.clone()),
        Reason::Default | Reason::Fault(_) => None,
    }
}

/// A caller of whom nothing is known: no rule's executable is this.
pub const UNKNOWN_EXECUTABLE: ExecutableId = ExecutableId {
    device: u64::MAX,
    inode: u64::MAX,
};

/// An attempt at an address, for [`explain`].
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
