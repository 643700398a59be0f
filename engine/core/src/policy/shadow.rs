//! Finds rules that can never match, because earlier rules cover them.

use super::{
    AddressSet,
    diagnostic::{Code, Reporter, quoted},
    model::{Rule, Service, Services, Subject, UnixSockets},
    source::Span,
};

/// Maximum number of steps of the search. Very large policies are not checked completely.
const MAX_STEPS: usize = 20_000_000;
/// Maximum number of rule names in one message.
const MAX_NAMES: usize = 4;

/// Warns about every rule that is covered by one earlier rule, or by several earlier rules that each cover its
/// services and subject.
pub(super) fn report(rules: &[(Rule, Span)], reporter: &mut Reporter<'_>) {
    let mut steps = 0;
    for (i, (rule, span)) in rules.iter().enumerate() {
        let mut candidates: Vec<&Rule> = Vec::new();
        for (earlier, _) in &rules[..i] {
            steps += 1 + subject_size(&rule.subject);
            if covers_services(&earlier.services, &rule.services)
                && covers_subject(&earlier.subject, &rule.subject)
                && (earlier.to.overlaps(&rule.to) || covers_unix(earlier, rule))
            {
                candidates.push(earlier);
            }
        }
        steps += candidates.iter().map(|w| w.to.range_count()).sum::<usize>()
            + rule.to.range_count() * candidates.len();
        if steps > MAX_STEPS {
            return;
        }
        if let Some(covering) = covering(rule, &candidates) {
            let names: Vec<String> = covering.iter().take(MAX_NAMES).map(|r| quoted(&r.name)).collect();
            let dots = if covering.len() > MAX_NAMES { ", ..." } else { "" };
            reporter.warn(
                Code::ShadowedRule,
                *span,
                format!(
                    "rule {} never matches: {} {}{dots} {} it",
                    quoted(&rule.name),
                    if covering.len() == 1 { "rule" } else { "rules" },
                    names.join(", "),
                    if covering.len() == 1 { "covers" } else { "cover" },
                ),
                "the first matching rule decides: move this rule up, or remove it",
            );
        }
    }
}

/// The rules that cover `rule`: a single one if possible, otherwise all candidates together.
fn covering<'r>(rule: &Rule, candidates: &[&'r Rule]) -> Option<Vec<&'r Rule>> {
    let covers = |candidate: &&&Rule| {
        if rule.selects_unix_sockets() {
            covers_unix(candidate, rule)
        } else {
            rule.to.is_subset_of(&candidate.to)
        }
    };
    if let Some(one) = candidates.iter().find(covers) {
        return Some(vec![one]);
    }
    if candidates.len() < 2 || rule.selects_unix_sockets() {
        return None;
    }
    let together = AddressSet::union_of(candidates.iter().map(|w| &w.to));
    rule.to.is_subset_of(&together).then(|| candidates.to_vec())
}

fn subject_size(subject: &Subject) -> usize {
    subject.uids.as_ref().map_or(0, Vec::len) + subject.binaries.as_ref().map_or(0, Vec::len)
}

fn covers_services(outer: &Services, inner: &Services) -> bool {
    match (outer, inner) {
        (Services::Any, _) => true,
        (Services::Only(_), Services::Any) => false,
        // Both are sorted and merged, so a single service of `outer` must cover each service of `inner`.
        (Services::Only(outer), Services::Only(inner)) => {
            inner.iter().all(|i| outer.iter().any(|o| within(i, o)))
        }
    }
}

/// Whether a rule for unix sockets covers all sockets of another.
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
    /// Whether `outer` contains `inner`; both are sorted.
    fn part<T: Ord>(outer: &Option<Vec<T>>, inner: &Option<Vec<T>>) -> bool {
        match (outer, inner) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(outer), Some(inner)) => inner.iter().all(|x| outer.binary_search(x).is_ok()),
        }
    }
    part(&outer.uids, &inner.uids) && part(&outer.binaries, &inner.binaries)
}
