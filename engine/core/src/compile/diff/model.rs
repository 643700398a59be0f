//! The differences as data, in the form of the JSON output.

use engine_common::Action;
use serde::{Serialize, Serializer};

use super::{addresses::Addresses, count::AddressCount, merge::CoverageChange, selection::Selection};

/// The changes from one policy to another. Rules are identified by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyDiff {
    /// The default action.
    pub default: Option<Change>,
    /// The errno of a denial.
    pub errno: Option<Change>,
    /// `enforce` or `audit`.
    pub mode: Option<Change>,
    /// Other settings of the policy: `nat64`, `deduplicate`, `strict`.
    pub other_settings: Vec<SettingChange>,
    /// Rules that only the new policy has, in the order of the new policy.
    pub added: Vec<RuleSummary>,
    /// Rules that only the old policy has, in the order of the old policy.
    pub removed: Vec<RuleSummary>,
    /// Rules that both policies have and that differ, in the order of the new policy.
    pub changed: Vec<RuleChange>,
}

impl PolicyDiff {
    /// Whether both policies are equivalent.
    pub fn is_empty(&self) -> bool {
        *self == PolicyDiff::default()
    }
}

/// The old and the new value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Value in the old policy.
    pub old: String,
    /// Value in the new policy.
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

/// A changed setting and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingChange {
    /// Key in the policy language.
    pub name: &'static str,
    /// The values.
    #[serde(flatten)]
    pub change: Change,
}

/// A rule that is added or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSummary {
    /// Name of the rule.
    pub name: String,
    /// Action of the rule.
    #[serde(serialize_with = "action_name")]
    pub action: Action,
    /// Position among the rules of its policy, from 1.
    pub position: usize,
    /// Name of the following rule; `None` for the last.
    pub next_rule: Option<String>,
    /// Number of IPv4 addresses.
    pub ipv4: AddressCount,
    /// Number of IPv6 addresses.
    pub ipv6: AddressCount,
}

/// The changes of a rule that both policies have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// Name of the rule.
    pub name: String,
    /// Change of the action.
    pub action: Option<Change>,
    /// Change of the position relative to the rules that both policies have. The diff reports the
    /// smallest possible number of moved rules.
    pub moved: Option<RuleMove>,
    /// IPv4 addresses.
    pub ipv4: GainedLost<Addresses>,
    /// IPv6 addresses.
    pub ipv6: GainedLost<Addresses>,
    /// Protocols and ports.
    pub services: GainedLost<Selection>,
    /// User ids.
    pub uids: GainedLost<Selection>,
    /// Whether the rule selects other executables. Files are compared, not paths.
    pub executables_changed: bool,
    /// Whether the rule selects other unix sockets.
    pub unix_changed: bool,
}

impl RuleChange {
    /// Whether the rule is unchanged.
    pub(super) fn is_empty(&self) -> bool {
        self.action.is_none()
            && self.moved.is_none()
            && self.ipv4 == GainedLost::default()
            && self.ipv6 == GainedLost::default()
            && self.services == GainedLost::default()
            && self.uids == GainedLost::default()
            && !self.executables_changed
            && !self.unix_changed
    }
}

/// The old and the new position of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleMove {
    /// Position in the old policy, from 1.
    pub from: usize,
    /// Position in the new policy, from 1.
    pub to: usize,
    /// Name of the following rule in the new policy; `None` for the last.
    pub next_rule: Option<String>,
}

/// What a rule gains and what it loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GainedLost<T> {
    /// Only the rule of the new policy has it.
    pub gained: T,
    /// Only the rule of the old policy has it.
    pub lost: T,
}

impl<T> GainedLost<T> {
    pub(super) fn of(&self, change: CoverageChange) -> &T {
        match change {
            CoverageChange::Gained => &self.gained,
            CoverageChange::Lost => &self.lost,
        }
    }

    pub(super) fn of_mut(&mut self, change: CoverageChange) -> &mut T {
        match change {
            CoverageChange::Gained => &mut self.gained,
            CoverageChange::Lost => &mut self.lost,
        }
    }

    pub(super) fn map<U>(&self, to: impl Fn(&T) -> U) -> GainedLost<U> {
        GainedLost {
            gained: to(&self.gained),
            lost: to(&self.lost),
        }
    }
}

/// Serializes an action in policy syntax.
fn action_name<S: Serializer>(action: &Action, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(action.as_str())
}
