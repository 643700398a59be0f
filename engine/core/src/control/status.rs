//! The state of attached policies, as data.

use std::collections::HashSet;

use engine_common::{Action, Mode, scope::HookSet};
use serde::Serialize;

use super::{
    Control,
    error::ControlError,
    record::{Actor, Record, RuleName, Version, action_word, mode_word},
    scope,
    totals::Totals,
};
use crate::{
    datapath::{GroupName, LinkState, Slot},
    host::{Enforcement, Unmet, not_called},
};

/// The state of everything that is attached.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The policies, by name.
    pub policies: Vec<PolicyStatus>,
    /// Ids of cgroups with policies that the journal does not name: its records were lost.
    pub unknown_cgroups: Vec<u64>,
    /// The LSM programs, which run for the whole machine; empty where they cannot run.
    pub lsm: Vec<HookStatus>,
    /// Why LSM programs cannot run here: sockets created in another cgroup are then checked by the policies of that cgroup
    /// only, other address families and unix sockets not at all.
    pub lsm_unavailable_reason: Option<String>,
    /// The programs that report cgroup migrations, which run for the whole machine; empty where they are not loaded.
    pub migration: Vec<HookStatus>,
    /// Why cgroup migrations are not reported; enforcement does not depend on it.
    pub migration_unavailable_reason: Option<String>,
    /// Events lost because the ring was full; verdicts and counters do not depend on it.
    pub events_lost: u64,
    /// Duplicate events that were suppressed.
    pub suppressed: u64,
    /// Suppressed events that no later event has reported yet.
    pub suppressed_pending: u64,
}

/// State of a policy on one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentState {
    /// The scope of the cgroup has the policy.
    Active,
    /// The scope of the cgroup does not have the policy.
    Inactive,
    /// The cgroup was removed, and the policy was detached with it.
    CgroupRemoved,
}

impl AttachmentState {
    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttachmentState::Active => "active",
            AttachmentState::Inactive => "inactive",
            AttachmentState::CgroupRemoved => "cgroup_removed",
        }
    }
}

/// An attached policy.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// How much of it is enforced; see `reasons` and the states of `attachments`.
    pub enforcement: Enforcement,
    /// Why it is not fully enforced, as text.
    pub reasons: Vec<String>,
    /// Its requirements that this kernel does not meet; also among the reasons.
    pub unmet: Vec<Unmet>,
    /// Its mode.
    #[serde(serialize_with = "mode_word::serialize")]
    pub mode: Mode,
    /// The generation that is live.
    pub generation: u64,
    /// Path of the policy file.
    pub source: String,
    /// Who put this version live.
    pub by: Actor,
    /// When, in UTC (RFC 3339).
    pub since: String,
    /// The cgroups it is attached to.
    pub attachments: Vec<AttachmentStatus>,
    /// Attempts that it decided, over all versions.
    pub totals: Totals,
    /// Attempts that each rule decided in this version.
    pub rules: Vec<RuleStatus>,
    /// Attempts that the default decided in this version.
    pub default: RuleStatus,
    /// Kernel memory of its map, in bytes.
    pub memory: u64,
}

/// The counter of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleStatus {
    /// Name of the rule.
    pub name: String,
    /// Its action.
    #[serde(serialize_with = "action_word::serialize")]
    pub action: Action,
    /// Attempts that it decided in this version.
    pub attempts: u64,
}

/// A policy on one cgroup.
#[derive(Clone, Debug, Serialize)]
pub struct AttachmentStatus {
    /// Path of the cgroup.
    pub cgroup: String,
    /// Id of the cgroup.
    pub cgroup_id: u64,
    /// Whether the policy is active there.
    pub state: AttachmentState,
    /// Who attached it.
    pub by: Actor,
    /// When, in UTC (RFC 3339).
    pub since: String,
    /// The hooks of the cgroup.
    pub hooks: Vec<HookStatus>,
}

/// A program at a hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// Name of the program.
    pub hook: &'static str,
    /// State of its link.
    pub state: LinkState,
}

