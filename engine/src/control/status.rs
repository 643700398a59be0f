//! What stands, as data.

use std::collections::HashSet;

use engine_common::scope::HookSet;
use serde::Serialize;

use super::{
    Standing,
    error::ControlError,
    record::{Actor, Record, RuleName},
    scope,
    totals::Totals,
};
use crate::datapath::{LinkState, Slot, lsm_unavailable_reason, migration_unavailable_reason};

/// Everything there is to know.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The policies, by name.
    pub policies: Vec<PolicyStatus>,
    /// Ids of cgroups that carry policies which the journal does not name: its records were lost.
    pub unknown_cgroups: Vec<u64>,
    /// The LSM programs, which run for the whole machine; empty where they cannot run.
    pub lsm: Vec<HookStatus>,
    /// Why LSM programs cannot run here: sockets made elsewhere are then judged by their own cgroup's policies only,
    /// other families and unix sockets not at all.
    pub lsm_unavailable_reason: Option<String>,
    /// The programs that tell who leaves a cgroup, which run for the whole machine; empty where the gate has none.
    pub moves: Vec<HookStatus>,
    /// Why it is not reported who leaves a cgroup; nothing that is enforced depends on it.
    pub migration_unavailable_reason: Option<String>,
    /// Events lost because the ring was full; verdicts and counters do not depend on it.
    pub events_lost: u64,
    /// Repeats that were folded into later events.
    pub repeats_folded: u64,
    /// Those of them that no event has told yet.
    pub repeats_untold: u64,
}

/// A policy that stands.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// `full`, `partial` (see `reasons`, and the states of `attachments`), or `none` where it stands on no
    /// cgroup that is left.
    pub enforcement: &'static str,
    /// Why it is not enforced fully.
    pub reasons: Vec<String>,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// Its version.
    pub generation: u64,
    /// The file it came from.
    pub source: String,
    /// Who put this version live.
    pub by: Actor,
    /// When.
    pub since: String,
    /// Where it stands.
    pub attachments: Vec<AttachmentStatus>,
    /// What was decided, over all versions.
    pub totals: Totals,
    /// What this version decided, by rule.
    pub rules: Vec<RuleStatus>,
    /// What this version decided by default.
    pub default: RuleStatus,
    /// Kernel memory of its tables, bytes.
    pub memory: u64,
}

/// A rule's counter.
#[derive(Clone, Debug, Serialize)]
pub struct RuleStatus {
    /// Name of the rule.
    pub name: String,
    /// What it says.
    pub action: &'static str,
    /// Attempts that it decided in this version.
    pub attempts: u64,
}

/// A place where a policy stands.
#[derive(Clone, Debug, Serialize)]
pub struct AttachmentStatus {
    /// Path of the cgroup.
    pub cgroup: String,
    /// Its id.
    pub cgroup_id: u64,
    /// `in force`, `gone` (the cgroup was removed, and the policy went with it), or `not in force`.
    pub state: &'static str,
    /// Who attached it.
    pub by: Actor,
    /// When.
    pub since: String,
    /// Its hooks.
    pub hooks: Vec<HookStatus>,
}

/// A hook of a cgroup.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// Its name.
    pub hook: &'static str,
    /// `attached`, `detached` or `missing`.
    pub state: &'static str,
}

