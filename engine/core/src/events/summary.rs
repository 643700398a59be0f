//! The summary at the end of a command, as text.

use anstyle::Style;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use engine_common::{Action, Mode};

use super::{
    escape::escaped,
    tally::{MAX_ROWS, Row, Tally},
    text::{mark, style_of},
};
use crate::digits::grouped;

/// Most rows of the table that are printed; a report file has all events.
const SHOWN_ROWS: usize = 100;

/// A policy's counters. They are exact, also if events were lost or suppressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyCounters {
    /// Name of the policy.
    pub name: String,
    /// Its mode.
    pub mode: Mode,
    /// Its generation.
    pub generation: u64,
    /// Its rules in their order: name, action, attempts decided.
    pub rules: Vec<(String, Action, u64)>,
    /// Its default: action, attempts decided.
    pub default: (Action, u64),
    /// Attempts that could not be evaluated.
    pub faults: u64,
}

impl PolicyCounters {
    /// Attempts that the policy allowed without an event.
    pub fn allowed(&self) -> u64 {
        self.by_action(Action::Allow)
    }

    /// Attempts that the policy was evaluated for.
    pub fn attempts(&self) -> u64 {
        let rules: u64 = self.rules.iter().map(|rule| rule.2).sum();
        rules + self.default.1 + self.faults
    }

    fn by_action(&self, action: Action) -> u64 {
        let rules = self.rules.iter().map(|&(_, action, count)| (action, count));
        rules
            .chain([self.default])
            .filter(|(of, _)| *of == action)
            .map(|(_, count)| count)
            .sum()
    }
}

/// Layout of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether to use colours.
    pub styled: bool,
    /// Width of the terminal in columns; `None` for unlimited lines.
    pub width: Option<u16>,
}

/// The summary: a table of destinations by outcome, a line for each policy, and losses. A single line if
/// all attempts were allowed. Ends with a line feed.
pub fn table(tally: &Tally, policies: &[PolicyCounters], layout: Layout) -> String {
    let silent = policies
        .iter()
        .all(|policy| policy.allowed() == policy.attempts());
    if tally.is_empty() && silent {
        // Every policy on the command's cgroup is evaluated for every attempt.
        let attempts = policies.iter().map(PolicyCounters::attempts).max().unwrap_or(0);
        return match attempts {
            0 => "tidegate: no attempts to connect or send\n".to_owned(),
            1 => "tidegate: the only attempt was allowed\n".to_owned(),
            n => format!("tidegate: all {} attempts allowed\n", grouped(n)),
        };
    }
    let mut text = format!("tidegate: {}\n", heading(tally));
    let rows = tally.rows();
    if !rows.is_empty() {
        text += &destinations(&rows[..rows.len().min(SHOWN_ROWS)], layout);
    }
    let hidden: u64 = rows.iter().skip(SHOWN_ROWS).map(|row| row.count).sum();
    if hidden > 0 {
        text += &format!(
            "  and {} more rows ({}); --report FILE has every event\n",
            grouped((rows.len() - SHOWN_ROWS) as u64),
            events(hidden)
        );
    }
    let others: u64 = Tally::OUTCOMES.iter().map(|&outcome| tally.others(outcome)).sum();
    if others > 0 {
        text += &format!(
            "  and others beyond the first {} rows ({})\n",
            grouped(MAX_ROWS as u64),
            events(others)
        );
    }
    for policy in policies {
        text += &policy_line(policy);
    }
    if tally.suppressed_pending() > 0 {
        text += &format!(
            "{} suppressed after the last event, not in the table; the policies' counters are exact\n",
            duplicates(tally.suppressed_pending())
        );
    }
    if tally.lost() > 0 {
        text += &format!(
            "{} lost (ring buffer full); verdicts and the policies' counters are not affected\n",
            events(tally.lost())
        );
    }
    text
}

/// `1 killed, 2 blocked`.
fn heading(tally: &Tally) -> String {
    let parts: Vec<String> = Tally::OUTCOMES
        .into_iter()
        .filter(|&outcome| tally.count(outcome) > 0)
        .map(|outcome| {
            format!(
                "{} {}",
                grouped(tally.count(outcome)),
                outcome.as_str().replace('_', " ")
            )
        })
        .collect();
    if parts.is_empty() {
        return "no events were read".to_owned();
    }
    parts.join(", ")
}

fn destinations(rows: &[&Row], layout: Layout) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["OUTCOME", "COUNT", "DESTINATION", "RULE", "PROCESS"]);
    for row in rows {
        table.add_row([
            Cell::new(mark(row.outcome)),
            Cell::new(grouped(row.count)).set_alignment(CellAlignment::Right),
            Cell::new(&row.destination),
            Cell::new(&row.decided_by),
            Cell::new(&row.process),
        ]);
    }
    if let Some(width) = layout.width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width.max(40));
    }
    let mut text = String::new();
    for line in table.lines() {
        text += styled(line.trim_end(), layout).as_str();
        text.push('\n');
    }
    text
}

/// Colours the first word of a line of the table. The table itself must not contain escape sequences, since it counts
/// columns.
fn styled(line: &str, layout: Layout) -> String {
    if !layout.styled {
        return line.to_owned();
    }
    let of_outcome = Tally::OUTCOMES
        .into_iter()
        .map(|outcome| (mark(outcome), style_of(outcome)))
        .find(|(word, _)| {
            line.strip_prefix(' ')
                .is_some_and(|line| line.split(' ').next() == Some(word))
        });
    let (word, style) = match of_outcome {
        Some(found) => found,
        None if line.starts_with(" OUTCOME") => (&line[1..], Style::new().bold()),
        None => return line.to_owned(),
    };
    let rest = &line[1 + word.len()..];
    format!(" {style}{word}{style:#}{rest}")
}

/// `policy payments (enforce, generation 1): 120 allow, 3 block`: attempts by action of the rule or default that
/// decided, before the mode is applied.
fn policy_line(policy: &PolicyCounters) -> String {
    let mut parts = vec![format!("{} allow", grouped(policy.allowed()))];
    for action in [Action::Audit, Action::Block, Action::Kill] {
        match policy.by_action(action) {
            0 => {}
            count => parts.push(format!("{} {}", grouped(count), action.as_str())),
        }
    }
    match policy.faults {
        0 => {}
        1 => parts.push("1 fault".to_owned()),
        n => parts.push(format!("{} faults", grouped(n))),
    }
    format!(
        "policy {} ({}, generation {}): {}\n",
        escaped(policy.name.as_bytes()),
        policy.mode.as_str(),
        policy.generation,
        parts.join(", ")
    )
}

fn duplicates(count: u64) -> String {
    let noun = if count == 1 { "duplicate" } else { "duplicates" };
    format!("{} {noun}", grouped(count))
}

fn events(count: u64) -> String {
    let noun = if count == 1 { "event" } else { "events" };
    format!("{} {noun}", grouped(count))
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
