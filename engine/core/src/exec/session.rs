//! One command under its policies, from the cgroup to the counters.

use std::{os::fd::AsFd, path::PathBuf, time::Duration};

use engine_common::limits::MAX_STACKED;

use super::{
    ExecError, ExecOutcome, ExecRequest,
    live_policies::{GENERATION, LivePolicies},
    stream::{EventSink, EventStream, FindExecutable},
};
use crate::{
    cgroup::Hierarchy,
    compile::Image,
    datapath::{self, EventRing, Features, Identified, RingError, RunDatapath, path_of_process},
    events::{Clock, ClockSource, Context},
    host::{Capabilities, PolicyUnmet, Requirements, unmet},
    instance::Instance,
    launch::{
        CgroupManager, Finished, Placement, RequiredPrivileges, SignalSource, Supervisor, TransientCgroup,
        Watch, sweep_stale,
    },
};

/// A command that can be run. While it exists, signals go to the command and do not end this process: it is opened
/// before anything is created that needs cleaning up, and dropped when the results are reported.
pub struct Session {
    request: ExecRequest,
    instance: Instance,
    signals: SignalSource,
    hierarchy: Hierarchy,
}

impl Session {
    /// Checks the policies and the privileges of this process. Creates nothing.
    ///
    /// # Errors
    /// When the policies cannot be combined, or this process cannot run the command.
    pub fn open(instance: Instance, request: ExecRequest) -> Result<Session, ExecError> {
        check_policies(&request)?;
        let signals = SignalSource::open()?;
        let hierarchy = Hierarchy::find()?;
        let command = &request.command;
        RequiredPrivileges::new(&command.user, command.isolates()).check(&hierarchy)?;
        Ok(Session {
            request,
            instance,
            signals,
            hierarchy,
        })
    }

    /// Runs the command under the policies until it has ended, and hands every event to the sink.
    ///
    /// # Errors
    /// When the policies cannot be activated or the command cannot be started; or, after its start, when it cannot be
    /// waited for, which does not happen in practice.
    pub fn run<S: ClockSource>(
        &self,
        clock: Clock<S>,
        sink: &mut dyn EventSink,
    ) -> Result<ExecOutcome, ExecError> {
        self.sweep();
        let policies = &self.request.policies;
        // Held to the end: while the files are open, no other file gets their inode numbers.
        let identified = Identified::of(policies.iter().map(|one| &one.policy))?;
        let compiled = policies.iter().map(|one| one.compile(&identified));
        let images = compiled.collect::<Result<Vec<Image>, ExecError>>()?;

        let features = Features::detect(&self.instance.disabled);
        let datapath = RunDatapath::open(&self.instance, features, |cgroup| self.hierarchy.has(cgroup))
            .map_err(ExecError::Load)?;
        let unmet = self.unmet(features, &datapath)?;
        let live = LivePolicies::install(&datapath, policies, &images)?;

        let cgroup = self.create_cgroup()?;
        live.attach(&cgroup)?;
        let names = self.names(&live, &cgroup);
        let mut stream = EventStream::new(names, clock, datapath.lost_before(), sink);
        let outcome = self
            .run_in(&cgroup, &live, &mut stream)
            .map(|outcome| ExecOutcome { unmet, ..outcome });
        let kept = release(&datapath, cgroup);
        Ok(ExecOutcome { kept, ..outcome? })
    }

    /// Removes what earlier runs left behind. A failure does not stop this run.
    fn sweep(&self) {
        let hierarchy = &self.hierarchy;
        if let Err(error) = sweep_stale(hierarchy) {
            tracing::warn!(%error, "cgroups of earlier runs were not removed");
        }
        if let Err(error) = datapath::sweep(&self.instance, |cgroup| hierarchy.has(cgroup)) {
            tracing::warn!(%error, "pins of earlier runs were not removed");
        }
    }

