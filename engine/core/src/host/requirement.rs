//! What a policy requires.

use engine_common::{Action, Mode, scope::HookSet};

use crate::policy::{Errno, Hooks, Policy, Rule};

/// What a policy requires beyond the cgroup hooks, which every kernel has that programs load on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// The hooks that the policy names.
    pub hooks: Hooks,
    /// Rules for other address families than IPv4 and IPv6.
    pub families: bool,
    /// Rules for unix sockets.
    pub unix_sockets: bool,
    /// Packets are checked, not only calls.
    pub strict: bool,
    /// A process is killed before its call returns. Not in audit mode.
    pub kill: bool,
    /// The errno of a denied call, by name; `None` for EPERM and in audit mode.
    pub errno: Option<String>,
}

impl Requirements {
    /// Those of a policy in its mode.
    pub fn of(policy: &Policy) -> Requirements {
        let actions = policy.rules.iter().map(|rule| rule.action);
        Requirements {
            hooks: policy.hooks,
            families: policy.rules.iter().any(Rule::selects_other_families),
            unix_sockets: policy.rules.iter().any(Rule::selects_unix_sockets),
            strict: policy.strict,
            kill: false,
            errno: None,
        }
        .with_denials(
            policy.mode,
            actions.chain([policy.default]),
            policy.errno.as_str(),
        )
    }

    /// Those of a policy that uses every feature.
    pub fn every() -> Requirements {
        Requirements {
            hooks: Hooks::Only(HookSet::CGROUP.union(HookSet::LSM).union(HookSet::TRACER)),
            families: true,
            unix_sockets: true,
            strict: true,
            kill: true,
            errno: Some("the errno of the policy".to_owned()),
        }
    }

    /// Adds what denials require: `actions` are those of all rules and of the default, `errno` is the name of the errno.
    /// Audit mode denies nothing.
    #[must_use]
    pub fn with_denials(
        self,
        mode: Mode,
        mut actions: impl Iterator<Item = Action>,
        errno: &str,
    ) -> Requirements {
        let enforces = mode == Mode::Enforce;
        Requirements {
            kill: enforces && actions.any(|action| action == Action::Kill),
            errno: (enforces && errno != Errno::Eperm.as_str()).then(|| errno.to_owned()),
            ..self
        }
    }

    /// Whether LSM programs may decide for the policy.
    pub(super) fn uses_lsm(&self) -> bool {
        match self.hooks {
            Hooks::Auto => true,
            Hooks::Only(hooks) => hooks.contains(HookSet::LSM),
        }
    }

    pub(super) fn uses_only(&self, hooks: HookSet) -> bool {
        self.hooks == Hooks::Only(hooks)
    }
}
