//! Names for the ids in events.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use engine_common::{ExecutableId, Mode, Reason};
use jiff::Timestamp;

use super::{event::Event, migration::CgroupMigration};

/// Names of a policy and its rules in one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNames {
    /// Name of the policy.
    pub name: String,
    /// Names of its rules, in their order.
    pub rules: Vec<String>,
    /// Origin of the policy: a file, or `command line`.
    pub source: String,
    /// Mode of the policy.
    pub mode: Mode,
}

/// Resolves ids to names. Implementations may read the journal and /proc; this module does not.
pub trait Names {
    /// Called before the names of an event are looked up.
    fn learn(&mut self, _event: &Event) {}

    /// Called before the names of a migration are looked up.
    fn learn_migration(&mut self, _migration: &CgroupMigration) {}

    /// The policy in a slot in a generation. Generation 0, of a fault without image, means the latest
    /// one.
    fn policy(&self, slot: u32, generation: u64) -> Option<&PolicyNames>;

    /// Path of a cgroup below the root of the hierarchy, such as `/system.slice/shop.service`.
    fn scope(&self, cgroup: u64) -> Option<&str>;

    /// Path of any cgroup that exists, and of removed ones that had policies attached.
    fn cgroup(&self, id: u64) -> Option<String>;

    /// Path of the executable of process `pid` at the time of the attempt. `None` if the process has
    /// exited.
    fn executable(&self, pid: u32, id: ExecutableId) -> Option<PathBuf>;
}

/// Most executables whose paths are cached; beyond, they are looked up each time.
const MAX_EXECUTABLES: usize = 4096;

/// [`Names`] from tables that the caller fills, with a cache for executables.
pub struct Context<F> {
    policies: HashMap<u32, Vec<(u64, u64, PolicyNames)>>,
    scopes: HashMap<u64, String>,
    executables: RefCell<HashMap<ExecutableId, PathBuf>>,
    find_executable: F,
    find_cgroup: Option<FindCgroup>,
}

/// Looks for the path of a cgroup by its id.
type FindCgroup = Box<dyn Fn(u64) -> Option<String>>;

impl<F: Fn(u32, ExecutableId) -> Option<PathBuf>> Context<F> {
    /// A context without names. `find_executable` is given the process and the identity that its
    /// executable must have. Paths that it finds are cached.
    pub fn new(find_executable: F) -> Context<F> {
        Context {
            policies: HashMap::new(),
            scopes: HashMap::new(),
            executables: RefCell::default(),
            find_executable,
            find_cgroup: None,
        }
    }

    /// With a look-up for cgroups that were not added.
    #[must_use]
    pub fn with_cgroups(self, find: impl Fn(u64) -> Option<String> + 'static) -> Context<F> {
        Context {
            find_cgroup: Some(Box::new(find)),
            ..self
        }
    }

    /// Adds a generation of the policy in a slot. Earlier generations stay: their events may still be in
    /// the ring buffer.
    pub fn add_policy(&mut self, slot: u32, generation: u64, names: PolicyNames) {
        self.add_policy_span(slot, generation, generation, names);
    }

    /// The same for all generations from `first` to `last`, which have the same names.
    pub fn add_policy_span(&mut self, slot: u32, first: u64, last: u64, names: PolicyNames) {
        let spans = self.policies.entry(slot).or_default();
        spans.retain(|(from, to, _)| (*from, *to) != (first, last));
        spans.push((first, last, names));
    }

    /// Adds the path of a cgroup.
    pub fn add_scope(&mut self, cgroup: u64, path: impl Into<String>) {
        self.scopes.insert(cgroup, path.into());
    }

    /// Adds the path of an executable, such as those that a policy selects.
    pub fn add_executable(&mut self, id: ExecutableId, path: impl Into<PathBuf>) {
        self.executables.get_mut().insert(id, path.into());
    }
}

impl<F: Fn(u32, ExecutableId) -> Option<PathBuf>> Names for Context<F> {
    fn policy(&self, slot: u32, generation: u64) -> Option<&PolicyNames> {
        let generations = self.policies.get(&slot)?;
        let found = match generation {
            0 => generations.last(),
            // The names added last take precedence.
            _ => generations
                .iter()
                .rev()
                .find(|(first, last, _)| (*first..=*last).contains(&generation)),
        };
        found.map(|(.., names)| names)
    }

    fn scope(&self, cgroup: u64) -> Option<&str> {
        self.scopes.get(&cgroup).map(String::as_str)
    }

    fn cgroup(&self, id: u64) -> Option<String> {
        // An added cgroup may have been renamed or removed since.
        let known = || self.scope(id).map(str::to_owned);
        self.find_cgroup.as_ref().and_then(|find| find(id)).or_else(known)
    }

    fn executable(&self, pid: u32, id: ExecutableId) -> Option<PathBuf> {
        if let Some(known) = self.executables.borrow().get(&id) {
            return Some(known.clone());
        }
        let found = (self.find_executable)(pid, id)?;
        let mut known = self.executables.borrow_mut();
        if known.len() < MAX_EXECUTABLES {
            known.insert(id, found.clone());
        }
        Some(found)
    }
}

impl<F> fmt::Debug for Context<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("policies", &self.policies)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// An event with its names and its wall time.
#[derive(Clone, Debug)]
pub struct NamedEvent<'a> {
    /// The event.
    pub event: &'a Event,
    /// Wall time of the attempt.
    pub time: Timestamp,
    policy: Option<&'a PolicyNames>,
    scope: Option<&'a str>,
    executable: Option<PathBuf>,
}

impl<'a> NamedEvent<'a> {
    /// Looks up the names, while the process lives: call it soon after the record was read.
    pub fn new(event: &'a Event, time: Timestamp, names: &'a dyn Names) -> NamedEvent<'a> {
        NamedEvent {
            event,
            time,
            policy: event.slot.and_then(|slot| names.policy(slot, event.generation)),
            scope: names.scope(event.scope),
            executable: event.executable.and_then(|id| names.executable(event.pid, id)),
        }
    }

    /// Name of the policy, if known.
    pub fn policy(&self) -> Option<&'a str> {
        self.policy.map(|names| names.name.as_str())
    }

    /// Name of the rule that decided, if a rule did and its name is known.
    pub fn rule(&self) -> Option<&'a str> {
        match self.event.reason {
            Reason::Rule(rule) => self.policy?.rules.get(usize::from(rule)).map(String::as_str),
            Reason::Default | Reason::Fault(_) => None,
        }
    }

    /// Path of the cgroup that the policy is attached to.
    pub fn scope(&self) -> Option<&'a str> {
        self.scope
    }

    /// Path of the process's executable.
    pub fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// Policy and rule: `payments/metadata`, `payments/(default)`, `payments/(fault: no page)`. For
    /// names that are not known: `slot 9`, `rule 5`.
    pub fn decided_by(&self) -> String {
        let policy = match (self.policy(), self.event.slot) {
            (Some(name), _) => name.to_owned(),
            (None, Some(slot)) => format!("slot {slot}"),
            (None, None) => "(no policy)".to_owned(),
        };
        match (self.event.reason, self.rule()) {
            (Reason::Rule(_), Some(rule)) => format!("{policy}/{rule}"),
            (Reason::Rule(number), None) => format!("{policy}/rule {}", u32::from(number) + 1),
            (Reason::Default, _) => format!("{policy}/(default)"),
            (Reason::Fault(fault), _) => format!("{policy}/(fault: {})", fault.as_str()),
        }
    }
}
