//! The steps of `cargo xtask test`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command_line, run, stdout_of};
use crate::fuzz;
use crate::lint;
use crate::privilege::Privilege;
use crate::step::{self, Outcome, Step};
use crate::{compile, setup, vm};

/// All steps in order; the kernel matrix only with `vm`.
pub(crate) fn steps(vm: bool) -> Vec<Step> {
    let mut steps = vec![Step {
        name: "setup",
        about: "tools that the steps need",
        run: setup::step,
    }];
    steps.extend(lint::STEPS);
    steps.extend([
        Step {
            name: "unit",
            about: "unit, property, snapshot and corpus tests",
            run: unit,
        },
        Step {
            name: "integration",
            about: "the binary with real sockets, as root",
            run: integration,
        },
        Step {
            name: "fuzz",
            about: "each fuzz target for ten seconds",
            run: fuzz::step,
        },
    ]);
    if vm {
        steps.push(Step {
            name: "vm",
            about: "the integration tests on the kernels of vm-tests/kernels.toml, in virtual machines",
            run: vm::step,
        });
    }
    steps
}

fn unit() -> Result<Outcome> {
    run(&mut cargo(["test"]))?;
    Ok(Outcome::Passed)
}

fn integration() -> Result<Outcome> {
    let tidegate = compile::build(false)?;
    let mut test = cargo([
        "test",
        "--package",
        "integration",
        "--no-fail-fast",
        "--",
        "--show-output",
    ]);
    test.env("TIDEGATE_BIN", tidegate.path());
    match Privilege::detect() {
        Privilege::Root => {}
        Privilege::Sudo => {
            // Cargo compiles as this user; only the test programs run as root.
            test.env(runner_variable()?, "sudo --non-interactive --preserve-env");
        }
        Privilege::None => {
            run(&mut cargo(["test", "--package", "integration", "--no-run"]))?;
            let reason = "all integration tests: they need root, or sudo that asks for no password";
            return Ok(Outcome::skipped(reason));
        }
    }
    if step::in_ci() {
        test.env("TIDEGATE_REQUIRE_ROOT", "1");
    }
    let parts = run_tests(&mut test)?;
    Ok(match (parts.skipped.is_empty(), parts.unsupported.is_empty()) {
        (true, true) => Outcome::Passed,
        (true, false) => Outcome::Unsupported(parts.unsupported),
        (false, _) => Outcome::Skipped([parts.skipped, parts.unsupported].concat()),
    })
}

/// The parts that tests reported as skipped, and as not supported by the kernel.
#[derive(Debug, Default, PartialEq)]
struct SkippedParts {
    skipped: Vec<String>,
    unsupported: Vec<String>,
}

/// Runs tests and prints their output, without that of tests that passed. Returns the parts that all of them skipped.
fn run_tests(test: &mut Command) -> Result<SkippedParts> {
    const SKIPPED: &str = "SKIPPED: ";
    const UNSUPPORTED: &str = "NOT IN THIS KERNEL: ";
    let line = command_line(test);
    println!("    $ {line}");
    let mut child = test
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{line}`"))?;
    let output = child.stdout.take().context("the tests have no output")?;
    let mut parts = SkippedParts::default();
    let mut in_passed = false;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of the tests")?;
        let line = String::from_utf8_lossy(&line);
        match line.as_ref() {
            "successes:" => in_passed = true,
            "failures:" => in_passed = false,
            _ if line.starts_with("test result:") => in_passed = false,
            _ => {}
        }
        if let Some((_, what)) = line.split_once(SKIPPED) {
            parts.skipped.push(what.to_owned());
        }
        if let Some((_, what)) = line.split_once(UNSUPPORTED) {
            parts.unsupported.push(what.to_owned());
        }
        if !in_passed {
            println!("{line}");
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(parts)
}

/// The environment variable that sets cargo's runner for tests of this machine's target.
fn runner_variable() -> Result<String> {
    let target = host_target()?.replace('-', "_").to_uppercase();
    Ok(format!("CARGO_TARGET_{target}_RUNNER"))
}

/// The target triple of this machine.
///
/// # Errors
/// When `rustc -vV` does not print it.
pub(crate) fn host_target() -> Result<String> {
    let output = stdout_of(Command::new("rustc").arg("-vV")).context("`rustc -vV` fails")?;
    let host = output.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` printed no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_parts_in_passed_tests_are_collected() {
        let output = "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\nSKIPPED: no ssh\nNOT IN THIS KERNEL: no sctp\n\ntest result: ok.";
        let mut test = Command::new("printf");
        let expected = SkippedParts {
            skipped: vec!["no ssh".into()],
            unsupported: vec!["no sctp".into()],
        };
        assert_eq!(run_tests(test.args(["%s", output])).unwrap(), expected);
        assert!(run_tests(Command::new("sh").args(["-c", "echo SKIPPED: all; exit 1"])).is_err());
    }

    #[test]
    fn the_runner_is_set_for_this_machine() {
        let variable = runner_variable().unwrap();
        assert!(
            variable.starts_with("CARGO_TARGET_") && variable.ends_with("_RUNNER"),
            "{variable}"
        );
        assert!(
            !variable.contains('-') && variable.contains("LINUX"),
            "{variable}"
        );
    }
}
