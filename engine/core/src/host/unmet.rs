//! The requirements that a kernel does not meet.

use std::fmt::{self, Display, Formatter};

use engine_common::scope::HookSet;
use serde::{Deserialize, Serialize};

use super::{Capabilities, Requirements};
use crate::datapath::{Calls, GroupName};

/// The code of a refused policy.
pub const NOT_FULLY_ENFORCEABLE: &str = "not_fully_enforceable";

/// Something that a policy can require.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// `hooks` names the LSM hooks.
    LsmHooks,
    /// `hooks` names the kprobe.
    Kprobe,
    /// Rules for other address families.
    Families,
    /// Rules for unix sockets.
    UnixSockets,
    /// `strict`.
    Strict,
    /// The action kill.
    Kill,
    /// An errno other than EPERM.
    Errno,
}

impl Feature {
    /// Its name, as in JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Feature::LsmHooks => "lsm_hooks",
            Feature::Kprobe => "kprobe",
            Feature::Families => "families",
            Feature::UnixSockets => "unix_sockets",
            Feature::Strict => "strict",
            Feature::Kill => "kill",
            Feature::Errno => "errno",
        }
    }
}

/// A requirement that is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// What is required.
    pub feature: Feature,
    /// Why it is not available.
    pub reason: String,
    /// What happens instead, with `--best-effort`.
    pub effect: String,
}

impl Unmet {
    /// Stable name of the requirement.
    pub const fn code(&self) -> &'static str {
        self.feature.code()
    }

    /// How the policy or the machine can be changed so that it is met.
    pub const fn hint(&self) -> &'static str {
        match self.feature {
            Feature::LsmHooks | Feature::Kprobe => {
                "`hooks: auto`, the default, uses the hooks that the kernel has"
            }
            Feature::Families | Feature::UnixSockets => {
                "`tidegate probe` shows what LSM programs need on this machine"
            }
            Feature::Strict => "without `strict`, calls are checked and packets are not",
            Feature::Kill => "use the action block, or a kernel with LSM programs or Linux 6.16",
            Feature::Errno => "use EPERM, or a kernel with LSM programs or Linux 5.18",
        }
    }
}

impl Display for Unmet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.code(), self.reason, self.effect)
    }
}

/// An unmet requirement of one of several policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyUnmet {
    /// Name of the policy.
    pub policy: String,
    /// The requirement.
    #[serde(flatten)]
    pub unmet: Unmet,
}

/// How much of a policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// All of it, on all its cgroups.
    Full,
    /// Some of it, or on some of its cgroups.
    Partial,
    /// Nothing: it is active on no cgroup.
    None,
}

impl Enforcement {
    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Enforcement::Full => "full",
            Enforcement::Partial => "partial",
            Enforcement::None => "none",
        }
    }
}

/// The message for a policy that is refused, with one line for each unmet requirement.
pub fn refusal(name: &str, unmet: &[Unmet]) -> String {
    let mut message = format!("policy {name} cannot be fully enforced on this kernel:");
    for one in unmet {
        message += &format!("\n  {one}");
    }
    message
}

/// What to do about a refused policy: the hints of its unmet requirements, and the option that accepts them.
pub fn refusal_hint(unmet: &[Unmet]) -> String {
    let mut hints: Vec<&str> = Vec::new();
    for one in unmet {
        if !hints.contains(&one.hint()) {
            hints.push(one.hint());
        }
    }
    hints.push("--best-effort enforces what this kernel supports, and reports the rest as partial");
    hints.join("; ")
}

