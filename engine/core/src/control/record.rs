//! The record of an attached policy in the journal: a JSON file each.

use engine_common::{Action, Mode, scope::HookSet};
use serde::{Deserialize, Serialize};

use super::totals::Totals;
use crate::{
    host::{Requirements, Unmet},
    policy::{Hooks, PolicyDefinition},
};

/// Previous versions that are kept, for events that are still in the ring.
const MAX_PREVIOUS: usize = 64;

/// Version of the format of [`Record`]. A file with another version is refused.
pub const RECORD_VERSION: u32 = 1;

/// An attached policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format: [`RECORD_VERSION`].
    pub version: u32,
    /// Name it is attached under, unique.
    pub name: String,
    /// Slot of its image.
    pub slot: u32,
    /// The version that is live.
    pub live: Version,
    /// Names of the rules of previous versions, oldest first.
    pub previous_versions: Vec<GenerationRange>,
    /// Attempts that superseded versions decided.
    pub superseded: Totals,
    /// The cgroups it is attached to.
    pub attachments: Vec<Attachment>,
    /// The operation that a command has begun.
    pub pending: Option<PendingOperation>,
}

/// A version of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its generation, from 1.
    pub generation: u64,
    /// Its mode.
    #[serde(with = "mode_word")]
    pub mode: Mode,
    /// The action where no rule matches.
    #[serde(with = "action_word")]
    pub default: Action,
    /// The errno of a blocked call, by name.
    pub errno: String,
    /// Its rules, in their order.
    pub rules: Vec<RuleName>,
    /// Path of the policy file.
    pub source: String,
    /// Its text, and the variables it was loaded with.
    pub definition: PolicyDefinition,
    /// Who put this version live.
    pub by: Actor,
    /// When, in UTC (RFC 3339).
    pub since: String,
    /// Whether rules are about other address families, which need LSM programs.
    #[serde(default)]
    pub names_families: bool,
    /// Whether rules are about unix sockets, which need LSM programs of their own.
    #[serde(default)]
    pub names_unix: bool,
    /// Its requirements that the kernel did not meet when it went live; empty where it is enforced fully.
    pub partial: Vec<Unmet>,
    /// Executables that it names, with the identity they had when it went live.
    pub executables: Vec<NamedExecutable>,
    /// Whether it decides on packets too.
    #[serde(default)]
    pub strict: bool,
    /// Names of the hooks that it is for; empty for all that the kernel has.
    #[serde(default)]
    pub hooks: Vec<String>,
}

impl Version {
    /// Hooks that it is for.
    pub fn hooks(&self) -> Hooks {
        Hooks::from_names(self.hooks.iter().map(String::as_str))
    }

    /// What it requires of the kernel.
    pub fn requirements(&self) -> Requirements {
        let actions = self.rules.iter().map(|rule| rule.action);
        Requirements {
            hooks: self.hooks(),
            families: self.names_families,
            unix_sockets: self.names_unix,
            strict: self.strict,
            kill: false,
            errno: None,
        }
        .with_denials(self.mode, actions.chain([self.default]), &self.errno)
    }

    /// The hooks to attach, of those that are available.
    pub(super) fn hooks_of(&self, available: HookSet) -> HookSet {
        let actions = self.rules.iter().map(|rule| rule.action);
        let mut actions = actions.chain([self.default]);
        let watches = self.mode == Mode::Audit || actions.any(|action| action == Action::Audit);
        self.hooks()
            .select(available, Hooks::needed(watches, self.names_unix))
    }
}

/// A rule as events name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    /// Name.
    pub name: String,
    /// Its action.
    #[serde(with = "action_word")]
    pub action: Action,
}

/// An executable that a policy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedExecutable {
    /// Its path.
    pub path: String,
    /// See [`engine_common::ExecutableId::device`].
    pub device: u64,
    /// See [`engine_common::ExecutableId::inode`].
    pub inode: u64,
}

/// Generations whose rules have the same names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRange {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The names.
    pub rules: Vec<String>,
}

/// A cgroup that a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Path of the cgroup below the root of the hierarchy.
    pub path: String,
    /// Its id.
    pub cgroup: u64,
    /// Who attached it.
    pub by: Actor,
    /// When, in UTC (RFC 3339).
    pub since: String,
}

/// Who ran a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Real user id.
    pub uid: u32,
    /// The user who called sudo, if one did.
    pub sudo_user: Option<String>,
}

/// An operation that a command has begun, see [`super`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingOperation {
    /// Attach to another cgroup.
    Attach(Attachment),
    /// Put another version live.
    Apply(Box<Version>),
    /// Detach from the cgroups with these ids.
    Detach(Vec<u64>),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.sudo_user {
            Some(user) => write!(f, "{user} (sudo)"),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

impl Record {
    /// Makes the version live in the record, and keeps the names of the one before.
    pub(super) fn advance(&mut self, version: Version) {
        let before = std::mem::replace(&mut self.live, version);
        let rules: Vec<String> = before.rules.into_iter().map(|rule| rule.name).collect();
        match self.previous_versions.last_mut() {
            Some(span) if span.rules == rules => span.last = before.generation,
            _ => self.previous_versions.push(GenerationRange {
                first: before.generation,
                last: before.generation,
                rules,
            }),
        }
        let surplus = self.previous_versions.len().saturating_sub(MAX_PREVIOUS);
        self.previous_versions.drain(..surplus);
    }
}

pub(super) mod action_word {
    use engine_common::Action;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::control) fn serialize<S: Serializer>(
        action: &Action,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(action.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Action, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = Action::ALL.into_iter().find(|action| action.as_str() == word);
        found.ok_or_else(|| D::Error::custom(format!("`{word}` is not an action")))
    }
}

pub(super) mod mode_word {
    use engine_common::Mode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::control) fn serialize<S: Serializer>(
        mode: &Mode,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(mode.as_str())
    }

    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Mode, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = [Mode::Enforce, Mode::Audit]
            .into_iter()
            .find(|mode| mode.as_str() == word);
        found.ok_or_else(|| D::Error::custom(format!("`{word}` is not a mode")))
    }
}
