//! The policies of a command while they are live in the kernel.

use engine_common::image::Revision;

use super::{ExecError, ExecPolicy};
use crate::{
    compile::{Image, compile},
    datapath::{Identified, RunDatapath, Slot},
    events::{PolicyCounters, PolicyNames},
    launch::TransientCgroup,
};

/// Generation of a policy that is never replaced.
pub(super) const GENERATION: u64 = 1;

impl ExecPolicy {
    pub(super) fn compile(&self, identified: &Identified) -> Result<Image, ExecError> {
        let revision = Revision {
            generation: GENERATION,
            mode: self.policy.mode,
        };
        compile(&self.policy, &identified.identities, revision).map_err(|source| ExecError::Compile {
            policy: self.source.clone(),
            source,
        })
    }

    /// Its names, as events hold them.
    pub(super) fn names(&self) -> PolicyNames {
        let policy = &self.policy;
        PolicyNames {
            name: policy.name.clone(),
            rules: policy.rules.iter().map(|rule| rule.name.clone()).collect(),
            source: self.source.clone(),
            mode: policy.mode,
        }
    }
}

/// Policies, each with its slot.
pub(super) struct LivePolicies<'a> {
    datapath: &'a RunDatapath,
    installed: Vec<(Slot, &'a ExecPolicy)>,
}

impl<'a> LivePolicies<'a> {
    /// Puts policies live; `images` are theirs, in their order. No cgroup refers to them yet.
    pub(super) fn install(
        datapath: &'a RunDatapath,
        policies: &'a [ExecPolicy],
        images: &[Image],
    ) -> Result<LivePolicies<'a>, ExecError> {
        let images: Vec<&Image> = images.iter().collect();
        let slots = datapath.install(&images).map_err(ExecError::Install)?;
        Ok(LivePolicies {
            datapath,
            installed: slots.into_iter().zip(policies).collect(),
        })
    }

    pub(super) fn datapath(&self) -> &RunDatapath {
        self.datapath
    }

    /// The slots and names of all policies.
    pub(super) fn names(&self) -> impl Iterator<Item = (Slot, PolicyNames)> {
        self.installed
            .iter()
            .map(|(slot, policy)| (*slot, policy.names()))
    }

    /// Activates all policies on the cgroup, atomically.
    pub(super) fn attach(&self, cgroup: &TransientCgroup) -> Result<(), ExecError> {
        let policies: Vec<_> = self
            .installed
            .iter()
            .map(|(slot, one)| (*slot, &one.policy))
            .collect();
        let scope = self.datapath.scope(cgroup.id(), cgroup.level(), &policies);
        let scope = scope.ok_or(ExecError::TooManyPolicies {
            count: policies.len(),
        })?;
        self.datapath
            .attach(cgroup.fd(), &scope)
            .map_err(ExecError::Attach)
    }

    /// The counters of all policies.
    pub(super) fn counters(&self) -> Result<Vec<PolicyCounters>, ExecError> {
        let read = self.installed.iter().map(|(slot, one)| {
            let counts = self.datapath.counters(*slot).map_err(ExecError::Counters)?;
            Ok(policy_counters(one, &counts))
        });
        read.collect()
    }
}

/// `counts`: one for each rule in order, then the default, then faults.
fn policy_counters(of: &ExecPolicy, counts: &[u64]) -> PolicyCounters {
    let policy = &of.policy;
    let count = |i: usize| counts.get(i).copied().unwrap_or(0);
    let rules = policy.rules.iter().enumerate();
    PolicyCounters {
        name: policy.name.clone(),
        mode: policy.mode,
        generation: GENERATION,
        rules: rules
            .map(|(i, rule)| (rule.name.clone(), rule.action, count(i)))
            .collect(),
        default: (policy.default, count(policy.rules.len())),
        faults: count(policy.rules.len() + 1),
    }
}
