//! One command under its policies, from the cgroup to the report.

use std::{
    cell::RefCell,
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use engine_common::{
    image::Revision,
    limits::MAX_STACKED,
    scope::{HookSet, Scope, SlotRef},
};

use super::recorder::Recorder;
use crate::{Exit, Failure, command::policy_files::SourcedPolicy};
use tidegate_core::{
    cgroup::Hierarchy,
    compile::{Image, compile},
    datapath::{self, DatapathError, EventRing, Features, GroupName, Identified, RunDatapath, Slot},
    events::{PolicyCounters, PolicyNames},
    host::{Capabilities, PolicyUnmet, Requirements, refusal, refusal_hint, unmet},
    instance::Instance,
    launch::{
        CgroupManager, Command, Finished, OrphanAction, OrphanOutcome, Placement, SignalSource, Supervisor,
        TransientCgroup, Watch, sweep_stale,
    },
    policy::Policy,
};

/// Generation of a policy that is never replaced.
const GENERATION: u64 = 1;

/// The command, and what it runs under.
pub(super) struct Session<'a> {
    pub(super) policies: &'a [SourcedPolicy],
    pub(super) command: &'a Command,
    pub(super) descendants: OrphanAction,
    pub(super) instance: &'a Instance,
    pub(super) features: Features,
    pub(super) signals: &'a SignalSource,
    pub(super) hierarchy: &'a Hierarchy,
    /// Whether a policy that the kernel cannot fully enforce is accepted.
    pub(super) best_effort: bool,
    pub(super) cgroup_manager: CgroupManager,
}

/// A policy that is live in the kernel.
struct InstalledPolicy<'a> {
    sourced: &'a SourcedPolicy,
    slot: Slot,
}

/// The result, when the command has ended.
pub(super) struct Outcome {
    pub(super) finished: Finished,
    pub(super) duration: Duration,
    pub(super) counters: Vec<PolicyCounters>,
    pub(super) lost: u64,
    /// Duplicate events that were suppressed and that no event has reported.
    pub(super) suppressed_pending: u64,
    /// Path of the cgroup, if processes are left in it.
    pub(super) kept: Option<std::path::PathBuf>,
    pub(super) unmet: Vec<PolicyUnmet>,
}

/// Failure of `exec` itself: the command was not started, or cannot be waited for.
pub(super) fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::by(Exit::ExecFailed, error)
}

fn failed_datapath(error: &DatapathError) -> Failure {
    match error.hint() {
        Some(hint) => failed(error).hint(hint),
        None => failed(error),
    }
}

/// Runs the command under the policies and hands every event to the recorder.
///
/// # Errors
/// When the policies cannot be activated (then the command is not started), or the command cannot be started.
pub(super) fn run(session: &Session<'_>, recorder: &mut Recorder) -> Result<Outcome, Failure> {
    let (policies, hierarchy) = (session.policies, session.hierarchy);
    sweep(session.instance, hierarchy);
    // Held to the end: while the files are open, no other file gets their inode numbers.
    let identified = identify(policies)?;
    let mut images = Vec::new();
    for sourced in policies {
        images.push(image_of(sourced, &identified)?);
    }

    let datapath = RunDatapath::open(session.instance, session.features, |cgroup| hierarchy.has(cgroup))
        .map_err(|error| failed_datapath(&error))?;
    recorder.count_losses_from(datapath.lost_before());
    let unmet = unmet_of(session, &datapath)?;
    let slots = datapath
        .install(&images.iter().collect::<Vec<_>>())
        .map_err(|e| failed(&e))?;
    let mut live = Vec::new();
    for (sourced, slot) in policies.iter().zip(slots) {
        recorder
            .names_mut()
            .add_policy(slot.0, GENERATION, names_of(sourced));
        live.push(InstalledPolicy { sourced, slot });
    }

    let cgroup = create_cgroup(session)?;
    recorder
        .names_mut()
        .add_scope(cgroup.id(), scope_path(hierarchy, cgroup.path()));
    attach(&datapath, &cgroup, &live, datapath.hooks())?;
    let ring = datapath.events().map_err(|e| failed(&e));
    let started = Instant::now();
    let finished = ring.and_then(|ring| supervise(session, &cgroup, ring, recorder));
    let duration = started.elapsed();
    let finished = match finished {
        Ok(finished) => finished,
        Err(failure) => {
            // What runs in the cgroup stays under the policies: the programs are removed only after the cgroup.
            if !cgroup.populated().unwrap_or(true) {
                remove(&datapath, cgroup);
            } else {
                cgroup.keep();
            }
            return Err(failure);
        }
    };

    let lost = datapath.lost().map_err(|e| failed(&e))?;
    let duplicates = datapath.dedup_counts().map_err(|e| failed(&e))?;
    let mut counters = Vec::new();
    for policy in &live {
        counters.push(counters_of(&datapath, policy)?);
    }
    let kept = match finished.orphans {
        OrphanOutcome::Kept => Some(cgroup.keep()),
        OrphanOutcome::None | OrphanOutcome::Terminated | OrphanOutcome::Killed => {
            remove(&datapath, cgroup);
            None
        }
    };
    Ok(Outcome {
        finished,
        duration,
        counters,
        lost,
        suppressed_pending: duplicates.pending(),
        kept,
        unmet,
    })
}

