//! Compares the results of a kernel with what kernels.toml expects.

use std::time::Duration;

use serde::Serialize;

use super::console::{Console, TestReport};
use super::matrix::{self, Kernel};

/// The verdict on a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It passed and skipped nothing.
    Passed,
    /// It failed or skipped a part, as kernels.toml expects (`cannot`).
    ExpectedFailure {
        /// The reason in kernels.toml.
        reason: String,
    },
    /// It passed, although kernels.toml expects a failure.
    UnexpectedPass {
        /// The reason in kernels.toml.
        reason: String,
    },
    /// It failed or skipped a part.
    Failed {
        /// The relevant part of its output.
        output: String,
    },
}

/// A test and its verdict.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Test {
    /// `program::test`.
    pub(crate) name: String,
    /// Its verdict.
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// The results of a kernel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Name of the kernel in kernels.toml.
    pub(crate) kernel: String,
    /// Whether the kernel could be downloaded.
    pub(crate) fetched: bool,
    /// The kernel release, as `uname -r` prints it.
    pub(crate) release: Option<String>,
    /// Active security modules.
    pub(crate) security_modules: Option<String>,
    /// All selected tests.
    pub(crate) tests: Vec<Test>,
    /// Errors other than failed tests.
    pub(crate) errors: Vec<String>,
    /// Why the first machine was aborted, if there was a second one.
    pub(crate) first_attempt: Option<String>,
    /// Number of tests that were not selected.
    pub(crate) excluded: usize,
    /// Output of all tests.
    #[serde(skip)]
    pub(crate) output: Vec<String>,
    /// Seconds from power-on to power-off.
    pub(crate) seconds: f64,
    /// Path of the console log, if it was kept.
    pub(crate) log: Option<String>,
}

impl Row {
    /// Compares the console with the selected tests.
    pub(crate) fn of(
        kernel: &Kernel,
        console: Console,
        expected: &[String],
        excluded: usize,
        took: Duration,
    ) -> Row {
        let evaluate = |name: &String| Test {
            name: name.clone(),
            verdict: verdict(console.tests.get(name), matrix::reason(&kernel.cannot, name)),
        };
        Row {
            kernel: kernel.name.clone(),
            fetched: true,
            tests: expected.iter().map(evaluate).collect(),
            output: console
                .tests
                .values()
                .flat_map(|test| test.output.clone())
                .collect(),
            release: console.release,
            security_modules: console.security_modules,
            errors: console.errors,
            first_attempt: None,
            excluded,
            seconds: took.as_secs_f64(),
            log: None,
        }
    }

    /// A kernel that could not be downloaded or started.
    pub(crate) fn without_start(kernel: &Kernel, fetched: bool, why: String) -> Row {
        Row {
            kernel: kernel.name.clone(),
            fetched,
            release: None,
            security_modules: None,
            tests: Vec::new(),
            errors: vec![why],
            first_attempt: None,
            excluded: 0,
            output: Vec::new(),
            seconds: 0.0,
            log: None,
        }
    }

    /// Number of tests whose verdict matches.
    pub(crate) fn count(&self, matches: impl Fn(&Verdict) -> bool) -> usize {
        self.tests.iter().filter(|test| matches(&test.verdict)).count()
    }

    /// Whether there are no errors and no failed tests.
    pub(crate) fn passes(&self) -> bool {
        self.errors.is_empty() && self.count(|verdict| matches!(verdict, Verdict::Failed { .. })) == 0
    }
}

fn verdict(report: Option<&TestReport>, cannot: Option<&str>) -> Verdict {
    let why = match report {
        None => Some("the test did not finish".to_owned()),
        Some(report) if report.result != "ok" => Some(failure_output(report)),
        Some(report) => (!report.skipped.is_empty()).then(|| report.skipped.join("; ")),
    };
    match (why, cannot.map(str::to_owned)) {
        (None, None) => Verdict::Passed,
        (None, Some(reason)) => Verdict::UnexpectedPass { reason },
        (Some(_), Some(reason)) => Verdict::ExpectedFailure { reason },
        (Some(output), None) => Verdict::Failed { output },
    }
}

/// The line with the panic location and the lines after it.
fn failure_output(report: &TestReport) -> String {
    const LINES: usize = 8;
    let start = report.output.iter().position(|line| line.contains("panicked at"));
    let lines: Vec<&str> = report.output[start.unwrap_or(0)..]
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty() && !line.starts_with("note: "))
        .take(LINES)
        .collect();
    if lines.is_empty() {
        return report.result.clone();
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(result: &str, skipped: &[&str]) -> TestReport {
        TestReport {
            result: result.to_owned(),
            skipped: skipped.iter().map(|&what| what.to_owned()).collect(),
            output: vec![
                "other output".into(),
                "thread 'x' panicked at a.rs:1:".into(),
                "no".into(),
            ],
        }
    }

    #[test]
    fn a_test_that_must_pass_must_not_skip_a_part() {
        let failed = |why: &str| Verdict::Failed {
            output: why.to_owned(),
        };
        assert_eq!(verdict(Some(&report("ok", &[])), None), Verdict::Passed);
        assert_eq!(
            verdict(Some(&report("ok", &["NOT IN THIS KERNEL: x"])), None),
            failed("NOT IN THIS KERNEL: x")
        );
        assert_eq!(
            verdict(Some(&report("FAILED", &[])), None),
            failed("thread 'x' panicked at a.rs:1:\nno")
        );
        assert_eq!(verdict(None, None), failed("the test did not finish"));
    }

    #[test]
    fn an_unexpected_pass_is_reported() {
        let reason = "old".to_owned();
        let cannot = Verdict::ExpectedFailure {
            reason: reason.clone(),
        };
        assert_eq!(verdict(Some(&report("FAILED", &[])), Some("old")), cannot);
        assert_eq!(verdict(Some(&report("ok", &["SKIPPED: y"])), Some("old")), cannot);
        assert_eq!(
            verdict(Some(&report("ok", &[])), Some("old")),
            Verdict::UnexpectedPass { reason }
        );
    }
}
