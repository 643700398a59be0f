//! A policy compiled to be attached.

use engine_common::image::Revision;

use super::{
    Control,
    attached_image::compile_attached,
    error::ControlError,
    record::{NamedExecutable, RuleName, Version},
};
use crate::{
    compile::{Image, paths_of},
    datapath::Identified,
    policy::{Policy, PolicyDefinition, Rule},
};

/// An image with its record.
pub(super) struct Compiled {
    pub(super) image: Image,
    pub(super) version: Version,
    /// Open files, held until the version is live: meanwhile no other file gets their inode numbers.
    _identified: Identified,
}

impl Control {
    /// Compiles a policy as this generation of it.
    pub(super) fn compile(
        &self,
        policy: &Policy,
        source: &str,
        definition: &PolicyDefinition,
        generation: u64,
    ) -> Result<Compiled, ControlError> {
        let name = || policy.name.clone();
        if !policy.hooks.supports_mode(policy.mode) {
            return Err(ControlError::OnlyReports { name: name() });
        }
        let paths = paths_of(policy);
        let revision = Revision {
            generation,
            mode: policy.mode,
        };
        let (image, identified) = compile_attached(policy, revision)?;
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
            definition: definition.clone(),
            by: self.invocation.actor.clone(),
            since: self.invocation.time(),
            names_families: policy.rules.iter().any(Rule::selects_other_families),
            names_unix: policy.rules.iter().any(Rule::selects_unix_sockets),
            partial: Vec::new(),
            executables: executables.collect(),
            strict: policy.strict,
            hooks: policy.hooks.names().into_iter().map(str::to_owned).collect(),
        };
        version.partial = self.unmet(&version);
        Ok(Compiled {
            image,
            version,
            _identified: identified,
        })
    }
}

impl Compiled {
    /// Refuses a policy that this kernel cannot fully enforce, unless `best_effort`.
    pub(super) fn accepted(self, name: &str, best_effort: bool) -> Result<Compiled, ControlError> {
        if self.version.partial.is_empty() || best_effort {
            return Ok(self);
        }
        Err(ControlError::Partial {
            name: name.to_owned(),
            unmet: self.version.partial,
        })
    }
}
