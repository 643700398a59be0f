//! What this kernel cannot do of what a policy says.

use engine_common::{Action, Mode};

use super::record::Version;
use crate::{
    datapath::{
        DISABLE_VARIABLE, Features, PinnedDatapath, lsm_unavailable_reason, tracer_unavailable_reason,
    },
    policy::{Errno, Hooks},
};

/// What the gate was loaded with, of what a kernel may lack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    /// Packets can be judged.
    pub(super) floor: bool,
    /// Unix sockets can be judged.
    pub(super) unix: bool,
}

impl Loaded {
    /// What this gate has.
    pub(super) fn in_gate(gate: &PinnedDatapath) -> Loaded {
        Loaded {
            floor: gate.has_egress_filter(),
            unix: gate.has_unix(),
        }
    }
}

/// One reason each; empty where the version is enforced as it says.
pub(super) fn unmet(version: &Version, loaded: Loaded) -> Vec<String> {
    let mut reasons = lacking_hooks(version);
    if version.names_families
        && let Some(obstacle) = lsm_unavailable_reason()
    {
        reasons.push(format!(
            "families: only LSM programs see sockets of other families: {obstacle}"
        ));
    }
    if version.names_unix && !loaded.unix {
        reasons.push(format!(
            "unix: only LSM programs see unix sockets: {}",
            unix_unavailable_reason()
        ));
    }
    if version.strict && !loaded.floor {
        reasons.push(
            "strict: this kernel does not take the program that judges packets: sockets that are connected \
             already, source routes and raw sockets are judged by their calls only"
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
    let features = Features::detect();
    let features = features.only(version.hooks_of(features.hooks()));
    if kills && !features.kills_at_once() {
        reasons.push(
            "kill: this kernel's cgroup hooks cannot kill (Linux 6.16 can, and LSM programs can): the attempt is denied, and the process \
             killed only while `tidegate events --follow` runs"
                .to_owned(),
        );
    }
    if own_errno && !features.chooses_errno() {
        reasons.push(format!(
            "errno: on this kernel a denied call fails with EPERM, not with {} (Linux 5.18 can choose)",
            version.errno
        ));
    }
    reasons
}

/// Hooks that the version names and this kernel has not.
fn lacking_hooks(version: &Version) -> Vec<String> {
    if version.hooks() == Hooks::Auto {
        return Vec::new();
    }
    let lacking = version.hooks().unsupported(Features::detect().hooks());
    lacking.into_iter().map(why_unmet).collect()
}

/// Why unix sockets cannot be judged.
pub(crate) fn unix_unavailable_reason() -> String {
    lsm_unavailable_reason().unwrap_or_else(|| {
        format!(
            "this kernel refuses the programs, or does not tell how they read such sockets, or {DISABLE_VARIABLE} takes \
             them away (TIDEGATE_LOG=debug says which)"
        )
    })
}

/// Why a kind of hook is not there.
pub(crate) fn why_unmet(name: &str) -> String {
    let why = match name {
        "lsm" => lsm_unavailable_reason(),
        "kprobe" => tracer_unavailable_reason(),
        _ => None,
    };
    // It is there, and TIDEGATE_DISABLE says that it is not.
    let why = why.unwrap_or_else(|| format!("{DISABLE_VARIABLE} takes them away"));
    format!("hooks: {name}: {why}")
}
