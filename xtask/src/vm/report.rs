//! The report: a line for each kernel, and at the end a table with details.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::verdict::{Row, Verdict};

/// One line about a finished kernel.
pub(crate) fn line(row: &Row) -> String {
    let cells = cells(row);
    format!(
        "{}: {} ({}): {} passed, {} expected failures, {} failed, {} s",
        cells[0], cells[6], cells[1], cells[2], cells[3], cells[4], cells[5]
    )
}

/// The table, and below it details of each kernel.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = [
        "kernel",
        "release",
        "passed",
        "expected failures",
        "failed",
        "seconds",
        "result",
    ]
    .map(str::to_owned);
    let lines: Vec<[String; 7]> = [head].into_iter().chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            // Writing to a String cannot fail.
            let _ = match column {
                0 | 1 | 6 => write!(text, "{cell:<width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for row in rows {
        details(row, &mut text);
    }
    text
}

fn cells(row: &Row) -> [String; 7] {
    let count = |matches: fn(&Verdict) -> bool| row.count(matches).to_string();
    [
        row.kernel.clone(),
        row.release.clone().unwrap_or_else(|| "-".to_owned()),
        count(|verdict| matches!(verdict, Verdict::Passed | Verdict::UnexpectedPass { .. })),
        count(|verdict| matches!(verdict, Verdict::ExpectedFailure { .. })),
        count(|verdict| matches!(verdict, Verdict::Failed { .. })),
        format!("{:.0}", row.seconds),
        if row.passes() { "passed" } else { "FAILED" }.to_owned(),
    ]
}

fn details(row: &Row, text: &mut String) {
    let mut lines = String::new();
    if let Some(why) = &row.first_attempt {
        let _ = writeln!(lines, "  SECOND ATTEMPT: the first machine was aborted: {why}");
    }
    for error in &row.errors {
        let _ = writeln!(lines, "  ERROR {error}");
    }
    for test in &row.tests {
        if let Verdict::Failed { output } = &test.verdict {
            let _ = writeln!(
                lines,
                "  FAILED {}\n    {}",
                test.name,
                output.replace('\n', "\n    ")
            );
        }
        if let Verdict::UnexpectedPass { reason } = &test.verdict {
            let _ = writeln!(lines, "  unexpected pass: {} ({reason})", test.name);
        }
    }
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for test in &row.tests {
        if let Verdict::ExpectedFailure { reason } = &test.verdict {
            *expected.entry(reason).or_default() += 1;
        }
    }
    for (reason, tests) in expected {
        let _ = writeln!(lines, "  {tests} expected failures: {reason}");
    }
    if let Some(log) = &row.log {
        let _ = writeln!(lines, "  console: {log}");
    }
    if !lines.is_empty() {
        let _ = write!(text, "\n{}\n{lines}", row.kernel);
    }
}