impl Standing {
    /// Asks journal and kernel.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn status(&self) -> Result<Status, ControlError> {
        let folds = self.gate.dedup_counts()?;
        let mut policies = Vec::new();
        let mut known = HashSet::new();
        for record in self.journal.records()? {
            known.extend(record.attachments.iter().map(|there| there.cgroup));
            policies.push(self.policy_status(record)?);
        }
        let mut unknown_cgroups = self.gate.cgroups()?;
        unknown_cgroups.retain(|cgroup| !known.contains(cgroup) && self.hierarchy.has(*cgroup));
        Ok(Status {
            policies,
            unknown_cgroups,
            lsm: hooks(self.gate.lsm_states()),
            lsm_unavailable_reason: lsm_unavailable_reason(),
            moves: hooks(self.gate.migration_states()),
            migration_unavailable_reason: self.migration_unavailable_reason(),
            events_lost: self.gate.lost()?,
            repeats_folded: folds.folded,
            repeats_untold: folds.folded.saturating_sub(folds.told),
        })
    }

    fn migration_unavailable_reason(&self) -> Option<String> {
        if !self.gate.has_migration() {
            return Some(migration_unavailable_reason().unwrap_or_else(|| {
                "the programs for it were not loaded when the first policy was attached; `tidegate detach --all` \
                 and attaching anew tries again"
                    .to_owned()
            }));
        }
        let states = self.gate.migration_states().into_iter();
        let lacking: Vec<&str> = states
            .filter(|(_, state)| *state != LinkState::Attached)
            .map(|(program, _)| program)
            .collect();
        (!lacking.is_empty()).then(|| format!("not attached: {}: attach a policy again", lacking.join(", ")))
    }

    fn policy_status(&self, record: Record) -> Result<PolicyStatus, ControlError> {
        let slot = Slot(record.slot);
        let live = self.gate.live(slot)?;
        let (counters, memory) = match &live {
            Some(live) => (live.counters()?, live.memory()?),
            None => (Vec::new(), 0),
        };
        let mut totals = record.retired.clone();
        totals.add(&record.live, &counters);
        let mut attachments = Vec::new();
        let wanted = record.live.hooks_of(self.gate.hooks());
        for there in &record.attachments {
            attachments.push(self.attachment_status(slot, wanted, there)?);
        }
        let mut reasons = record.live.partial.clone();
        if live.is_none() {
            reasons.push("its tables are not in the kernel any more: every attempt is a fault".to_owned());
        }
        let lsm = self.gate.lsm_states().into_iter();
        let lsm = lsm.filter(|_| wanted.contains(HookSet::LSM));
        let unix = self.gate.unix_states().into_iter();
        let unix = unix.filter(|_| wanted.contains(HookSet::UNIX));
        let lacking_lsm: Vec<&str> = lsm
            .chain(unix)
            .filter(|(_, state)| *state != LinkState::Attached)
            .map(|(hook, _)| hook)
            .collect();
        for there in &attachments {
            if there.state == "not in force" {
                reasons.push(format!(
                    "{}: its cgroup does not refer to it: attach it again",
                    there.cgroup
                ));
            }
            let lacking: Vec<&str> = there
                .hooks
                .iter()
                .filter(|hook| hook.state != "attached")
                .map(|hook| hook.hook)
                .collect();
            let lacking: Vec<&str> = lacking.into_iter().chain(lacking_lsm.iter().copied()).collect();
            if there.state != "gone" && !lacking.is_empty() {
                reasons.push(format!(
                    "{}: not attached: {}: attach it again",
                    there.cgroup,
                    lacking.join(", ")
                ));
            }
        }
        for executable in &record.live.executables {
            if !is_still(&executable.path, executable.inode) {
                reasons.push(format!(
                    "{} is another file than when the policy was put live: apply it again",
                    executable.path
                ));
            }
        }
        let in_force = attachments
            .iter()
            .filter(|there| there.state == "in force")
            .count();
        let enforcement = match in_force {
            0 => "none",
            all if all == attachments.len() && reasons.is_empty() => "full",
            _ => "partial",
        };
        let count = |i: usize| counters.get(i).copied().unwrap_or(0);
        let version = record.live;
        let rule = |(i, rule): (usize, &RuleName)| RuleStatus {
            name: rule.name.clone(),
            action: rule.action.as_str(),
            attempts: count(i),
        };
        Ok(PolicyStatus {
            rules: version.rules.iter().enumerate().map(rule).collect(),
            default: RuleStatus {
                name: "(default)".to_owned(),
                action: version.default.as_str(),
                attempts: count(version.rules.len()),
            },
            name: record.name,
            enforcement,
            reasons,
            mode: version.mode.as_str(),
            generation: version.generation,
            source: version.source,
            by: version.by,
            since: version.since,
            attachments,
            totals,
            memory,
        })
    }

    fn attachment_status(
        &self,
        slot: Slot,
        wanted: HookSet,
        there: &super::Attachment,
    ) -> Result<AttachmentStatus, ControlError> {
        let scope = self.scope_of(there.cgroup, &there.path)?;
        let state = if !self.hierarchy.has(there.cgroup) {
            "gone"
        } else if scope.is_some_and(|scope| scope::has(&scope, slot)) {
            "in force"
        } else {
            "not in force"
        };
        let mut states = Vec::new();
        if wanted.contains(HookSet::CGROUP) {
            let strict = scope.is_some_and(|scope| scope.is_strict());
            states.extend(self.gate.link_states(there.cgroup, strict));
        }
        if wanted.contains(HookSet::TRACER) {
            states.extend(self.gate.tracer_state());
        }
        if wanted.contains(HookSet::UNIX) {
            states.extend(self.gate.unix_states());
        }
        Ok(AttachmentStatus {
            cgroup: there.path.clone(),
            cgroup_id: there.cgroup,
            state,
            by: there.by.clone(),
            since: there.since.clone(),
            hooks: hooks(states),
        })
    }
}

fn hooks(states: Vec<(&'static str, LinkState)>) -> Vec<HookStatus> {
    let status = |(hook, link)| HookStatus {
        hook,
        state: match link {
            LinkState::Attached => "attached",
            LinkState::Detached => "detached",
            LinkState::Missing => "missing",
        },
    };
    states.into_iter().map(status).collect()
}

fn is_still(path: &str, inode: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.ino() == inode)
}
