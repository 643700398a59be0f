//! Steps: named pieces of work with a result, run one after the other and summed up in a table.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How a step ended, when it did not fail.
pub(crate) enum Outcome {
    /// All of it was done.
    Passed,
    /// Part of it could not be done here: one reason each.
    LeftOut(Vec<String>),
    /// All was done that the running kernel can do; what it lacks, one reason each. No failure, even where
    /// nothing may be left out: nobody can install it.
    NotInKernel(Vec<String>),
}

impl Outcome {
    /// Left out as a whole.
    pub(crate) fn left_out(reason: impl Into<String>) -> Outcome {
        Outcome::LeftOut(vec![reason.into()])
    }
}

/// A step that can be asked for by name.
pub(crate) struct Step {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    /// One line for `--list`.
    pub(crate) about: &'static str,
    /// The work.
    pub(crate) run: fn() -> Result<Outcome>,
}

enum Ending {
    Passed,
    LeftOut(Vec<String>),
    NotInKernel(Vec<String>),
    Failed(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Passed => f.write_str("passed"),
            Ending::LeftOut(reasons) => write!(f, "LEFT OUT {}", reasons.len()),
            Ending::NotInKernel(reasons) => {
                write!(f, "passed, NOT IN THIS KERNEL {}", reasons.len())
            }
            Ending::Failed(_) => f.write_str("FAILED"),
        }
    }
}

/// Prints the names of the steps.
pub(crate) fn list(steps: &[Step]) {
    for step in steps {
        println!("{:<12} {}", step.name, step.about);
    }
}

/// Runs the steps named by `only`, or all when it names none, and prints a table of how they ended. A step
/// that fails does not keep the others from running. With `strict`, leaving something out is a failure, except
/// in the steps listed in `may_be_left_out`.
///
/// # Errors
/// When a name is unknown or a step failed.
pub(crate) fn run(steps: &[Step], only: &[String], may_be_left_out: &[&str], strict: bool) -> Result<()> {
    if let Some(unknown) = only
        .iter()
        .find(|name| steps.iter().all(|step| step.name != **name))
    {
        let known: Vec<&str> = steps.iter().map(|step| step.name).collect();
        bail!("there is no step {unknown:?}; the steps are {}", known.join(", "));
    }
    let wanted = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let mut rows: Vec<(&str, Ending, Duration)> = Vec::new();
    for step in steps.iter().filter(wanted) {
        println!("\n==> {}: {}", step.name, step.about);
        let start = Instant::now();
        let ending = match (step.run)() {
            Ok(Outcome::Passed) => Ending::Passed,
            Ok(Outcome::LeftOut(reasons)) if strict && !may_be_left_out.contains(&step.name) => {
                Ending::Failed(format!(
                    "left out, which continuous integration does not accept: {}",
                    reasons.join("; ")
                ))
            }
            Ok(Outcome::LeftOut(reasons)) => Ending::LeftOut(reasons),
            Ok(Outcome::NotInKernel(reasons)) => Ending::NotInKernel(reasons),
            Err(error) => Ending::Failed(format!("{error:#}")),
        };
        let took = start.elapsed();
        println!("    {}: {ending} ({})", step.name, seconds(took));
        match &ending {
            Ending::Passed => {}
            Ending::LeftOut(reasons) => reasons
                .iter()
                .for_each(|reason| println!("    LEFT OUT: {reason}")),
            Ending::NotInKernel(reasons) => reasons
                .iter()
                .for_each(|reason| println!("    NOT IN THIS KERNEL: {reason}")),
            Ending::Failed(why) => println!("    FAILED: {why}"),
        }
        rows.push((step.name, ending, took));
    }
    summarise(&rows)
}

fn summarise(rows: &[(&str, Ending, Duration)]) -> Result<()> {
    println!("\n{:<12} {:>8}  result", "step", "time");
    let (mut failed, mut left_out, mut not_in_kernel) = (0, 0, 0);
    for (name, ending, took) in rows {
        println!("{name:<12} {:>8}  {ending}", seconds(*took));
        match ending {
            Ending::Passed => {}
            Ending::LeftOut(reasons) => {
                left_out += reasons.len();
                reasons.iter().for_each(|reason| println!("{:23}- {reason}", ""));
            }
            Ending::NotInKernel(reasons) => {
                not_in_kernel += reasons.len();
                reasons.iter().for_each(|reason| println!("{:23}- {reason}", ""));
            }
            Ending::Failed(why) => {
                failed += 1;
                println!("{:23}- {why}", "");
            }
        }
    }
    println!(
        "\n{} steps, {failed} failed, {left_out} left out, {not_in_kernel} not in this kernel",
        rows.len()
    );
    if failed > 0 {
        bail!("{failed} of {} steps failed", rows.len());
    }
    Ok(())
}

/// Whether this is continuous integration, where nothing may be left out quietly.
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
            run: || Ok(Outcome::left_out("no root")),
        },
        Step {
            name: "passes",
            about: "",
            run: passes,
        },
        Step {
            name: "lacks",
            about: "",
            run: || Ok(Outcome::NotInKernel(vec!["no sctp".into()])),
        },
    ];

    fn only(names: &[&str], may_be_left_out: &[&str], strict: bool) -> Result<()> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        run(&STEPS, &names, may_be_left_out, strict)
    }

    #[test]
    fn a_failed_step_fails_the_run_and_the_others_still_run() {
        assert!(only(&[], &[], false).is_err());
        assert_eq!(RUNS.get(), 1);
        assert!(only(&["passes"], &[], true).is_ok());
        assert_eq!(RUNS.get(), 2);
    }

    #[test]
    fn what_is_left_out_fails_only_where_it_must_not_be() {
        assert!(only(&["skips"], &[], false).is_ok());
        assert!(only(&["skips"], &[], true).is_err());
        assert!(only(&["skips"], &["skips"], true).is_ok());
        assert!(only(&["lacks"], &[], true).is_ok());
    }

    #[test]
    fn an_unknown_step_is_named() {
        let error = only(&["passes", "nonsense"], &[], false).unwrap_err().to_string();
        assert!(
            error.contains("nonsense") && error.contains("breaks, skips, passes, lacks"),
            "{error}"
        );
        assert_eq!(RUNS.get(), 0);
    }
}
