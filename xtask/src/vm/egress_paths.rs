//! docs/egress-paths.md: what became of each way out on each kernel, by `tidegate selftest` there. Nothing in
//! it is written by hand.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Options, matrix::Matrix, report, rows, settled, verdict::Row};
use crate::command::workspace;

const DOCUMENT: &str = "docs/egress-paths.md";
/// The test that says what became of each way, and the mark of a line that does.
const TEST: &str = "selftest_cli::every_method_is_blocked_by_its_hook";
const MARK: &str = "SELFTEST ";

const HEAD: &str = "\
# Every way out, kernel by kernel

Written by `cargo xtask vm --selftest`: `sudo tidegate selftest` on the kernels of the matrix, each in a virtual machine. Each
way goes to a receiver without the gate first, then behind it; nothing arrived unless it says **open**. A name is that of the
hook that denied, by its own event; `(capability)`: `exec` takes away what it needs; `-`: this kernel does not have it.

";

/// What `selftest` says of a way.
#[derive(Debug, Deserialize)]
struct Line {
    way: String,
    destination: String,
    status: String,
    hook: Option<String>,
    why: Option<String>,
}

impl Line {
    fn cell(&self) -> &str {
        match (self.status.as_str(), &self.hook) {
            ("blocked", Some(hook)) => hook,
            ("blocked", None) => "(capability)",
            ("not_here", _) => "-",
            ("open", _) => "**open**",
            (status, _) => status,
        }
    }
}

/// Runs the self-test on the kernels asked for, and writes the document.
///
/// # Errors
/// When it does not hold on one of them: then nothing is written.
pub(super) fn write(options: &Options, matrix: &Matrix) -> Result<()> {
    let options = Options {
        kernel: options.kernel.clone(),
        test: vec![TEST.to_owned()],
        keep: true,
        update: options.update,
        ..Options::default()
    };
    let rows = rows(&options, matrix)?;
    print!("\n{}", report::table(&rows));
    settled(&rows)?;
    let mut columns = Vec::new();
    for row in &rows {
        columns.push((title(row), said(row)?));
    }
    let path = workspace().join(DOCUMENT);
    fs::write(&path, HEAD.to_owned() + &table(&columns)?).with_context(|| path.display().to_string())?;
    println!("{DOCUMENT} is written");
    Ok(())
}

fn title(row: &Row) -> String {
    let release = row.release.as_deref().unwrap_or_default();
    format!(
        "{} ({})",
        row.kernel,
        release.split('-').next().unwrap_or_default()
    )
}

/// What the console of a kernel shows.
fn said(row: &Row) -> Result<Vec<Line>> {
    let path = row.log.as_deref().context("no console was kept")?;
    let console = fs::read(path).with_context(|| path.to_owned())?;
    let lines: Vec<Line> = read(&String::from_utf8_lossy(&console))?;
    ensure!(!lines.is_empty(), "{path} has no line that starts with {MARK:?}");
    Ok(lines)
}

fn read(console: &str) -> Result<Vec<Line>> {
    console
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix(MARK))
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// One row a way; every kernel tries the same ones, in the same order.
fn table(columns: &[(String, Vec<Line>)]) -> Result<String> {
    let (_, first) = columns.first().context("no kernel")?;
    let mut text = "| way | destination |".to_owned();
    for (kernel, _) in columns {
        text += &format!(" {kernel} |");
    }
    text += &format!("\n|{}\n", "---|".repeat(columns.len() + 2));
    let mut reasons: Vec<String> = Vec::new();
    for (number, line) in first.iter().enumerate() {
        text += &format!("| {} | {} |", line.way, line.destination);
        for (kernel, lines) in columns {
            let same = lines
                .get(number)
                .filter(|other| (&other.way, &other.destination) == (&line.way, &line.destination));
            let same = same
                .with_context(|| format!("{kernel} says nothing of {} to {}", line.way, line.destination))?;
            text += &format!(" {} |", same.cell());
            if let ("open", Some(why)) = (same.status.as_str(), &same.why) {
                let reason = format!("- {} is **open**: {why}\n", same.way);
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        text.push('\n');
    }
    Ok(match reasons.as_slice() {
        [] => text,
        reasons => format!("{text}\n{}", reasons.concat()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(status: &str, hook: &str) -> Vec<Line> {
        let line =
            format!(r#"{{"way":"w","destination":"IPv4","status":"{status}","hook":{hook},"why":"so"}}"#);
        read(&format!("noise\r\n{MARK}{line}\r\nmore\n")).unwrap()
    }

    #[test]
    fn a_column_a_kernel() {
        let columns = [
            ("5".to_owned(), console("not_here", "null")),
            ("6".to_owned(), console("blocked", "\"connect4\"")),
            ("7".to_owned(), console("open", "null")),
        ];
        assert_eq!(
            table(&columns).unwrap(),
            "| way | destination | 5 | 6 | 7 |\n|---|---|---|---|---|\n| w | IPv4 | - | connect4 | **open** |\n\n\
             - w is **open**: so\n"
        );
    }

    #[test]
    fn kernels_that_tried_something_else_are_no_table() {
        let mut other = console("open", "null");
        other[0].way = "v".to_owned();
        assert!(table(&[("5".to_owned(), console("open", "null")), ("6".to_owned(), other)]).is_err());
        assert!(read("SELFTEST {").is_err());
    }
}
