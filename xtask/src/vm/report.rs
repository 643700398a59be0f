//! What is shown at the end: a line about each kernel, and a table with all that needs words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::verdict::{Row, Verdict};

/// One line about a kernel that is through.
pub(crate) fn line(row: &Row) -> String {
    let cells = cells(row);
    format!(
        "{}: {} ({}): {} passed, {} cannot, {} failed, {} s",
        cells[0], cells[6], cells[1], cells[2], cells[3], cells[4], cells[5]
    )
}

/// The table, and below it all that needs words.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = [
        "kernel", "release", "passed", "cannot", "failed", "seconds", "verdict",
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
        words(row, &mut text);
    }
    text
}

fn cells(row: &Row) -> [String; 7] {
    let count = |is_it: fn(&Verdict) -> bool| row.count(is_it).to_string();
    [
        row.kernel.clone(),
        row.release.clone().unwrap_or_else(|| "-".to_owned()),
        count(|verdict| matches!(verdict, Verdict::Passed | Verdict::Better { .. })),
        count(|verdict| matches!(verdict, Verdict::Cannot { .. })),
        count(|verdict| matches!(verdict, Verdict::Failed { .. })),
        format!("{:.0}", row.seconds),
        if row.holds() { "holds" } else { "FAILED" }.to_owned(),
    ]
}

fn words(row: &Row, text: &mut String) {
    let mut said = String::new();
    if let Some(why) = &row.first_try {
        let _ = writeln!(said, "  TRIED TWICE: the first machine broke off: {why}");
    }
    for trouble in &row.troubles {
        let _ = writeln!(said, "  TROUBLE {trouble}");
    }
    for test in &row.tests {
        if let Verdict::Failed { why } = &test.verdict {
            let _ = writeln!(
                said,
                "  FAILED {}\n    {}",
                test.name,
                why.replace('\n', "\n    ")
            );
        }
        if let Verdict::Better { reason } = &test.verdict {
            let _ = writeln!(said, "  passes, though it cannot: {} ({reason})", test.name);
        }
    }
    let mut cannot: BTreeMap<&str, usize> = BTreeMap::new();
    for test in &row.tests {
        if let Verdict::Cannot { reason } = &test.verdict {
            *cannot.entry(reason).or_default() += 1;
        }
    }
    for (reason, tests) in cannot {
        let _ = writeln!(said, "  {tests} cannot: {reason}");
    }
    if let Some(log) = &row.log {
        let _ = writeln!(said, "  console: {log}");
    }
    if !said.is_empty() {
        let _ = write!(text, "\n{}\n{said}", row.kernel);
    }
}
