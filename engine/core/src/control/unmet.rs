//! What this kernel cannot enforce of a policy.

use engine_common::{Action, Mode};

use super::record::Version;
use crate::{
    datapath::{Features, GroupName, PinnedDatapath},
    instance::{DISABLE_VARIABLE, Disabled},
    policy::{Errno, Hooks},
};

/// One reason for each unmet requirement; empty where the version is fully enforced.
pub(super) fn unmet(version: &Version, datapath: &PinnedDatapath, disabled: &Disabled) -> Vec<String> {
    let mut reasons = missing_hooks(version, disabled);
    if version.names_families
        && let Some(reason) = GroupName::Lsm.unavailable_reason(disabled)
    {
        reasons.push(format!(
            "families: other address families need LSM programs: {reason}"
        ));
    }
    if version.names_unix && !datapath.has(GroupName::LsmUnix) {
        reasons.push(format!(
            "unix: rules on unix sockets need LSM programs: {}",
            unix_unavailable_reason(disabled)
        ));
    }
    if version.strict && !datapath.has(GroupName::EgressFilter) {
        reasons.push(
            "strict: this kernel does not accept the egress filter: connected sockets, source routes and raw sockets are \
             checked at their calls only"
                .to_owned(),
        );
    }
    if version.mode == Mode::Audit {
        return reasons;
    }
    let actions = version
        .rules
        .iter()
        .map(|rule| rule.action)
        .chain([version.default]);
    let kills = actions.into_iter().any(|action| action == Action::Kill);
    let own_errno = version.errno != Errno::Eperm.as_str();
    if !kills && !own_errno {
        return reasons;
    }
    let features = Features::detect(disabled);
    let features = features.only(version.hooks_of(features.hooks()));
    if kills && !features.kills_at_once() {
        reasons.push(
            "kill: the cgroup hooks of this kernel cannot kill (Linux 6.16 and LSM programs can): the attempt is denied, and \
             the process is killed only while `tidegate events --follow` runs"
                .to_owned(),
        );
    }
    if own_errno && !features.chooses_errno() {
        reasons.push(format!(
            "errno: on this kernel a denied call fails with EPERM, not with {} (requires Linux 5.18)",
            version.errno
        ));
    }
    reasons
}

/// Hooks that the version names and this kernel does not have.
fn missing_hooks(version: &Version, disabled: &Disabled) -> Vec<String> {
    if version.hooks() == Hooks::Auto {
        return Vec::new();
    }
    let missing = version.hooks().unsupported(Features::detect(disabled).hooks());
    missing
        .into_iter()
        .map(|name| why_unmet(name, disabled))
        .collect()
}

/// Why rules on unix sockets are not enforced.
pub fn unix_unavailable_reason(disabled: &Disabled) -> String {
    GroupName::LsmUnix.unavailable_reason(disabled).unwrap_or_else(|| {
        "this kernel refuses the programs (TIDEGATE_LOG=debug shows why), or they were refused when they were loaded".to_owned()
    })
}

/// Why a kind of hook, by the name that policies have for it, is not available.
pub fn why_unmet(name: &str, disabled: &Disabled) -> String {
    let reason = match name {
        "lsm" => GroupName::Lsm.unavailable_reason(disabled),
        "kprobe" => GroupName::Tracer.unavailable_reason(disabled),
        _ => None,
    };
    let reason = reason.unwrap_or_else(|| format!("disabled by {DISABLE_VARIABLE}"));
    format!("hooks: {name}: {reason}")
}
