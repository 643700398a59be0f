//! What is shown: progress while a kernel runs, and a table at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use super::console::News;
use super::verdict::{Row, Verdict};

/// Progress of one kernel: a line that is overwritten on a terminal, a line a program elsewhere.
pub(crate) struct Progress {
    kernel: String,
    expected: usize,
    ended: usize,
    failed: usize,
    in_place: bool,
    quiet: bool,
}

impl Progress {
    /// Of a kernel with so many tests. Quiet where the output is for programs.
    pub(crate) fn of(kernel: &str, expected: usize, quiet: bool) -> Progress {
        Progress {
            kernel: kernel.to_owned(),
            expected,
            ended: 0,
            failed: 0,
            in_place: io::stdout().is_terminal(),
            quiet,
        }
    }

    /// Shows it.
    pub(crate) fn tell(&mut self, news: &News) {
        if let News::Test(_, how) = news {
            self.ended += 1;
            self.failed += usize::from(how != "ok");
        }
        if self.quiet {
            return;
        }
        let Progress {
            kernel,
            expected,
            ended,
            failed,
            ..
        } = self;
        let so_far = format!("    {kernel}: {ended}/{expected}");
        let failed = if *failed > 0 {
            format!(", {failed} failed")
        } else {
            String::new()
        };
        match news {
            News::Begins(name) | News::Test(name, _) if self.in_place => {
                // Cleared first: names differ in length.
                print!("\r\u{1b}[K{so_far}{failed}  {name}");
            }
            News::Ends(name, seconds, _) if !self.in_place => {
                println!("{so_far}{failed}  {name} ({seconds:.0} s)");
            }
            _ => {}
        }
        // A progress line that cannot be shown is no loss.
        let _ = io::stdout().flush();
    }

    /// Leaves the line.
    pub(crate) fn end(&self) {
        if self.in_place && !self.quiet {
            print!("\r\u{1b}[K");
        }
    }
}

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
