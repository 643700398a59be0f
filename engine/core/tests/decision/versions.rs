//! Two versions of a random policy.

use std::collections::BTreeSet;

use engine_common::{ExecutableId, UnixSocketId};
use tidegate_core::{
    compile::{Identities, Image, paths_of, socket_paths_of},
    policy::{Policy, Rule, UnixName, UnixSockets},
};

use crate::{
    image,
    policies::{self, Shape},
    random::Random,
};

/// A policy with the identities of its files.
pub(crate) struct Version {
    pub(crate) policy: Policy,
    pub(crate) executables: Identities,
}

impl Version {
    pub(crate) fn image(&self) -> (Image, Vec<String>) {
        let names = self.policy.rules.iter().map(|rule| rule.name.clone()).collect();
        (image(&self.policy, &self.executables), names)
    }

    pub(crate) fn executables_of(&self, rule: &Rule) -> Option<BTreeSet<ExecutableId>> {
        let binaries = rule.subject.binaries.as_ref()?;
        let file = |path| self.executables.executable(path).unwrap();
        Some(binaries.iter().map(|binary| file(&binary.path)).collect())
    }

    /// The ids of the unix sockets of a rule: `None` for a rule for destinations, `Some(None)` for every socket.
    pub(crate) fn sockets_of(&self, rule: &Rule) -> Option<Option<BTreeSet<UnixSocketId>>> {
        Some(match rule.unix.as_ref()? {
            UnixSockets::Any => None,
            UnixSockets::Only(names) => {
                let ids = names.iter().map(|name| self.executables.socket(name).unwrap());
                Some(ids.flatten().collect())
            }
        })
    }

    pub(crate) fn rule(&self, name: &str) -> Option<&Rule> {
        self.policy.rules.iter().find(|rule| rule.name == name)
    }
}

/// The next version of a policy, with rules changed, added, removed and moved.
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
        let of_unix = policy.rules.get(at).map(Rule::selects_unix_sockets);
        if (3..=6).contains(&change) && (of_unix == Some(true) || donor.selects_unix_sockets()) {
            // A rule for unix sockets stays one.
            if of_unix == Some(true) && donor.selects_unix_sockets() {
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
    // Most paths keep their file.
    let known = |path: &std::path::Path| {
        let (first, second) = (old.executables.executable(path), other_files.executable(path));
        first.or(second).unwrap_or_default()
    };
    let mut executables: Identities = (paths_of(&policy).into_iter())
        .map(|path| (path.to_owned(), known(path)))
        .collect();
    let ids = |path: &std::path::Path| {
        let name = UnixName::Path(path.to_owned());
        let (first, second) = (old.executables.socket(&name), other_files.socket(&name));
        first.or(second).unwrap_or_default()
    };
    for path in socket_paths_of(&policy) {
        executables.insert_socket(path.to_owned(), ids(path));
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
