//! A policy compiled to stand.

use engine_common::image::Revision;

use super::{
    error::ControlError,
    record::{Actor, NamedExecutable, RuleName, Version, now},
    unmet::{Loaded, unmet},
};
use crate::{
    compile::{Image, compile, paths_of},
    datapath::Identified,
    policy::{Policy, Rule},
};

/// An image with what the journal says of it.
pub(super) struct Compiled {
    pub(super) image: Image,
    pub(super) version: Version,
    /// Held until the version is live: so long no file gets the number of another.
    _identified: Identified,
}

impl Compiled {
    /// Compiles a policy as this generation of it; `loaded` says what the gate can judge here.
    pub(super) fn of(
        policy: &Policy,
        source: &str,
        generation: u64,
        loaded: Loaded,
    ) -> Result<Compiled, ControlError> {
        let name = || policy.name.clone();
        if !policy.hooks.supports_mode(policy.mode) {
            return Err(ControlError::OnlyWatches { name: name() });
        }
        let mut policy = policy.clone();
        policy.dedup = policy.dedup.with_attached_defaults();
        let paths = paths_of(&policy);
        let identified =
            Identified::of([&policy]).map_err(|source| ControlError::Identify { name: name(), source })?;
        let life = Revision {
            generation,
            mode: policy.mode,
        };
        let image = compile(&policy, &identified.identities, life)
            .map_err(|source| ControlError::Compile { name: name(), source })?;
        let executables = paths.iter().filter_map(|path| {
            let id = identified.identities.executable(path)?;
            Some(NamedExecutable {
                path: path.display().to_string(),
                device: id.device,
                inode: id.inode,
            })
        });
        let rules = policy.rules.iter().map(|rule| RuleName {
            name: rule.name.clone(),
            action: rule.action,
        });
        let mut version = Version {
            generation,
            mode: policy.mode,
            default: policy.default,
            errno: policy.errno.as_str().to_owned(),
            rules: rules.collect(),
            source: source.to_owned(),
            by: Actor::current(),
            since: now(),
            names_families: policy.rules.iter().any(Rule::selects_other_families),
            names_unix: policy.rules.iter().any(Rule::selects_unix_sockets),
            partial: Vec::new(),
            executables: executables.collect(),
            strict: policy.strict,
            hooks: policy.hooks.names().into_iter().map(str::to_owned).collect(),
        };
        version.partial = unmet(&version, loaded);
        Ok(Compiled {
            image,
            version,
            _identified: identified,
        })
    }

    /// Refuses what this kernel cannot do, unless the caller takes what can be had.
    pub(super) fn accepted(self, name: &str, best_effort: bool) -> Result<Compiled, ControlError> {
        if self.version.partial.is_empty() || best_effort {
            return Ok(self);
        }
        Err(ControlError::Partial {
            name: name.to_owned(),
            reasons: self.version.partial,
        })
    }
}