/// Creates the command's cgroup where `--cgroup-manager` says. By default, a systemd that does not answer is an obstacle
/// to nothing: the cgroup is then created below that of tidegate.
fn create_cgroup(session: &Session<'_>) -> Result<TransientCgroup, Failure> {
    let manager = session.cgroup_manager;
    let placement = Placement::choose(manager, session.hierarchy, datapath::has_programs)
        .map_err(|e| failed(&e).hint("--cgroup-manager cgroupfs creates the cgroup without systemd"))?;
    match TransientCgroup::create_at(session.hierarchy, &placement) {
        Err(error) if manager == CgroupManager::Auto && placement != Placement::BelowOwn => {
            tracing::warn!(%error, "the command's cgroup is created without systemd");
            TransientCgroup::create(session.hierarchy).map_err(|e| failed(&e))
        }
        created => created.map_err(|e| failed(&e)),
    }
}

/// Removes what earlier runs left behind. A failure does not stop this run.
fn sweep(instance: &Instance, hierarchy: &Hierarchy) {
    if let Err(error) = sweep_stale(hierarchy) {
        tracing::warn!(%error, "cgroups of earlier runs were not removed");
    }
    if let Err(error) = datapath::sweep(instance, |cgroup| hierarchy.has(cgroup)) {
        tracing::warn!(%error, "pins of earlier runs were not removed");
    }
}

fn identify(policies: &[SourcedPolicy]) -> Result<Identified, Failure> {
    let identified = Identified::of(policies.iter().map(|sourced| &sourced.policy));
    identified.map_err(|error| match error.hint() {
        Some(hint) => failed(&error).hint(hint),
        None => failed(&error),
    })
}

fn image_of(sourced: &SourcedPolicy, identified: &Identified) -> Result<Image, Failure> {
    let revision = Revision {
        generation: GENERATION,
        mode: sourced.policy.mode,
    };
    compile(&sourced.policy, &identified.identities, revision).map_err(|error| {
        let message = format!("the policy {} cannot be compiled", sourced.source);
        Failure::of(Exit::ExecFailed, message).because(&error)
    })
}

fn names_of(sourced: &SourcedPolicy) -> PolicyNames {
    let policy = &sourced.policy;
    PolicyNames {
        name: policy.name.clone(),
        rules: policy.rules.iter().map(|rule| rule.name.clone()).collect(),
        source: sourced.source.clone(),
        mode: policy.mode,
    }
}

/// The path of the cgroup below the root of the hierarchy, as in events.
fn scope_path(hierarchy: &Hierarchy, directory: &Path) -> String {
    match directory.strip_prefix(hierarchy.mount_point()) {
        Ok(path) => format!("/{}", path.display()),
        Err(_) => directory.display().to_string(),
    }
}

