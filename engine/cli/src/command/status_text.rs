//! Tables and units in the text output about attached policies.

use comfy_table::{CellAlignment, Table, presets};

use tidegate_core::control::PolicyStatus;

/// A table without borders. `right` has the indices of the columns that are aligned right.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    right: &[usize],
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

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

/// An integer with its digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    tidegate_core::events::summary::grouped(number)
}

/// A size in B, KiB or MiB.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// The time since an RFC 3339 timestamp, such as `2h 5m ago`.
pub(super) fn ago(since: &str) -> String {
    let Ok(then) = since.parse::<jiff::Timestamp>() else {
        return since.to_owned();
    };
    let seconds = jiff::Timestamp::now().duration_since(then).as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s ago"),
        (0, 0, _) => format!("{minutes}m ago"),
        (0, ..) => format!("{hours}h {minutes}m ago"),
        _ => format!("{days}d {hours}h ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(
            (bytes(12), bytes(4097), bytes(3 << 20)),
            ("12 B".into(), "5 KiB".into(), "3.0 MiB".into())
        );
        let now = jiff::Timestamp::now();
        let before = |seconds: i64| (now - jiff::SignedDuration::from_secs(seconds)).to_string();
        assert_eq!(ago(&before(3)), "3s ago");
        assert_eq!(ago(&before(185)), "3m ago");
        assert_eq!(ago(&before(7500)), "2h 5m ago");
        assert_eq!(ago(&before(90_000)), "1d 1h ago");
        assert_eq!(ago("long"), "long");
    }

    #[test]
    fn integer_columns_are_aligned_right() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["b".to_owned(), "1,000".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "COUNT"], rows.into_iter(), &[1]),
            " NAME  COUNT\n a         1\n b     1,000\n"
        );
    }
}
