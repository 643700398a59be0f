//! The differences as data: what `--output json` prints.

use engine_common::Action;
use serde::{Serialize, Serializer};

use super::{addresses::Addresses, count::Count, merge::Fate, selection::Selection};

/// What changes from one policy to another. Rules are told apart by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyDiff {
    /// The default action.
    pub default: Option<Change>,
    /// The errno of a denial.
    pub errno: Option<Change>,
    /// Whether the policy acts.
    pub mode: Option<Change>,
    /// Whatever else holds for the whole policy, by its name: `nat64`, `fold`, `strict`.
    pub other_settings: Vec<SettingChange>,
    /// Rules that only the new policy has, in its order.
    pub added: Vec<RuleSummary>,
    /// Rules that only the old policy has, in its order.
    pub removed: Vec<RuleSummary>,
    /// Rules that both have and that differ, in the new policy's order.
    pub changed: Vec<RuleChange>,
}

impl PolicyDiff {
    /// Whether both policies mean the same.
    pub fn is_empty(&self) -> bool {
        *self == PolicyDiff::default()
    }
}

/// What it was and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it was.
    pub old: String,
    /// What it is.
    pub new: String,
}

impl Change {
    pub(super) fn of(old: &str, new: &str) -> Change {
        Change {
            old: old.to_owned(),
            new: new.to_owned(),
        }
    }
}

/// Another setting that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingChange {
    /// Its name in the policy language.
    pub name: &'static str,
    /// Its values.
    #[serde(flatten)]
    pub change: Change,
}

/// A rule that is added or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// What it says.
    #[serde(serialize_with = "word")]
    pub action: Action,
    /// Its place among the rules of its policy; 1 is asked first.
    pub position: usize,
    /// The rule behind it; `None` for the last.
    pub before: Option<String>,
    /// Its IPv4 addresses.
    pub ipv4: Count,
    /// Its IPv6 addresses.
    pub ipv6: Count,
}

/// What changes of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// Its name.
    pub name: String,
    /// What it says.
    pub action: Option<Change>,
    /// Where it went, if its order among the rules that both policies have is another. No fewer
    /// rules could have moved.
    pub moved: Option<Moved>,
    /// IPv4 addresses.
    pub ipv4: Both<Addresses>,
    /// IPv6 addresses.
    pub ipv6: Both<Addresses>,
    /// Protocols and ports.
    pub services: Both<Selection>,
    /// User ids.
    pub uids: Both<Selection>,
    /// Whether it is about other executables: other files, whatever their paths.
    pub executables_changed: bool,
    /// Whether it is about other unix sockets.
    pub unix_changed: bool,
}

impl RuleChange {
    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.action.is_none()
            && self.moved.is_none()
            && self.ipv4 == Both::default()
            && self.ipv6 == Both::default()
            && self.services == Both::default()
            && self.uids == Both::default()
            && !self.executables_changed
            && !self.unix_changed
    }
}

/// Where a rule went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Its place in the old policy; 1 is asked first.
    pub from: usize,
    /// Its place in the new one.
    pub to: usize,
    /// The rule behind it in the new policy; `None` where it is the last.
    pub before: Option<String>,
}

/// What is gained and what is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Both<T> {
    /// Only the new policy's rule has it.
    pub gained: T,
    /// Only the old policy's rule has it.
    pub lost: T,
}

impl<T> Both<T> {
    pub(super) fn of(&self, fate: Fate) -> &T {
        match fate {
            Fate::Gained => &self.gained,
            Fate::Lost => &self.lost,
        }
    }

    pub(super) fn of_mut(&mut self, fate: Fate) -> &mut T {
        match fate {
            Fate::Gained => &mut self.gained,
            Fate::Lost => &mut self.lost,
        }
    }

    pub(super) fn map<U>(&self, to: impl Fn(&T) -> U) -> Both<U> {
        Both {
            gained: to(&self.gained),
            lost: to(&self.lost),
        }
    }
}

/// The action as the policy language writes it.
fn word<S: Serializer>(action: &Action, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(action.as_str())
}
