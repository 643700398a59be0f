//! What the journal says of a policy: a file of JSON each.

use engine_common::{Action, Mode, scope::HookSet};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::totals::Totals;
use crate::policy::Hooks;

/// Spans of names that are kept for events that are still in the ring.
const MAX_SPANS: usize = 64;

/// A standing policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name it stands under, unique.
    pub name: String,
    /// Slot of its image.
    pub slot: u32,
    /// The version that is live.
    pub live: Version,
    /// Names of the rules of earlier versions, oldest first.
    pub earlier: Vec<NameSpan>,
    /// Attempts that earlier versions decided.
    pub retired: Totals,
    /// Where it stands.
    pub attachments: Vec<Attachment>,
    /// What a command is about to do.
    pub pending: Option<Pending>,
}

/// A version of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its number, from 1.
    pub generation: u64,
    /// Whether it acts.
    #[serde(with = "mode_word")]
    pub mode: Mode,
    /// What holds where no rule matches.
    #[serde(with = "action_word")]
    pub default: Action,
    /// What a blocked caller sees.
    pub errno: String,
    /// Its rules, in their order.
    pub rules: Vec<RuleName>,
    /// The file it came from.
    pub source: String,
    /// Who put it live.
    pub by: Actor,
    /// When.
    pub since: String,
    /// Whether rules are about sockets of other address families, which take LSM programs.
    #[serde(default)]
    pub names_families: bool,
    /// Whether rules are about unix sockets, which take LSM programs of their own.
    #[serde(default)]
    pub names_unix: bool,
    /// What this kernel cannot do of it; empty where it is enforced fully.
    pub partial: Vec<String>,
    /// Executables that it names, by the identity they had.
    pub executables: Vec<NamedExecutable>,
    /// Whether it judges packets too.
    #[serde(default)]
    pub strict: bool,
    /// Hooks that it is for, by their names; none for whatever the kernel has.
    #[serde(default)]
    pub hooks: Vec<String>,
}

impl Version {
    /// Hooks that it is for.
    pub fn hooks(&self) -> Hooks {
        Hooks::from_names(self.hooks.iter().map(String::as_str))
    }

    /// The hooks to be attached, of those there are.
    pub(super) fn hooks_of(&self, there: HookSet) -> HookSet {
        let actions = self.rules.iter().map(|rule| rule.action);
        let mut actions = actions.chain([self.default]);
        let watches = self.mode == Mode::Audit || actions.any(|action| action == Action::Audit);
        self.hooks()
            .select(there, Hooks::needed(watches, self.names_unix))
    }
}

/// A rule as events name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    /// Name.
    pub name: String,
    /// What it says.
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
pub struct NameSpan {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The names.
    pub rules: Vec<String>,
}

/// A place where a policy stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Path of the cgroup below the root of the hierarchy.
    pub path: String,
    /// Its id.
    pub cgroup: u64,
    /// Who attached it.
    pub by: Actor,
    /// When.
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

/// An intention. See [`super`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pending {
    /// To stand on another cgroup.
    Attach(Attachment),
    /// To put another version live.
    Apply(Box<Version>),
    /// To be taken away from these cgroups.
    Detach(Vec<u64>),
}

impl Actor {
    /// Whoever runs this process.
    pub fn current() -> Actor {
        Actor {
            uid: nix::unistd::getuid().as_raw(),
            sudo_user: std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()),
        }
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.sudo_user {
            Some(user) => write!(f, "{user} (sudo)"),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// Now, as records hold it.
pub(super) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

impl Record {
    /// Makes the version live in the record, and remembers the names of the one before.
    pub(super) fn advance(&mut self, version: Version) {
        let before = std::mem::replace(&mut self.live, version);
        let rules: Vec<String> = before.rules.into_iter().map(|rule| rule.name).collect();
        match self.earlier.last_mut() {
            Some(span) if span.rules == rules => span.last = before.generation,
            _ => self.earlier.push(NameSpan {
                first: before.generation,
                last: before.generation,
                rules,
            }),
        }
        let surplus = self.earlier.len().saturating_sub(MAX_SPANS);
        self.earlier.drain(..surplus);
    }
}

mod action_word {
    use engine_common::Action;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(action: &Action, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(action.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Action, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = Action::ALL.into_iter().find(|action| action.as_str() == word);
        found.ok_or_else(|| D::Error::custom(format!("`{word}` is no action")))
    }
}

mod mode_word {
    use engine_common::Mode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(mode: &Mode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(mode.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = [Mode::Enforce, Mode::Audit]
            .into_iter()
            .find(|mode| mode.as_str() == word);
        found.ok_or_else(|| D::Error::custom(format!("`{word}` is no mode")))
    }
}