    /// Creates the command's cgroup where the cgroup manager says. A systemd that was not demanded and does not answer
    /// prevents nothing: the cgroup is then created below that of this process.
    fn create_cgroup(&self) -> Result<TransientCgroup, ExecError> {
        let (manager, hierarchy) = (self.request.cgroup_manager, &self.hierarchy);
        let placement = Placement::choose(manager, hierarchy, datapath::has_programs)?;
        match TransientCgroup::create_at(hierarchy, &placement) {
            Err(error) if manager == CgroupManager::Auto && placement != Placement::BelowOwn => {
                tracing::warn!(%error, "the command's cgroup is created without systemd");
                Ok(TransientCgroup::create(hierarchy)?)
            }
            created => Ok(created?),
        }
    }

    /// The requirements of all policies that the kernel does not meet.
    fn unmet(&self, features: Features, datapath: &RunDatapath) -> Result<Vec<PolicyUnmet>, ExecError> {
        let disabled = &self.instance.disabled;
        let capabilities = Capabilities::of_loaded(features, |group| datapath.has(group), disabled);
        let calls = datapath.calls();
        let mut all = Vec::new();
        for one in &self.request.policies {
            let name = &one.policy.name;
            let requirements = Requirements::of(&one.policy);
            let found = unmet(
                &requirements,
                &capabilities.clone().tried_for(&requirements, &calls),
            );
            if !found.is_empty() && !self.request.best_effort {
                return Err(ExecError::Partial {
                    name: name.clone(),
                    unmet: found,
                });
            }
            all.extend(found.into_iter().map(|unmet| PolicyUnmet {
                policy: name.clone(),
                unmet,
            }));
        }
        Ok(all)
    }

    fn names(&self, live: &LivePolicies<'_>, cgroup: &TransientCgroup) -> Context<FindExecutable> {
        let mut names = Context::new(path_of_process as FindExecutable);
        for (slot, of) in live.names() {
            names.add_policy(slot.0, GENERATION, of);
        }
        let path = self.hierarchy.hierarchy_path(cgroup.path());
        names.add_scope(cgroup.id(), path.to_string_lossy());
        names
    }

    /// Runs the command in the cgroup and reads the counters.
    fn run_in<S: ClockSource>(
        &self,
        cgroup: &TransientCgroup,
        live: &LivePolicies<'_>,
        stream: &mut EventStream<'_, S>,
    ) -> Result<ExecOutcome, ExecError> {
        let ring = live.datapath().events()?;
        let started = stream.clock().ktime_ns().map_err(ExecError::Clock)?;
        let finished = self.supervise(cgroup, ring, stream)?;
        let ended = stream.clock().ktime_ns().map_err(ExecError::Clock)?;

        stream.end(live.datapath().lost().map_err(ExecError::Counters)?);
        let duplicates = live.datapath().dedup_counts().map_err(ExecError::Counters)?;
        Ok(ExecOutcome {
            finished,
            duration: Duration::from_nanos(ended.saturating_sub(started)),
            counters: live.counters()?,
            suppressed_pending: duplicates.pending(),
            skipped: stream.skipped(),
            kept: None,
            unmet: Vec::new(),
        })
    }

    /// Starts the command, and reads the ring until it and those that outlive it have ended or are kept.
    fn supervise<S: ClockSource>(
        &self,
        cgroup: &TransientCgroup,
        mut ring: EventRing,
        stream: &mut EventStream<'_, S>,
    ) -> Result<Finished, ExecError> {
        // The watch borrows the descriptor while its callback reads.
        let watched = ring.as_fd().try_clone_to_owned().map_err(RingError::Wait)?;
        let mut drain = || {
            stream.drain(|read| ring.take(read).is_some(), |pid| kill_late(cgroup, pid));
        };
        let child = self.request.command.spawn(cgroup.fd(), &self.signals)?;
        let mut watches = [Watch {
            fd: watched.as_fd(),
            ready: &mut drain,
        }];
        let supervisor = Supervisor::new(child, cgroup, &self.signals);
        let finished = supervisor.run(self.request.orphans, &mut watches);
        // Events of the last processes may not have been read yet.
        drain();
        Ok(finished?)
    }
}

