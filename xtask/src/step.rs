//! Steps: named tasks that run one after the other, with a table of results at the end.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The result of a step that did not fail.
pub(crate) enum Outcome {
    /// Everything was checked.
    Passed,
    /// Parts could not be checked here; a reason for each.
    Skipped(Vec<String>),
    /// The running kernel does not support parts; a reason for each. Never a failure, since a kernel feature cannot be
    /// installed.
    Unsupported(Vec<String>),
}

impl Outcome {
    /// The whole step was skipped.
    pub(crate) fn skipped(reason: impl Into<String>) -> Outcome {
        Outcome::Skipped(vec![reason.into()])
    }
}

/// A step.
pub(crate) struct Step {
    /// Its name for `--only`.
    pub(crate) name: &'static str,
    /// One line for `--list`.
    pub(crate) about: &'static str,
    /// Runs the step.
    pub(crate) run: fn() -> Result<Outcome>,
}

enum StepResult {
    Passed,
    Skipped(Vec<String>),
    Unsupported(Vec<String>),
    Failed(String),
}

impl fmt::Display for StepResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepResult::Passed => f.write_str("passed"),
            StepResult::Skipped(reasons) => write!(f, "SKIPPED {}", reasons.len()),
            StepResult::Unsupported(reasons) => {
                write!(f, "passed, NOT IN THIS KERNEL {}", reasons.len())
            }
            StepResult::Failed(_) => f.write_str("FAILED"),
        }
    }
}

/// Prints the names of the steps.
pub(crate) fn list(steps: &[Step]) {
    for step in steps {
        println!("{:<12} {}", step.name, step.about);
    }
}

/// Runs the steps named in `only`, or all when it is empty, and prints a table of results. The others run even if a step
/// fails. With `strict` a skipped part is a failure, except in the steps in `may_be_skipped`.
///
/// # Errors
/// When a name is unknown or a step failed.
pub(crate) fn run(steps: &[Step], only: &[String], may_be_skipped: &[&str], strict: bool) -> Result<()> {
    if let Some(unknown) = only
        .iter()
        .find(|name| steps.iter().all(|step| step.name != **name))
    {
        let known: Vec<&str> = steps.iter().map(|step| step.name).collect();
        bail!("unknown step {unknown:?}; expected one of: {}", known.join(", "));
    }
    let wanted = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let mut rows: Vec<(&str, StepResult, Duration)> = Vec::new();
    for step in steps.iter().filter(wanted) {
        println!("\n==> {}: {}", step.name, step.about);
        let start = Instant::now();
        let result = match (step.run)() {
            Ok(Outcome::Passed) => StepResult::Passed,
            Ok(Outcome::Skipped(reasons)) if strict && !may_be_skipped.contains(&step.name) => {
                StepResult::Failed(format!(
                    "skipped, which is an error in continuous integration: {}",
                    reasons.join("; ")
                ))
            }
            Ok(Outcome::Skipped(reasons)) => StepResult::Skipped(reasons),
            Ok(Outcome::Unsupported(reasons)) => StepResult::Unsupported(reasons),
            Err(error) => StepResult::Failed(format!("{error:#}")),
        };
        let took = start.elapsed();
        println!("    {}: {result} ({})", step.name, seconds(took));
        match &result {
            StepResult::Passed => {}
            StepResult::Skipped(reasons) => reasons
                .iter()
                .for_each(|reason| println!("    SKIPPED: {reason}")),
            StepResult::Unsupported(reasons) => reasons
                .iter()
                .for_each(|reason| println!("    NOT IN THIS KERNEL: {reason}")),
            StepResult::Failed(why) => println!("    FAILED: {why}"),
        }
        rows.push((step.name, result, took));
    }
    summarise(&rows)
}

fn summarise(rows: &[(&str, StepResult, Duration)]) -> Result<()> {
    println!("\n{:<12} {:>8}  result", "step", "time");
    let (mut failed, mut skipped, mut unsupported) = (0, 0, 0);
    for (name, result, took) in rows {
        println!("{name:<12} {:>8}  {result}", seconds(*took));
        match result {
            StepResult::Passed => {}
            StepResult::Skipped(reasons) => {
                skipped += reasons.len();
                reasons.iter().for_each(|reason| println!("{:23}- {reason}", ""));
            }
            StepResult::Unsupported(reasons) => {
                unsupported += reasons.len();
                reasons.iter().for_each(|reason| println!("{:23}- {reason}", ""));
            }
            StepResult::Failed(why) => {
                failed += 1;
                println!("{:23}- {why}", "");
            }
        }
    }
    println!(
        "\n{} steps, {failed} failed, {skipped} skipped, {unsupported} not in this kernel",
        rows.len()
    );
    if failed > 0 {
        bail!("{failed} of {} steps failed", rows.len());
    }
    Ok(())
}

/// Whether this is continuous integration, where skipping is an error.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false" && ci != "0")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! { static RUNS: Cell<u32> = const { Cell::new(0) }; }

    fn passes() -> Result<Outcome> {
        RUNS.set(RUNS.get() + 1);
        Ok(Outcome::Passed)
    }

    const STEPS: [Step; 4] = [
        Step {
            name: "breaks",
            about: "",
            run: || bail!("broken"),
        },
        Step {
            name: "skips",
            about: "",
            run: || Ok(Outcome::skipped("no root")),
        },
        Step {
            name: "passes",
            about: "",
            run: passes,
        },
        Step {
            name: "lacks",
            about: "",
            run: || Ok(Outcome::Unsupported(vec!["no sctp".into()])),
        },
    ];

    fn only(names: &[&str], may_be_skipped: &[&str], strict: bool) -> Result<()> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        run(&STEPS, &names, may_be_skipped, strict)
    }

    #[test]
    fn the_other_steps_run_after_a_failure() {
        assert!(only(&[], &[], false).is_err());
        assert_eq!(RUNS.get(), 1);
        assert!(only(&["passes"], &[], true).is_ok());
        assert_eq!(RUNS.get(), 2);
    }

    #[test]
    fn skipping_is_an_error_only_in_strict_mode() {
        assert!(only(&["skips"], &[], false).is_ok());
        assert!(only(&["skips"], &[], true).is_err());
        assert!(only(&["skips"], &["skips"], true).is_ok());
        assert!(only(&["lacks"], &[], true).is_ok());
    }

    #[test]
    fn an_unknown_step_is_an_error() {
        let error = only(&["passes", "nonsense"], &[], false).unwrap_err().to_string();
        assert!(
            error.contains("nonsense") && error.contains("breaks, skips, passes, lacks"),
            "{error}"
        );
        assert_eq!(RUNS.get(), 0);
    }
}
