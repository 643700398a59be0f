//! Developer commands, run as `cargo xtask COMMAND`.

mod bench;
#[cfg(test)]
mod claims;
mod command;
mod compile;
mod demo;
mod docs;
mod fuzz;
mod lint;
mod privilege;
mod schema;
mod setup;
mod step;
mod test;
#[path = "../../engine/core/build/toolchain.rs"]
#[expect(
    dead_code,
    reason = "setup only finds the compiler; the build script also runs it"
)]
mod toolchain;
mod verifier;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::setup::Purpose;
use crate::step::Step;

/// Developer commands of Tidegate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find the tools for development; install missing ones, or print the commands to run
    Setup {
        /// Install nothing
        #[arg(long)]
        check: bool,
    },
    /// Build tidegate with its kernel programs
    Build {
        /// Build with optimisation (kernel programs are always optimised)
        #[arg(long)]
        release: bool,
    },
    /// Run curl under a policy: allowed, audited, blocked and killed (needs root, or --vm)
    Demo {
        /// Run in a virtual machine, which needs no root
        #[arg(long)]
        vm: bool,
        /// Boot this kernel of vm-tests/kernels.toml (`cargo xtask vm --list`)
        #[arg(long, value_name = "NAME", requires = "vm")]
        kernel: Option<String>,
    },
    /// Check formatting, lints and dependencies
    Lint(Choice),
    /// Check everything: setup, lints, unit and integration tests, fuzzing, other kernels in virtual machines
    Test {
        #[command(flatten)]
        choice: Choice,
        /// Skip the other kernels, which take a third of the time
        #[arg(long)]
        no_vm: bool,
    },
    /// Fuzz the parsers
    Fuzz {
        /// Target to fuzz [default: all]
        target: Option<fuzz::Target>,
        /// Duration for each target, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Measure the cost of the kernel programs (needs root); see --help
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Run the integration tests on other kernels, in virtual machines (needs no root)
    Vm(vm::Options),
    /// Write policies/schema.json from the types of the policy language
    Schema,
    /// Write the generated parts of README.md and docs/verifier.md
    Docs,
}

#[derive(Args)]
struct Choice {
    /// Run only this step; repeatable
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// List the steps
    #[arg(long)]
    list: bool,
}

impl Choice {
    fn run(&self, steps: &[Step]) -> Result<()> {
        if self.list {
            step::list(steps);
            return Ok(());
        }
        step::run(steps, &self.only, &["advisories"], step::in_ci())
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Setup { check } => setup::run(*check),
        Command::Build { release } => {
            let tidegate = compile::build(*release)?;
            println!("{}", tidegate.path().display());
            Ok(())
        }
        Command::Demo { vm: true, kernel } => vm::demonstration::run(kernel.as_deref()),
        Command::Demo { vm: false, .. } => {
            if let Some(tidegate) = demo::inside() {
                return demo::run_inside(&tidegate);
            }
            setup::ensure(&[Purpose::Build, Purpose::Demo])?;
            demo::run(&compile::build(false)?)
        }
        Command::Lint(choice) => choice.run(&lint::STEPS),
        Command::Test { choice, no_vm } => choice.run(&test::steps(!no_vm)),
        Command::Fuzz {
            target: Some(target),
            seconds,
        } => fuzz::fuzz(&[*target], *seconds),
        Command::Fuzz {
            target: None,
            seconds,
        } => fuzz::fuzz(fuzz::Target::value_variants(), *seconds),
        Command::Bench { arguments } => bench::run(arguments),
        Command::Vm(options) => vm::run(options),
        Command::Schema => schema::write(),
        Command::Docs => docs::write(),
    }
}