impl Control {
    /// Reads the state from journal and kernel.
    ///
    /// # Errors
    /// [`ControlError`] when one of them cannot be read.
    pub fn status(&self) -> Result<Status, ControlError> {
        let duplicates = self.datapath.dedup_counts()?;
        let mut policies = Vec::new();
        let mut known = HashSet::new();
        for record in self.journal.records()? {
            known.extend(record.attachments.iter().map(|attachment| attachment.cgroup));
            policies.push(self.policy_status(record)?);
        }
        let mut unknown_cgroups = self.datapath.cgroups()?;
        unknown_cgroups.retain(|cgroup| !known.contains(cgroup) && self.hierarchy.has(*cgroup));
        Ok(Status {
            policies,
            unknown_cgroups,
            lsm: hooks(self.datapath.link_states(GroupName::Lsm, NO_CGROUP)),
            lsm_unavailable_reason: self.lsm_unavailable_reason(),
            migration: hooks(self.datapath.link_states(GroupName::Migration, NO_CGROUP)),
            migration_unavailable_reason: self.migration_unavailable_reason(),
            events_lost: self.datapath.lost()?,
            suppressed: duplicates.suppressed,
            suppressed_pending: duplicates.pending(),
        })
    }

    fn lsm_unavailable_reason(&self) -> Option<String> {
        let known = self.capabilities().unavailable_reason(GroupName::Lsm);
        let known = known.map(str::to_owned);
        known.or_else(|| self.attached_but_not_called(GroupName::Lsm))
    }

    /// Why the kernel does not call the programs of a group; nothing is tried unless some are attached.
    fn attached_but_not_called(&self, group: GroupName) -> Option<String> {
        let mut states = self.datapath.link_states(group, NO_CGROUP).into_iter();
        let is_attached = states.any(|(_, state)| state == LinkState::Attached);
        is_attached
            .then(|| self.calls.never_called_reason(group))
            .flatten()
    }

    fn migration_unavailable_reason(&self) -> Option<String> {
        if !self.datapath.has(GroupName::Migration) {
            let reason = GroupName::Migration.unavailable_reason(&self.invocation.instance.disabled);
            return Some(reason.unwrap_or_else(|| {
                "the kernel refused the programs when the first policy was attached; `tidegate detach --all` and \
                 attaching again retries"
                    .to_owned()
            }));
        }
        let states = self
            .datapath
            .link_states(GroupName::Migration, NO_CGROUP)
            .into_iter();
        let missing: Vec<&str> = states
            .filter(|(_, state)| *state != LinkState::Attached)
            .map(|(program, _)| program)
            .collect();
        if !missing.is_empty() {
            return Some(format!(
                "not attached: {}; attach a policy again",
                missing.join(", ")
            ));
        }
        self.attached_but_not_called(GroupName::Migration)
    }

