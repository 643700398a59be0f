//! docs/egress-paths.md: the results of `tidegate selftest` on each kernel. The page is generated.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Options, matrix::Matrix, report, require_pass, rows, verdict::Row};
use crate::command::workspace;

const DOCUMENT: &str = "docs/egress-paths.md";
/// The test that prints the results, and the start of each of its lines.
const TEST: &str = "selftest_cli::every_method_is_blocked_by_its_hook";
const MARK: &str = "SELFTEST ";

const HEAD: &str = "\
# Egress paths by kernel

Written by `cargo xtask vm --selftest`, which runs `sudo tidegate selftest` on the [test kernels](../README.md#kernels) in
virtual machines. An egress path is a method (what the process does; see [Methods](#methods)) and a kind of destination. A
client sends a message on each path to a local test server: first without a policy, then under a policy that denies it.
Nothing arrived under the policy, except where a cell is **bypass**.

A cell has the name of the hook that denied the call, from its event. Names with `lsm_` are LSM programs, the others cgroup
hooks. `(capability)`: `exec` drops a capability that the method needs. `-`: this kernel does not support the method.

";

/// A test case in the JSON of `selftest`.
#[derive(Debug, Deserialize)]
struct CaseResult {
    method: String,
    about: String,
    destination: String,
    result: String,
    hook: Option<String>,
    reason: Option<String>,
}

impl CaseResult {
    fn cell(&self) -> &str {
        match (self.result.as_str(), &self.hook) {
            ("blocked", Some(hook)) => hook,
            ("blocked", None) => "(capability)",
            ("unsupported", _) => "-",
            ("bypass", _) => "**bypass**",
            (result, _) => result,
        }
    }
}

/// Runs the self-test on the selected kernels and writes the page.
///
/// # Errors
/// When it fails on one of them; then nothing is written.
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
    require_pass(&rows)?;
    let mut columns = Vec::new();
    for row in &rows {
        columns.push((title(row), results(row)?));
    }
    let path = workspace().join(DOCUMENT);
    fs::write(&path, HEAD.to_owned() + &table(&columns)?).with_context(|| path.display().to_string())?;
    println!("wrote {DOCUMENT}");
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

/// The results on the console of a kernel.
fn results(row: &Row) -> Result<Vec<CaseResult>> {
    let path = row.log.as_deref().context("the console log was not kept")?;
    let console = fs::read(path).with_context(|| path.to_owned())?;
    let lines: Vec<CaseResult> = read(&String::from_utf8_lossy(&console))?;
    ensure!(!lines.is_empty(), "{path} has no line that starts with {MARK:?}");
    Ok(lines)
}

fn read(console: &str) -> Result<Vec<CaseResult>> {
    console
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix(MARK))
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// One row for each test case; every kernel runs the same ones in the same order.
fn table(columns: &[(String, Vec<CaseResult>)]) -> Result<String> {
    let (_, first) = columns.first().context("no kernel")?;
    let mut text = "| method | destination |".to_owned();
    for (kernel, _) in columns {
        text += &format!(" {kernel} |");
    }
    text += &format!("\n|{}\n", "---|".repeat(columns.len() + 2));
    let mut methods: Vec<String> = Vec::new();
    let mut reasons: Vec<String> = Vec::new();
    for (index, line) in first.iter().enumerate() {
        text += &format!("| {} | {} |", line.method, line.destination);
        let method = format!("| {} | {} |\n", line.method, line.about);
        if !methods.contains(&method) {
            methods.push(method);
        }
        for (kernel, lines) in columns {
            let same = lines
                .get(index)
                .filter(|other| (&other.method, &other.destination) == (&line.method, &line.destination));
            let same = same.with_context(|| {
                format!(
                    "{kernel} has no result of {} to {}",
                    line.method, line.destination
                )
            })?;
            text += &format!(" {} |", same.cell());
            if let ("bypass", Some(why)) = (same.result.as_str(), &same.reason) {
                let reason = format!("- {}: **bypass**: {why}\n", same.method);
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        text.push('\n');
    }
    if !reasons.is_empty() {
        text += &format!("\n{}", reasons.concat());
    }
    text += "\n## Methods\n\n| method | what the process does |\n|---|---|\n";
    Ok(text + &methods.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(result: &str, hook: &str) -> Vec<CaseResult> {
        let line = format!(
            r#"{{"method":"m","about":"a","destination":"IPv4","result":"{result}","hook":{hook},"reason":"so"}}"#
        );
        read(&format!("noise\r\n{MARK}{line}\r\nmore\n")).unwrap()
    }

    #[test]
    fn each_kernel_is_a_column() {
        let columns = [
            ("5".to_owned(), console("unsupported", "null")),
            ("6".to_owned(), console("blocked", "\"connect4\"")),
            ("7".to_owned(), console("bypass", "null")),
        ];
        assert_eq!(
            table(&columns).unwrap(),
            "| method | destination | 5 | 6 | 7 |\n|---|---|---|---|---|\n| m | IPv4 | - | connect4 | **bypass** |\n\n\
             - m: **bypass**: so\n\n## Methods\n\n| method | what the process does |\n|---|---|\n| m | a |\n"
        );
    }

    #[test]
    fn kernels_with_different_test_cases_are_an_error() {
        let mut other = console("bypass", "null");
        other[0].method = "v".to_owned();
        assert!(
            table(&[
                ("5".to_owned(), console("bypass", "null")),
                ("6".to_owned(), other)
            ])
            .is_err()
        );
        assert!(read("SELFTEST {").is_err());
    }
}
