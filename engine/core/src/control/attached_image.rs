//! The image of a policy that is attached.

use engine_common::image::Revision;

use super::error::ControlError;
use crate::{
    compile::{Image, compile},
    datapath::Identified,
    policy::Policy,
};

/// Compiles a policy with the defaults of attached policies. The files that it names stay open in the second value.
///
/// # Errors
/// [`ControlError::Identify`] when a file that it names cannot be identified, [`ControlError::Compile`] when it has too many
/// rules or addresses.
pub(super) fn compile_attached(
    policy: &Policy,
    revision: Revision,
) -> Result<(Image, Identified), ControlError> {
    let name = || policy.name.clone();
    let mut policy = policy.clone();
    policy.dedup = policy.dedup.with_attached_defaults();
    let identified =
        Identified::of([&policy]).map_err(|source| ControlError::Identify { name: name(), source })?;
    let image = compile(&policy, &identified.identities, revision)
        .map_err(|source| ControlError::Compile { name: name(), source })?;
    Ok((image, identified))
}
