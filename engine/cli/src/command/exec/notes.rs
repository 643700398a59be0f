//! What this kernel does differently from what the policies say; printed before the command starts.

use engine_common::{Action, Mode};

use crate::command::policy_files::SourcedPolicy;
use tidegate_core::{
    datapath::{Features, GroupName},
    instance::Disabled,
    policy::{Errno, Policy, Rule},
};

/// One sentence for each difference.
pub(super) fn notes(policies: &[SourcedPolicy], features: Features, disabled: &Disabled) -> Vec<String> {
    let mut notes = Vec::new();
    let all = policies.iter().flat_map(|sourced| &sourced.policy.rules);
    if all.into_iter().any(Rule::selects_other_families)
        && let Some(reason) = GroupName::Lsm.unavailable_reason(disabled)
    {
        notes.push(format!(
            "rules with `families` have no effect on this kernel, because they need LSM programs: {reason}"
        ));
    }
    let enforcing: Vec<&Policy> = policies
        .iter()
        .map(|sourced| &sourced.policy)
        .filter(|policy| policy.mode == Mode::Enforce)
        .collect();
    let features = |policy: &Policy| {
        let hooks = policy.hooks.select(features.hooks(), policy.needed_hooks());
        features.only(hooks)
    };
    if enforcing
        .iter()
        .any(|policy| kills(policy) && !features(policy).kills_at_once())
    {
        notes.push(
            "kill is asynchronous on this kernel: the call is denied, and tidegate kills the process when it reads \
             the event (Linux 6.16 or LSM programs kill before the call returns)"
                .to_owned(),
        );
    }
    if let Some(policy) = enforcing
        .iter()
        .find(|policy| policy.errno != Errno::Eperm && !features(policy).chooses_errno())
    {
        notes.push(format!(
            "on this kernel a denied call fails with EPERM, not with {} as policy {} says (requires Linux 5.18)",
            policy.errno.as_str(),
            policy.name
        ));
    }
    notes
}

fn kills(policy: &Policy) -> bool {
    let actions = policy.rules.iter().map(|rule| rule.action);
    actions
        .chain([policy.default])
        .any(|action| action == Action::Kill)
}
