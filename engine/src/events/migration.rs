//! A task that has left a cgroup which carries policies, with every number understood.

use jiff::Timestamp;

use super::{clock::Clock, context::Names, event::Comm};

/// That a process, or a thread of one, is under some policies no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMigration {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// Id of the cgroup that carries the policies.
    pub scope: u64,
    /// Id of the cgroup that it was in: that one, or one below.
    pub from: u64,
    /// Id of the cgroup that it is in now.
    pub to: u64,
    /// Slots of the policies that it left.
    pub slots: Vec<u32>,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Thread id: of a whole process, that of its first thread.
    pub tid: u32,
    /// Name of that thread.
    pub comm: Comm,
    /// Whether the whole process left, or that thread alone.
    pub is_whole: bool,
    /// Whether it was made elsewhere (clone3 with CLONE_INTO_CGROUP), and not moved.
    pub is_clone_into_cgroup: bool,
    /// Process that moved or made it.
    pub by: MigratedBy,
    /// Records lost in this ring before this one, since it was made.
    pub lost: u64,
}

/// Who moved a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigratedBy {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Name of the thread that did it.
    pub comm: Comm,
}

/// A migration with its names and its wall time.
#[derive(Clone, Debug)]
pub struct NamedMigration<'a> {
    /// The migration.
    pub migration: &'a CgroupMigration,
    /// When it happened.
    pub time: Timestamp,
    /// Path of the cgroup that carries the policies, or carried them.
    pub scope: Option<String>,
    /// Path of the cgroup that it was in, while that exists.
    pub from: Option<String>,
    /// Path of the cgroup that it is in now, while that exists.
    pub to: Option<String>,
    policies: Vec<Option<&'a str>>,
}

impl<'a> NamedMigration<'a> {
    /// Looks the names up. Best done as soon as it is read, while the cgroups are there.
    pub fn new(migration: &'a CgroupMigration, clock: &Clock, names: &'a dyn Names) -> NamedMigration<'a> {
        // Slots are not soon given to another policy: what is in one now, or was last, is what was left.
        let name = |slot: &u32| names.policy(*slot, 0).map(|policy| policy.name.as_str());
        NamedMigration {
            migration,
            time: clock.wall(migration.monotonic_ns),
            scope: names.cgroup(migration.scope),
            from: names.cgroup(migration.from),
            to: names.cgroup(migration.to),
            policies: migration.slots.iter().map(name).collect(),
        }
    }

    /// Names of the policies that it left, where they are known.
    pub fn policies(&self) -> &[Option<&'a str>] {
        &self.policies
    }

    /// The same for people: numbers stand in for names that are not known.
    pub fn policy_list(&self) -> String {
        let slots = self.policies.iter().zip(&self.migration.slots);
        let names = slots.map(|(name, slot)| name.map_or_else(|| format!("slot {slot}"), str::to_owned));
        names.collect::<Vec<_>>().join(", ")
    }
}