/// The requirements that are not met, in a fixed order.
pub fn unmet(requirements: &Requirements, capabilities: &Capabilities) -> Vec<Unmet> {
    let mut found = Vec::new();
    let mut add = |feature, reason: String, effect: &str| {
        found.push(Unmet {
            feature,
            reason,
            effect: effect.to_owned(),
        });
    };
    let lsm = capabilities.unavailable_reason(GroupName::Lsm);
    for name in requirements.hooks.unsupported(capabilities.hooks()) {
        match name {
            "lsm" => add(
                Feature::LsmHooks,
                lsm.unwrap_or_default().to_owned(),
                without_hook(
                    requirements,
                    HookSet::LSM,
                    "only the other hooks of the policy are used",
                ),
            ),
            _ => add(
                Feature::Kprobe,
                capabilities
                    .unavailable_reason(GroupName::Tracer)
                    .unwrap_or_default()
                    .to_owned(),
                without_hook(requirements, HookSet::TRACER, NO_LOCAL_ADDRESS),
            ),
        }
    }
    if requirements.families
        && let Some(reason) = lsm
    {
        let reason = format!("LSM programs are not available: {reason}");
        add(
            Feature::Families,
            reason,
            "sockets of other address families are not checked",
        );
    }
    let unix = capabilities.unavailable_reason(GroupName::LsmUnix);
    if requirements.unix_sockets
        && let Some(reason) = unix.or(lsm)
    {
        let reason = format!("LSM programs for unix sockets are not available: {reason}");
        add(Feature::UnixSockets, reason, "unix sockets are not checked");
    }
    if requirements.strict
        && let Some(reason) = capabilities.unavailable_reason(GroupName::EgressFilter)
    {
        let reason = format!("the egress filter is not available: {reason}");
        add(
            Feature::Strict,
            reason,
            "connected sockets, source routes and raw sockets are checked at their calls only",
        );
    }
    let lsm_decides = requirements.uses_lsm() && lsm.is_none();
    if requirements.kill && !capabilities.cgroup_hooks_kill && !lsm_decides {
        let reason = "cgroup hooks cannot kill before Linux 6.16, and LSM programs are not used";
        add(
            Feature::Kill,
            because(reason, lsm),
            "the kill is asynchronous: the call is denied, and the process is killed when tidegate reads the event \
             (`exec` and `events --follow` do)",
        );
    }
    if let Some(errno) = &requirements.errno
        && !capabilities.cgroup_hooks_choose_errno
        && !lsm_decides
    {
        let reason = "cgroup hooks cannot choose an errno before Linux 5.18, and LSM programs are not used";
        let effect = format!("a denied call fails with EPERM, not with {errno}");
        add(Feature::Errno, because(reason, lsm), &effect);
    }
    found
}

/// Requirements that a policy has once its hooks are attached, also where it does not name them: that the kernel goes on
/// calling their programs. `used` are the kinds of hooks that were attached for it.
pub fn not_called(requirements: &Requirements, used: HookSet, calls: &Calls) -> Vec<Unmet> {
    let hooks = [
        (
            HookSet::LSM,
            GroupName::Lsm,
            Feature::LsmHooks,
            "sockets that were created in another cgroup, other address families and unix sockets are not checked",
        ),
        (
            HookSet::TRACER,
            GroupName::Tracer,
            Feature::Kprobe,
            NO_LOCAL_ADDRESS,
        ),
    ];
    let used = hooks.into_iter().filter(|(hooks, ..)| used.contains(*hooks));
    used.filter_map(|(hooks, group, feature, effect)| {
        Some(Unmet {
            feature,
            reason: calls.never_called_reason(group)?,
            effect: without_hook(requirements, hooks, effect).to_owned(),
        })
    })
    .collect()
}

const NO_LOCAL_ADDRESS: &str = "events of TCP connections have no local address";

/// What happens without a kind of hooks: nothing at all, if the policy uses no other.
fn without_hook<'a>(requirements: &Requirements, hooks: HookSet, otherwise: &'a str) -> &'a str {
    if requirements.uses_only(hooks) {
        "the policy has no effect"
    } else {
        otherwise
    }
}

