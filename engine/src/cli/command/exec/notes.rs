//! What this kernel cannot do as the policies say, told before the command starts.

use engine_common::{Action, Mode};

use crate::{
    cli::command::policy_files::SourcedPolicy,
    datapath::{Features, GroupName},
    instance::Disabled,
    policy::{Errno, Policy, Rule},
};

/// One sentence for each thing that is done in another way here.
pub(super) fn notes(policies: &[SourcedPolicy], features: Features, disabled: &Disabled) -> Vec<String> {
    let mut notes = Vec::new();
    let all = policies.iter().flat_map(|sourced| &sourced.policy.rules);
    if all.into_iter().any(Rule::is_about_families)
        && let Some(obstacle) = GroupName::Lsm.unavailable_reason(disabled)
    {
        notes.push(format!(
            "rules about `families` do nothing here, since only LSM programs see such sockets: {obstacle}"
        ));
    }
    let enforcing: Vec<&Policy> = policies
        .iter()
        .map(|sourced| &sourced.policy)
        .filter(|policy| policy.mode == Mode::Enforce)
        .collect();
    let features = |policy: &Policy| {
        let hooks = policy.hooks.wanted(features.hooks(), policy.uses());
        features.only(hooks)
    };
    if enforcing
        .iter()
        .any(|policy| kills(policy) && !features(policy).kills_at_once())
    {
        notes.push(
            "on this kernel kill is asynchronous: the attempt is denied at once, and tidegate kills the process \
             when it reads the event (Linux 6.16 can, and LSM programs can, kill before the call returns)"
                .to_owned(),
        );
    }
    if let Some(policy) = enforcing
        .iter()
        .find(|policy| policy.errno != Errno::Eperm && !features(policy).chooses_errno())
    {
        notes.push(format!(
            "on this kernel a denied call fails with EPERM, not with the {} of the policy {} (Linux 5.18 can choose)",
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
