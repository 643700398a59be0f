//! The names behind the numbers of an event.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use engine_common::{ExecutableId, Mode, Reason};
use jiff::Timestamp;

use super::{clock::Clock, event::Event};

/// Names of a policy and its rules, as one generation of it had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNames {
    /// Name of the policy.
    pub name: String,
    /// Names of its rules, in their order.
    pub rules: Vec<String>,
    /// Where the policy was read from: a file, or `command line`.
    pub source: String,
    /// Mode of the policy.
    pub mode: Mode,
}

/// Where names come from: the caller knows the kernel and /proc, this room does not.
pub trait Names {
    /// The policy in a slot at the time of a generation. Generation 0 stands for a fault without
    /// image: whatever is in the slot.
    fn policy(&self, slot: u32, generation: u64) -> Option<&PolicyNames>;

    /// Path of a cgroup below the root of the hierarchy, such as `/system.slice/shop.service`.
    fn scope(&self, cgroup: u64) -> Option<&str>;

    /// Path of any cgroup, while it exists; of those that carry policies also afterwards.
    fn cgroup(&self, id: u64) -> Option<String>;

    /// Path of an executable that process `pid` was running when it made the attempt. Best effort:
    /// the process may be gone.
    fn executable(&self, pid: u32, id: ExecutableId) -> Option<PathBuf>;
}

/// Distinct executables whose paths are kept; beyond, they are looked up each time.
const MAX_EXECUTABLES: usize = 4096;

/// [`Names`] from tables that the caller fills, with a cache before its look-up of executables.
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
    /// A context without names. `find_executable` is given the process and the identity its
    /// executable must have; what it finds is kept, what it does not find is asked for again.
    pub fn new(find_executable: F) -> Context<F> {
        Context {
            policies: HashMap::new(),
            scopes: HashMap::new(),
            executables: RefCell::default(),
            find_executable,
            find_cgroup: None,
        }
    }

    /// With a look-up of cgroups that nobody has added.
    #[must_use]
    pub fn with_cgroups(self, find: impl Fn(u64) -> Option<String> + 'static) -> Context<F> {
        Context {
            find_cgroup: Some(Box::new(find)),
            ..self
        }
    }

    /// Adds a generation of the policy in a slot. Earlier ones stay: their events may still be in
    /// the ring.
    pub fn add_policy(&mut self, slot: u32, generation: u64, names: PolicyNames) {
        self.add_policy_span(slot, generation, generation, names);
    }

    /// The same for several generations whose names are alike, from `first` to `last`.
    pub fn add_policy_span(&mut self, slot: u32, first: u64, last: u64, names: PolicyNames) {
        let spans = self.policies.entry(slot).or_default();
        spans.retain(|(from, to, _)| (*from, *to) != (first, last));
        spans.push((first, last, names));
    }

    /// Adds the path of a cgroup.
    pub fn add_scope(&mut self, cgroup: u64, path: impl Into<String>) {
        self.scopes.insert(cgroup, path.into());
    }

    /// Adds the path of an executable, such as those a policy names.
    pub fn add_executable(&mut self, id: ExecutableId, path: impl Into<PathBuf>) {
        self.executables.get_mut().insert(id, path.into());
    }
}

impl<F: Fn(u32, ExecutableId) -> Option<PathBuf>> Names for Context<F> {
    fn policy(&self, slot: u32, generation: u64) -> Option<&PolicyNames> {
        let generations = self.policies.get(&slot)?;
        let found = match generation {
            0 => generations.last(),
            // What was added last is what holds.
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
        // What was added may have another path by now, or none, and have been this one when it was left.
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
    /// When it happened.
    pub time: Timestamp,
    policy: Option<&'a PolicyNames>,
    scope: Option<&'a str>,
    executable: Option<PathBuf>,
}

impl<'a> NamedEvent<'a> {
    /// Looks the names up. Best done as soon as the event is read, while its process lives.
    pub fn new(event: &'a Event, clock: &Clock, names: &'a dyn Names) -> NamedEvent<'a> {
        NamedEvent {
            event,
            time: clock.wall(event.monotonic_ns),
            policy: event.slot.and_then(|slot| names.policy(slot, event.generation)),
            scope: names.scope(event.scope),
            executable: event.executable.and_then(|id| names.executable(event.pid, id)),
        }
    }

    /// Name of the policy, where it is known.
    pub fn policy(&self) -> Option<&'a str> {
        self.policy.map(|names| names.name.as_str())
    }

    /// Name of the rule that decided, if one did and its name is known.
    pub fn rule(&self) -> Option<&'a str> {
        match self.event.reason {
            Reason::Rule(rule) => self.policy?.rules.get(usize::from(rule)).map(String::as_str),
            Reason::Default | Reason::Fault(_) => None,
        }
    }

    /// Path of the cgroup that carries the policy.
    pub fn scope(&self) -> Option<&'a str> {
        self.scope
    }

    /// Path of the process's executable.
    pub fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// Who decided: `payments/metadata`, `payments/(default)`, `payments/(fault: no page)`. Numbers
    /// stand in for names that are not known.
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