fn because(reason: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{reason} ({detail})"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use engine_common::{Action, Mode};

    use super::*;
    use crate::policy::Hooks;

    /// A policy that requires nothing.
    fn nothing() -> Requirements {
        Requirements {
            hooks: Hooks::Auto,
            families: false,
            unix_sockets: false,
            strict: false,
            kill: false,
            errno: None,
        }
    }

    fn full() -> Capabilities {
        Capabilities {
            cgroup_hooks_kill: true,
            cgroup_hooks_choose_errno: true,
            ..Capabilities::default()
        }
    }

    fn without(capabilities: Capabilities, groups: &[GroupName]) -> Capabilities {
        let mut capabilities = capabilities;
        for &group in groups {
            capabilities
                .unavailable
                .insert(group, format!("no {}", group.as_str()));
        }
        capabilities
    }

    const NO_LSM: [GroupName; 2] = [GroupName::Lsm, GroupName::LsmUnix];

    #[test]
    fn each_requirement_is_compared_with_what_meets_it() {
        use Feature as F;
        let old = || Capabilities::default();
        let only = |hooks: HookSet| Requirements {
            hooks: Hooks::Only(hooks),
            ..nothing()
        };
        let kill = || Requirements {
            kill: true,
            ..nothing()
        };
        let errno = || Requirements {
            errno: Some("ECONNREFUSED".into()),
            ..nothing()
        };
        let strict = || Requirements {
            strict: true,
            ..nothing()
        };
        let families = || Requirements {
            families: true,
            ..nothing()
        };
        let unix = || Requirements {
            unix_sockets: true,
            ..nothing()
        };
        let kill_by_cgroup = || Requirements {
            kill: true,
            ..only(HookSet::CGROUP)
        };
        let table: Vec<(&str, Requirements, Capabilities, Vec<Feature>)> = vec![
            ("nothing", nothing(), without(old(), &NO_LSM), vec![]),
            ("kill", kill(), without(full(), &NO_LSM), vec![]),
            ("kill by LSM", kill(), old(), vec![]),
            ("no kill", kill(), without(old(), &NO_LSM), vec![F::Kill]),
            ("LSM not used", kill_by_cgroup(), old(), vec![F::Kill]),
            ("errno", errno(), without(full(), &NO_LSM), vec![]),
            ("errno by LSM", errno(), old(), vec![]),
            ("EPERM only", errno(), without(old(), &NO_LSM), vec![F::Errno]),
            ("strict", strict(), full(), vec![]),
            (
                "no filter",
                strict(),
                without(full(), &[GroupName::EgressFilter]),
                vec![F::Strict],
            ),
            ("families", families(), full(), vec![]),
            (
                "no families",
                families(),
                without(full(), &NO_LSM),
                vec![F::Families],
            ),
            ("unix", unix(), full(), vec![]),
            (
                "no unix",
                unix(),
                without(full(), &NO_LSM[1..]),
                vec![F::UnixSockets],
            ),
            ("lsm hooks", only(HookSet::LSM), full(), vec![]),
            (
                "no lsm hooks",
                only(HookSet::LSM),
                without(full(), &NO_LSM),
                vec![F::LsmHooks],
            ),
            (
                "no kprobe",
                only(HookSet::CGROUP.union(HookSet::TRACER)),
                without(full(), &[GroupName::Tracer]),
                vec![F::Kprobe],
            ),
        ];
        for (what, requirements, capabilities, expected) in table {
            let found = unmet(&requirements, &capabilities);
            let features: Vec<Feature> = found.iter().map(|one| one.feature).collect();
            assert_eq!(features, expected, "{what}");
            for one in found {
                assert!(
                    !one.reason.is_empty() && !one.effect.is_empty(),
                    "{what}: {one:?}"
                );
            }
        }
    }

    #[test]
    fn audit_mode_requires_no_denials() {
        let denials = |mode| nothing().with_denials(mode, [Action::Kill].into_iter(), "ECONNREFUSED");
        assert_eq!(denials(Mode::Audit), nothing());
        let enforce = denials(Mode::Enforce);
        assert!(enforce.kill && enforce.errno.as_deref() == Some("ECONNREFUSED"));
    }

    #[test]
    fn text_and_json_have_code_reason_and_effect() {
        let requirements = Requirements {
            unix_sockets: true,
            ..nothing()
        };
        let found = unmet(&requirements, &without(full(), &NO_LSM));
        assert_eq!(
            refusal("shop", &found),
            "policy shop cannot be fully enforced on this kernel:\n  unix_sockets: LSM programs for unix sockets are not \
             available: no lsm_unix; unix sockets are not checked"
        );
        assert_eq!(
            serde_json::to_value(&found).unwrap(),
            serde_json::json!([{
                "feature": "unix_sockets",
                "reason": "LSM programs for unix sockets are not available: no lsm_unix",
                "effect": "unix sockets are not checked",
            }])
        );
    }
}
