//! Rules that can never match, since earlier ones take all they would.

use super::{
    AddressSet,
    diagnostic::{Code, Reporter, quoted},
    model::{Rule, Service, Services, Subject, UnixSockets},
    source::Span,
};

/// Most steps of the search. It is a courtesy: a policy made to take long loses the warning.
const MAX_STEPS: usize = 20_000_000;
/// Most names in one message.
const MAX_NAMES: usize = 4;

/// Warns of every rule that earlier rules leave nothing to: one alone, or several together whose
/// services and processes have all of the rule's.
pub(super) fn report(rules: &[(Rule, Span)], reporter: &mut Reporter<'_>) {
    let mut steps = 0;
    for (i, (rule, span)) in rules.iter().enumerate() {
        let mut wider: Vec<&Rule> = Vec::new();
        for (earlier, _) in &rules[..i] {
            steps += 1 + subject_size(&rule.subject);
            if covers_services(&earlier.services, &rule.services)
                && covers_subject(&earlier.subject, &rule.subject)
                && (earlier.to.overlaps(&rule.to) || covers_unix(earlier, rule))
            {
                wider.push(earlier);
            }
        }
        steps +=
            wider.iter().map(|w| w.to.range_count()).sum::<usize>() + rule.to.range_count() * wider.len();
        if steps > MAX_STEPS {
            return;
        }
        if let Some(takers) = takers(rule, &wider) {
            let names: Vec<String> = takers.iter().take(MAX_NAMES).map(|r| quoted(&r.name)).collect();
            let dots = if takers.len() > MAX_NAMES { ", ..." } else { "" };
            reporter.warn(
                Code::ShadowedRule,
                *span,
                format!(
                    "the rule {} never matches: {}{dots} before it {} all of it",
                    quoted(&rule.name),
                    names.join(", "),
                    if takers.len() == 1 { "takes" } else { "take" },
                ),
                "the first rule that matches decides: put the narrower rule first, or remove it",
            );
        }
    }
}

/// The rules that take everything of `rule`: one, if one alone does.
fn takers<'r>(rule: &Rule, wider: &[&'r Rule]) -> Option<Vec<&'r Rule>> {
    let takes = |wider: &&&Rule| {
        if rule.is_about_unix() {
            covers_unix(wider, rule)
        } else {
            rule.to.is_subset_of(&wider.to)
        }
    };
    if let Some(one) = wider.iter().find(takes) {
        return Some(vec![one]);
    }
    if wider.len() < 2 || rule.is_about_unix() {
        return None;
    }
    let together = AddressSet::union_of(wider.iter().map(|w| &w.to));
    rule.to.is_subset_of(&together).then(|| wider.to_vec())
}

fn subject_size(subject: &Subject) -> usize {
    subject.uids.as_ref().map_or(0, Vec::len) + subject.binaries.as_ref().map_or(0, Vec::len)
}

fn covers_services(outer: &Services, inner: &Services) -> bool {
    match (outer, inner) {
        (Services::Any, _) => true,
        (Services::Only(_), Services::Any) => false,
        // Both are sorted and merged: what covers a service is one service.
        (Services::Only(outer), Services::Only(inner)) => {
            inner.iter().all(|i| outer.iter().any(|o| within(i, o)))
        }
    }
}

/// Whether a rule about unix sockets is about all those of another.
fn covers_unix(outer: &Rule, inner: &Rule) -> bool {
    match (&outer.unix, &inner.unix) {
        (Some(UnixSockets::Any), Some(_)) => true,
        (Some(UnixSockets::Only(outer)), Some(UnixSockets::Only(inner))) => {
            inner.iter().all(|name| outer.binary_search(name).is_ok())
        }
        _ => false,
    }
}

fn within(inner: &Service, outer: &Service) -> bool {
    inner.protocol == outer.protocol
        && outer.ports.first() <= inner.ports.first()
        && inner.ports.last() <= outer.ports.last()
}

fn covers_subject(outer: &Subject, inner: &Subject) -> bool {
    /// Both sorted.
    fn part<T: Ord>(outer: &Option<Vec<T>>, inner: &Option<Vec<T>>) -> bool {
        match (outer, inner) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(outer), Some(inner)) => inner.iter().all(|x| outer.binary_search(x).is_ok()),
        }
    }
    part(&outer.uids, &inner.uids) && part(&outer.binaries, &inner.binaries)
}