fn check_policies(request: &ExecRequest) -> Result<(), ExecError> {
    let only_reports = |one: &&super::ExecPolicy| !one.policy.hooks.supports_mode(one.policy.mode);
    if let Some(one) = request.policies.iter().find(only_reports) {
        return Err(ExecError::OnlyReports {
            policy: one.source.clone(),
        });
    }
    match request.policies.len() {
        0 => Err(ExecError::NoPolicy),
        1..=MAX_STACKED => Ok(()),
        count => Err(ExecError::TooManyPolicies { count }),
    }
}

/// Kills a process for which the hook could only deny.
fn kill_late(cgroup: &TransientCgroup, pid: u32) {
    if !cgroup.kill_member(pid) {
        tracing::debug!(pid, "the process to be killed has exited");
    }
}

/// Removes the cgroup, and then what was attached to it: as long as it exists, it stays under the policies. Returns its
/// path if it is kept, because processes are left in it.
fn release(datapath: &RunDatapath, cgroup: TransientCgroup) -> Option<PathBuf> {
    // If that cannot be read there may be some.
    if cgroup.populated().unwrap_or(true) {
        return Some(cgroup.keep());
    }
    let id = cgroup.id();
    let removed = cgroup.remove().map_err(|error| error.to_string());
    let removed = removed.and_then(|()| datapath.detach(id).map_err(|error| error.to_string()));
    if let Err(error) = removed {
        tracing::warn!(error, "not removed; the next run tries again");
    }
    None
}

#[cfg(test)]
mod tests {
    use engine_common::{Action, Mode, scope::HookSet};

    use super::*;
    use crate::{
        exec::ExecPolicy,
        hint::Hint,
        launch::{Command, Environment, OrphanAction},
        policy::{Hooks, LoadContext, Policy, from_flags},
    };

    fn policy(mode: Mode, hooks: Hooks) -> ExecPolicy {
        let resolve = |_: &str| Ok(Vec::new());
        let made = from_flags(&[], Some(Action::Audit), mode, &LoadContext::default(), &resolve);
        ExecPolicy {
            policy: Policy {
                hooks,
                ..made.unwrap().policy
            },
            source: "p.yaml".to_owned(),
        }
    }

    fn error(policies: Vec<ExecPolicy>) -> Option<(String, Option<String>)> {
        let request = ExecRequest {
            policies,
            command: Command::new("true", Environment::default()),
            orphans: OrphanAction::default(),
            best_effort: false,
            cgroup_manager: CgroupManager::default(),
        };
        let error = check_policies(&request).err()?;
        Some((error.to_string(), error.hint()))
    }

    #[test]
    fn a_command_has_as_many_policies_as_a_cgroup_can_have() {
        let some = |count| vec![policy(Mode::Enforce, Hooks::Auto); count];
        assert_eq!(error(some(1)), None);
        assert_eq!(error(some(MAX_STACKED)), None);
        assert_eq!(error(some(0)), Some(("no policy given".to_owned(), None)));
        let (text, hint) = error(some(MAX_STACKED + 1)).unwrap();
        assert_eq!(text, "9 policies, but a cgroup can have at most 8");
        assert_eq!(hint.as_deref(), Some("merge policies into one file"));
    }

    #[test]
    fn a_policy_that_only_observes_is_refused_in_mode_enforce() {
        let kprobe = Hooks::Only(HookSet::TRACER);
        assert_eq!(error(vec![policy(Mode::Audit, kprobe)]), None);
        let (text, hint) = error(vec![
            policy(Mode::Enforce, Hooks::Auto),
            policy(Mode::Enforce, kprobe),
        ])
        .unwrap();
        assert_eq!(text, "policy p.yaml has only the hook kprobe, which cannot deny");
        assert!(hint.unwrap().starts_with("remove --mode"));
    }
}