    fn policy_status(&self, record: Record) -> Result<PolicyStatus, ControlError> {
        let slot = Slot(record.slot);
        let live = self.datapath.live(slot)?;
        let (counters, memory) = match &live {
            Some(live) => (live.counters()?, live.memory()?),
            None => (Vec::new(), 0),
        };
        let mut totals = record.superseded.clone();
        totals.add(&record.live, &counters);
        let mut attachments = Vec::new();
        let needed = record.live.hooks_of(self.datapath.hooks());
        for attachment in &record.attachments {
            attachments.push(self.attachment_status(slot, needed, attachment)?);
        }
        let unmet = self.unmet_now(&record.live, needed);
        let mut reasons: Vec<String> = unmet.iter().map(Unmet::to_string).collect();
        if live.is_none() {
            reasons.push("its map is gone from the kernel: every attempt is a fault".to_owned());
        }
        let missing_lsm: Vec<&str> = GroupName::enforcing(needed, false)
            .filter(|group| *group == GroupName::Lsm)
            .flat_map(|group| self.datapath.link_states(group, NO_CGROUP))
            .filter(|(_, state)| *state != LinkState::Attached)
            .map(|(hook, _)| hook)
            .collect();
        for attachment in &attachments {
            if attachment.state == AttachmentState::Inactive {
                reasons.push(format!(
                    "{}: the policy is not active on its cgroup; attach it again",
                    attachment.cgroup
                ));
            }
            let hooks = attachment.hooks.iter();
            let missing: Vec<&str> = hooks
                .filter(|hook| hook.state != LinkState::Attached)
                .map(|hook| hook.hook)
                .chain(missing_lsm.iter().copied())
                .collect();
            if attachment.state != AttachmentState::CgroupRemoved && !missing.is_empty() {
                reasons.push(format!(
                    "{}: not attached: {}; attach it again",
                    attachment.cgroup,
                    missing.join(", ")
                ));
            }
        }
        for executable in &record.live.executables {
            if !is_unchanged(&executable.path, executable.inode) {
                reasons.push(format!(
                    "{} was replaced after the policy went live; apply the policy again",
                    executable.path
                ));
            }
        }
        let active = attachments
            .iter()
            .filter(|attachment| attachment.state == AttachmentState::Active)
            .count();
        let enforcement = match active {
            0 => Enforcement::None,
            all if all == attachments.len() && reasons.is_empty() => Enforcement::Full,
            _ => Enforcement::Partial,
        };
        let count = |i: usize| counters.get(i).copied().unwrap_or(0);
        let version = record.live;
        let rule = |(i, rule): (usize, &RuleName)| RuleStatus {
            name: rule.name.clone(),
            action: rule.action,
            attempts: count(i),
        };
        Ok(PolicyStatus {
            rules: version.rules.iter().enumerate().map(rule).collect(),
            default: RuleStatus {
                name: "(default)".to_owned(),
                action: version.default,
                attempts: count(version.rules.len()),
            },
            name: record.name,
            enforcement,
            reasons,
            unmet,
            mode: version.mode,
            generation: version.generation,
            source: version.source,
            by: version.by,
            since: version.since,
            attachments,
            totals,
            memory,
        })
    }

    /// What was unmet when the version went live, and what is unmet now. `used` are the kinds of hooks that were attached for
    /// it.
    fn unmet_now(&self, version: &Version, used: HookSet) -> Vec<Unmet> {
        let mut found = version.partial.clone();
        let now = self.unmet(version).into_iter();
        for one in now.chain(not_called(&version.requirements(), used, &self.calls)) {
            if found.iter().all(|known| known.feature != one.feature) {
                found.push(one);
            }
        }
        found
    }

    fn attachment_status(
        &self,
        slot: Slot,
        needed: HookSet,
        attachment: &super::Attachment,
    ) -> Result<AttachmentStatus, ControlError> {
        let scope = self.scope_of(attachment.cgroup, &attachment.path)?;
        let state = if !self.hierarchy.has(attachment.cgroup) {
            AttachmentState::CgroupRemoved
        } else if scope.is_some_and(|scope| scope::has(&scope, slot)) {
            AttachmentState::Active
        } else {
            AttachmentState::Inactive
        };
        let is_strict = scope.is_some_and(|scope| scope.is_strict());
        // The LSM programs are listed once, in `Status::lsm`.
        let states = GroupName::enforcing(needed, is_strict)
            .filter(|group| *group != GroupName::Lsm)
            .flat_map(|group| self.datapath.link_states(group, attachment.cgroup));
        Ok(AttachmentStatus {
            cgroup: attachment.path.clone(),
            cgroup_id: attachment.cgroup,
            state,
            by: attachment.by.clone(),
            since: attachment.since.clone(),
            hooks: hooks(states),
        })
    }
}

/// Programs for the whole machine have the same links for every cgroup.
const NO_CGROUP: u64 = 0;

fn hooks(states: impl IntoIterator<Item = (&'static str, LinkState)>) -> Vec<HookStatus> {
    let states = states.into_iter();
    states.map(|(hook, state)| HookStatus { hook, state }).collect()
}

fn is_unchanged(path: &str, inode: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.ino() == inode)
}
