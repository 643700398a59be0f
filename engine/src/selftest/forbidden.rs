//! What a policy says of a course: asked of its compiled image, as the kernel asks it.

use std::env;

use engine_common::{ExecutableId, image::Revision};

use super::{SelftestError, test_case::TestCase};
use crate::{
    compile::{
        Identities, Image, compile, explain,
        explain::{UNKNOWN_EXECUTABLE, attempt_at},
    },
    datapath::Identified,
    policy::{LoadContext, Policy, load_text},
};

/// Generation of a policy that is never replaced.
const GENERATION: u64 = 1;

/// The policy of the self-test.
///
/// # Errors
/// When it is not valid: then this is not the file that was built in.
pub fn built_in() -> Result<Policy, SelftestError> {
    let loaded = load_text(
        "built-in",
        include_str!("policy.yaml"),
        "".as_ref(),
        &LoadContext::default(),
    );
    let faults = loaded.render(false);
    loaded.policy.ok_or(SelftestError::BuiltIn(faults))
}

/// A policy, ready to be put live and to be asked.
pub(super) struct Judge<'a> {
    policy: &'a Policy,
    // Held open: as long as they are, the files' numbers are nobody else's.
    identified: Identified,
    ours: ExecutableId,
}

impl Judge<'_> {
    pub(super) fn of(policy: &Policy) -> Result<Judge<'_>, SelftestError> {
        let identified = Identified::of([policy]).map_err(|error| SelftestError::Policy(Box::new(error)))?;
        let executables: &Identities = &identified.identities;
        let ours = env::current_exe()
            .ok()
            .and_then(|path| executables.executable(&path))
            .unwrap_or(UNKNOWN_EXECUTABLE);
        Ok(Judge {
            policy,
            identified,
            ours,
        })
    }

    pub(super) fn image(&self) -> Result<Image, SelftestError> {
        let life = Revision {
            generation: GENERATION,
            mode: self.policy.mode,
        };
        compile(self.policy, &self.identified.identities, life)
            .map_err(|error| SelftestError::Policy(Box::new(error)))
    }

    /// Whether the policy denies it.
    pub(super) fn forbids(&self, course: &TestCase, port: u16) -> Result<bool, SelftestError> {
        let uid = nix::unistd::getuid().as_raw();
        let attempt = attempt_at(course.spelled, port, course.protocol(), uid, self.ours);
        explain(self.policy, &self.identified.identities, &attempt)
            .map(|explanation| explanation.denied)
            .map_err(|error| SelftestError::Policy(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::test_case;

    /// Also in every other spelling of an address.
    #[test]
    fn the_built_in_policy_forbids_every_course() {
        let policy = built_in().unwrap();
        let judge = Judge::of(&policy).unwrap();
        for course in test_case::all() {
            let what = (course.passage.name(), course.destination);
            assert!(judge.forbids(&course, 4433).unwrap(), "{what:?}");
        }
    }
}