/// The requirements of all policies that the kernel does not meet.
///
/// # Errors
/// When there are any, and they are not accepted (`--best-effort`).
fn unmet_of(session: &Session<'_>, datapath: &RunDatapath) -> Result<Vec<PolicyUnmet>, Failure> {
    let disabled = &session.instance.disabled;
    let capabilities = Capabilities::of_loaded(session.features, |group| datapath.has(group), disabled);
    let mut all = Vec::new();
    for SourcedPolicy { policy, .. } in session.policies {
        let found = unmet(&Requirements::of(policy), &capabilities);
        if !found.is_empty() && !session.best_effort {
            return Err(
                Failure::of(Exit::ExecFailed, refusal(&policy.name, &found)).hint(refusal_hint(&found))
            );
        }
        all.extend(found.into_iter().map(|unmet| PolicyUnmet {
            policy: policy.name.clone(),
            unmet,
        }));
    }
    Ok(all)
}

fn attach(
    datapath: &RunDatapath,
    cgroup: &TransientCgroup,
    live: &[InstalledPolicy<'_>],
    available: HookSet,
) -> Result<(), Failure> {
    let mut slots = [SlotRef::NONE; MAX_STACKED];
    for (reference, policy) in slots.iter_mut().zip(live) {
        let Policy { hooks, mode, .. } = &policy.sourced.policy;
        let hooks = hooks.select(available, policy.sourced.policy.needed_hooks());
        *reference = SlotRef::new(policy.slot.0, *mode).for_hooks(hooks);
    }
    // Without the egress filter, which --best-effort accepts, calls are checked and packets are not.
    let is_strict =
        datapath.has(GroupName::EgressFilter) && live.iter().any(|policy| policy.sourced.policy.strict);
    let scope = Scope {
        cgroup: cgroup.id(),
        level: cgroup.level().unwrap_or(Scope::UNKNOWN_LEVEL),
        flags: if is_strict { Scope::STRICT } else { 0 },
        slots,
    };
    datapath
        .attach(cgroup.fd(), &scope)
        .map_err(|error| failed_datapath(&error))
}

/// Removes the cgroup, and then what was attached to it: as long as it exists, it stays under the policies.
fn remove(datapath: &RunDatapath, cgroup: TransientCgroup) {
    let id = cgroup.id();
    if let Err(error) = cgroup.remove() {
        tracing::warn!(%error, "not removed; the next run tries again");
        return;
    }
    if let Err(error) = datapath.detach(id) {
        tracing::warn!(%error, "not removed; the next run tries again");
    }
}

fn supervise(
    session: &Session<'_>,
    cgroup: &TransientCgroup,
    ring: EventRing,
    recorder: &mut Recorder,
) -> Result<Finished, Failure> {
    let child = session
        .command
        .spawn(cgroup.fd(), session.signals)
        .map_err(|error| {
            let exit = match error.exit_code() {
                126 => Exit::NotExecutable,
                127 => Exit::NotFound,
                _ => Exit::ExecFailed,
            };
            Failure::by(exit, &error)
        })?;
    // The watch borrows the descriptor while its callback reads.
    let watched = ring.as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
    let reader = RefCell::new((ring, recorder));
    let mut drain = || {
        let (ring, recorder) = &mut *reader.borrow_mut();
        recorder.drain(|read| ring.take(read).is_some(), |pid| kill_late(cgroup, pid));
    };
    let finished = {
        let mut watches = [Watch {
            fd: watched.as_fd(),
            ready: &mut drain,
        }];
        let supervisor = Supervisor::new(child, cgroup, session.signals);
        supervisor
            .run(session.descendants, &mut watches)
            .map_err(|e| failed(&e))
    };
    // Events of the last processes may not have been read yet.
    drain();
    finished
}

/// Kills a process for which the hook could only deny.
fn kill_late(cgroup: &TransientCgroup, pid: u32) {
    if !cgroup.kill_member(pid) {
        tracing::debug!(pid, "the process to be killed has exited");
    }
}

fn counters_of(datapath: &RunDatapath, policy: &InstalledPolicy<'_>) -> Result<PolicyCounters, Failure> {
    let counts = datapath.counters(policy.slot).map_err(|e| failed(&e))?;
    let count = |i: usize| counts.get(i).copied().unwrap_or(0);
    let source = &policy.sourced.policy;
    let rules = source.rules.iter().enumerate();
    Ok(PolicyCounters {
        name: source.name.clone(),
        mode: source.mode,
        generation: GENERATION,
        rules: rules
            .map(|(i, rule)| (rule.name.clone(), rule.action, count(i)))
            .collect(),
        default: (source.default, count(source.rules.len())),
        faults: count(source.rules.len() + 1),
    })
}
