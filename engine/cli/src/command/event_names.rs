//! Names for the ids in events of attached policies, from the journal.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use engine_common::ExecutableId;

use super::attached;
use crate::{Failure, environment};
use tidegate_core::{
    cgroup::Hierarchy,
    control::Control,
    datapath::path_of_process,
    events::{CgroupMigration, Context, Event, Names as _, PolicyNames},
};

type FindExecutable = fn(u32, ExecutableId) -> Option<PathBuf>;

/// Names of policies and cgroups. The journal is read again when an event has an unknown id.
pub(super) struct EventNames {
    context: Context<FindExecutable>,
    known: HashMap<u32, Vec<(u64, u64)>>,
    paths: HashMap<u64, String>,
    /// Ids of cgroups that are not in the journal.
    unknown: HashSet<u64>,
}

impl EventNames {
    pub(super) fn of(control: &Control) -> Result<EventNames, Failure> {
        let hierarchy = control.hierarchy().clone();
        let path = move |id| Some(hierarchy.path_of(id)?.to_string_lossy().into_owned());
        let mut names = EventNames {
            context: Context::new(path_of_process as FindExecutable).with_cgroups(path),
            known: HashMap::new(),
            paths: HashMap::new(),
            unknown: HashSet::new(),
        };
        names.read(control).map_err(attached::failed)?;
        Ok(names)
    }

    pub(super) fn context(&self) -> &Context<FindExecutable> {
        &self.context
    }

    /// The path of a cgroup with attached policies.
    pub(super) fn path(&self, cgroup: u64) -> Option<&String> {
        self.paths.get(&cgroup)
    }

    /// Looks up the executable of a process, and caches it.
    pub(super) fn executable(&self, pid: u32, id: ExecutableId) -> Option<PathBuf> {
        self.context.executable(pid, id)
    }

    fn read(&mut self, control: &Control) -> Result<(), tidegate_core::control::ControlError> {
        self.known.clear();
        for of in control.slot_names()? {
            let names = PolicyNames {
                name: of.policy,
                rules: of.rules,
                source: of.source,
                // Events have their own mode.
                mode: engine_common::Mode::Enforce,
            };
            let (first, last) = of.generations;
            self.known.entry(of.slot).or_default().push((first, last));
            self.context.add_policy_span(of.slot, first, last, names);
        }
        for (cgroup, path) in control.cgroup_names()? {
            self.context.add_scope(cgroup, path.clone());
            self.paths.insert(cgroup, path);
        }
        Ok(())
    }

    /// Reads the journal again if the policy or generation of the event is unknown.
    pub(super) fn learn(&mut self, event: &Event) {
        let Some(slot) = event.slot else { return };
        let spans = self.known.entry(slot).or_default();
        let is_known = |(first, last): &(u64, u64)| (*first..=*last).contains(&event.generation);
        if event.generation == 0 || spans.iter().any(is_known) {
            return;
        }
        // Once per generation: names are not added to the journal later.
        self.read_again();
        let spans = self.known.entry(slot).or_default();
        spans.push((event.generation, event.generation));
    }

    /// Reads the journal again if the cgroup of the migration or a policy is unknown.
    pub(super) fn learn_migration(&mut self, migration: &CgroupMigration) {
        let knows_all = migration.slots.iter().all(|slot| self.known.contains_key(slot));
        let knows_scope = self.paths.contains_key(&migration.scope);
        if (knows_all && knows_scope) || !self.unknown.insert(migration.scope) {
            return;
        }
        self.read_again();
    }

    fn read_again(&mut self) {
        let reread = Hierarchy::find()
            .ok()
            .zip(environment::invocation().ok())
            .and_then(|(hierarchy, invocation)| Control::open(&invocation, hierarchy, |_| {}).ok().flatten());
        if let Some(control) = reread
            && let Err(error) = self.read(&control)
        {
            tracing::warn!(%error, "the journal cannot be read");
        }
    }
}
