//! Two versions of a random policy.

use std::collections::BTreeSet;

use engine_common::{ExecutableId, UnixSocketId};
use tidegate::{
    compile::{Identities, Image, paths_of, socket_paths_of},
    policy::{Policy, Rule, UnixName, UnixSockets},
};

use crate::{
    image,
    policies::{self, Shape},
    random::Random,
};

/// A policy with the files of its paths.
pub(crate) struct Version {
    pub(crate) policy: Policy,
    pub(crate) executables: Identities,
}

impl Version {
    pub(crate) fn image(&self) -> (Image, Vec<String>) {
        let names = self.policy.rules.iter().map(|rule| rule.name.clone()).collect();
        (image(&self.policy, &self.executables), names)
    }

    pub(crate) fn files(&self, rule: &Rule) -> Option<BTreeSet<ExecutableId>> {
        let binaries = rule.subject.binaries.as_ref()?;
        let file = |path| self.executables.executable(path).unwrap();
        Some(binaries.iter().map(|binary| file(&binary.path)).collect())
    }

    /// Where its unix sockets are: `None` for a rule about destinations, every place for one about all sockets.
    pub(crate) fn sockets(&self, rule: &Rule) -> Option<Option<BTreeSet<UnixSocketId>>> {
        Some(match rule.unix.as_ref()? {
            UnixSockets::Any => None,
            UnixSockets::Only(names) => {
                let places = names.iter().map(|name| self.executables.socket(name).unwrap());
                Some(places.flatten().collect())
            }
        })
    }

    pub(crate) fn rule(&self, name: &str) -> Option<&Rule> {
        self.policy.rules.iter().find(|rule| rule.name == name)
    }
}

/// The next version of a policy: rules that change, come, go and move.
pub(crate) fn edited(random: &mut Random, old: &Version, shape: Shape) -> Version {
    let (other, other_files) = policies::policy(random, shape);
    let mut policy = old.policy.clone();
    if random.percent(20) {
        policy.default = other.default;
        policy.errno = other.errno;
        policy.mode = other.mode;
        policy.nat64 = other.nat64;
    }
    for mut donor in other.rules {
        let count = policy.rules.len();
        let at = random.below(count + 1);
        let change = random.below(12);
        let of_unix = policy.rules.get(at).map(Rule::is_about_unix);
        if (3..=6).contains(&change) && (of_unix == Some(true) || donor.is_about_unix()) {
            // What is about unix sockets stays so.
            if of_unix == Some(true) && donor.is_about_unix() {
                policy.rules[at].unix = donor.unix;
            }
            continue;
        }
        match change {
            0 => {
                donor.name = format!("new-{}", donor.name);
                policy.rules.insert(at, donor);
            }
            1 if at < count => {
                policy.rules.remove(at);
            }
            2 if at < count => {
                let rule = policy.rules.remove(at);
                policy.rules.insert(random.below(count), rule);
            }
            3 if at < count => policy.rules[at].to = donor.to,
            4 if at < count => policy.rules[at].to = policy.rules[at].to.union(&donor.to),
            5 if at < count => {
                let left = policy.rules[at].to.without(&donor.to);
                if !left.is_empty() {
                    policy.rules[at].to = left;
                }
            }
            6 if at < count => policy.rules[at].services = donor.services,
            7 if at < count => policy.rules[at].subject = donor.subject,
            8 if at < count => policy.rules[at].action = donor.action,
            _ => {}
        }
    }
    // Most paths lead to the file they led to.
    let known = |path: &std::path::Path| {
        let (first, second) = (old.executables.executable(path), other_files.executable(path));
        first.or(second).unwrap_or_default()
    };
    let mut executables: Identities = (paths_of(&policy).into_iter())
        .map(|path| (path.to_owned(), known(path)))
        .collect();
    let place = |path: &std::path::Path| {
        let name = UnixName::Path(path.to_owned());
        let (first, second) = (old.executables.socket(&name), other_files.socket(&name));
        first.or(second).unwrap_or_default()
    };
    for path in socket_paths_of(&policy) {
        executables.insert_socket(path.to_owned(), place(path));
    }
    if random.percent(20)
        && let Some(path) = paths_of(&policy).first()
    {
        let id = ExecutableId {
            device: 9,
            inode: random.next(),
        };
        executables.insert(path.to_path_buf(), id);
    }
    Version { policy, executables }
}
