//! The verdict that a policy must give for a test case, evaluated from its compiled image.

use std::env;

use engine_common::{ExecutableId, image::Revision};

use super::{SelftestError, test_case::TestCase};
use tidegate_core::{
    compile::{
        Identities, Image, compile, explain,
        explain::{UNKNOWN_EXECUTABLE, attempt_at},
    },
    datapath::Identified,
    policy::{LoadContext, Policy, load_text},
};

/// Generation of the policy, which is never updated.
const GENERATION: u64 = 1;

/// The policy of the self-test when the caller has none.
///
/// # Errors
/// When the embedded file is not valid, which is a bug.
pub fn built_in() -> Result<Policy, SelftestError> {
    let loaded = load_text(
        "built-in",
        include_str!("policy.yaml"),
        "".as_ref(),
        &LoadContext::default(),
    );
    let diagnostics = loaded.render(false);
    loaded.policy.ok_or(SelftestError::BuiltIn(diagnostics))
}

/// A policy with the identities of its executables, ready to be compiled and evaluated.
pub(super) struct Expectation<'a> {
    policy: &'a Policy,
    // Holds the executables open, so that their inode numbers are not reused.
    identified: Identified,
    own_executable: ExecutableId,
}

impl Expectation<'_> {
    pub(super) fn of(policy: &Policy) -> Result<Expectation<'_>, SelftestError> {
        let identified = Identified::of([policy]).map_err(|error| SelftestError::Policy(Box::new(error)))?;
        let executables: &Identities = &identified.identities;
        let own_executable = env::current_exe()
            .ok()
            .and_then(|path| executables.executable(&path))
            .unwrap_or(UNKNOWN_EXECUTABLE);
        Ok(Expectation {
            policy,
            identified,
            own_executable,
        })
    }

    pub(super) fn image(&self) -> Result<Image, SelftestError> {
        let revision = Revision {
            generation: GENERATION,
            mode: self.policy.mode,
        };
        compile(self.policy, &self.identified.identities, revision)
            .map_err(|error| SelftestError::Policy(Box::new(error)))
    }

    /// Whether the policy denies a test case, with a receiver on this port.
    pub(super) fn forbids(&self, case: &TestCase, port: u16) -> Result<bool, SelftestError> {
        let uid = nix::unistd::getuid().as_raw();
        let attempt = attempt_at(case.requested, port, case.protocol(), uid, self.own_executable);
        explain(self.policy, &self.identified.identities, &attempt)
            .map(|explanation| explanation.denied)
            .map_err(|error| SelftestError::Policy(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_case;

    /// In every representation of an address too.
    #[test]
    fn the_built_in_policy_denies_every_test_case() {
        let policy = built_in().unwrap();
        let expectation = Expectation::of(&policy).unwrap();
        for case in test_case::all() {
            let what = (case.technique.name(), case.destination);
            assert!(expectation.forbids(&case, 4433).unwrap(), "{what:?}");
        }
    }
}
