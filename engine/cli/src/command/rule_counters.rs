//! The counters of the rules of a policy, as a table.

use super::text_table::table;
use tidegate_core::{control::PolicyStatus, digits::grouped};

/// A table of the rules of a policy, its default action and its faults, with their counters: in this generation, and
/// in all generations.
pub(super) fn counters_of_rules(policy: &PolicyStatus) -> String {
    let rules = policy.rules.iter().map(|rule| {
        let total = policy.totals.rules.get(&rule.name).copied().unwrap_or(0);
        (rule, total)
    });
    let rows = rules
        .chain([(&policy.default, policy.totals.default)])
        .map(|(rule, total)| {
            [
                rule.name.clone(),
                rule.action.as_str().to_owned(),
                grouped(rule.attempts),
                grouped(total),
            ]
        });
    let faults = match policy.totals.faults {
        0 => None,
        count => Some(["(fault)".to_owned(), String::new(), String::new(), grouped(count)]),
    };
    table(
        ["RULE", "ACTION", "ATTEMPTS", "TOTAL"],
        rows.chain(faults),
        &[2, 3],
    )
}
