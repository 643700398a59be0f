//! The steps of `cargo xtask test`: everything there is, from the set-up to the fuzzing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{answer, cargo, run, shown};
use crate::fuzz;
use crate::lint;
use crate::privilege::Privilege;
use crate::step::{self, Outcome, Step};
use crate::{compile, setup, vm};

/// All of them, in their order; without `vm` not the kernel matrix.
pub(crate) fn steps(vm: bool) -> Vec<Step> {
    let mut steps = vec![Step {
        name: "setup",
        about: "what the steps need is there",
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
            about: "the binary against real sockets, as root",
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
    match Privilege::of_this_process() {
        Privilege::Root => {}
        Privilege::Sudo => {
            // Cargo compiles as this user; only the test programs run as root.
            test.env(runner_variable()?, "sudo --non-interactive --preserve-env");
        }
        Privilege::None => {
            run(&mut cargo(["test", "--package", "integration", "--no-run"]))?;
            let reason = "all integration tests: they need root (run as root, or allow `sudo -n`)";
            return Ok(Outcome::left_out(reason));
        }
    }
    if step::in_ci() {
        test.env("TIDEGATE_REQUIRE_ROOT", "1");
    }
    let said = watched(&mut test)?;
    Ok(match (said.skipped.is_empty(), said.not_in_kernel.is_empty()) {
        (true, true) => Outcome::Passed,
        (true, false) => Outcome::NotInKernel(said.not_in_kernel),
        (false, _) => Outcome::LeftOut([said.skipped, said.not_in_kernel].concat()),
    })
}

/// What tests said that they left out.
#[derive(Debug, Default, PartialEq)]
struct Said {
    skipped: Vec<String>,
    not_in_kernel: Vec<String>,
}

/// Runs tests and shows their output, but of tests that passed only what they left out. Returns that.
fn watched(test: &mut Command) -> Result<Said> {
    const SKIPPED: &str = "SKIPPED: ";
    const NOT_IN_KERNEL: &str = "NOT IN THIS KERNEL: ";
    let shown = shown(test);
    println!("    $ {shown}");
    let mut child = test
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{shown}` does not start"))?;
    let output = child.stdout.take().context("the tests have no output")?;
    let mut said = Said::default();
    let mut of_passed = false;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("the output of the tests cannot be read")?;
        let line = String::from_utf8_lossy(&line);
        match line.as_ref() {
            "successes:" => of_passed = true,
            "failures:" => of_passed = false,
            _ if line.starts_with("test result:") => of_passed = false,
            _ => {}
        }
        if let Some((_, what)) = line.split_once(SKIPPED) {
            said.skipped.push(what.to_owned());
        }
        if let Some((_, what)) = line.split_once(NOT_IN_KERNEL) {
            said.not_in_kernel.push(what.to_owned());
        }
        if !of_passed {
            println!("{line}");
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("`{shown}` cannot be waited for"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(said)
}

/// The variable that tells cargo through which program to run the tests of this machine's target.
fn runner_variable() -> Result<String> {
    let target = host_target()?.replace('-', "_").to_uppercase();
    Ok(format!("CARGO_TARGET_{target}_RUNNER"))
}

/// This machine's target, as rustc calls it.
///
/// # Errors
/// When rustc does not tell.
pub(crate) fn host_target() -> Result<String> {
    let said = answer(Command::new("rustc").arg("-vV")).context("`rustc -vV` fails")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_leave_out_is_collected_also_from_tests_that_passed() {
        let output = "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\nSKIPPED: no ssh\nNOT IN THIS KERNEL: no sctp\n\ntest result: ok.";
        let mut test = Command::new("printf");
        let expected = Said {
            skipped: vec!["no ssh".into()],
            not_in_kernel: vec!["no sctp".into()],
        };
        assert_eq!(watched(test.args(["%s", output])).unwrap(), expected);
        assert!(watched(Command::new("sh").args(["-c", "echo SKIPPED: all; exit 1"])).is_err());
    }

    #[test]
    fn the_runner_is_that_of_this_machine() {
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
