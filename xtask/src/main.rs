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
#[path = "../../engine/build/toolchain.rs"]
#[expect(
    dead_code,
    reason = "set-up looks for the compiler; only the build script runs it"
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
    /// Find what development needs; install what is missing, or say what to type
    Setup {
        /// Install nothing
        #[arg(long)]
        check: bool,
    },
    /// Build tidegate with its kernel programs
    Build {
        /// With optimisation (the kernel programs always are)
        #[arg(long)]
        release: bool,
    },
    /// Show it at work: real curl, allowed, audited, blocked and killed (needs root, or --vm)
    Demo {
        /// In a virtual machine, which needs no root
        #[arg(long)]
        vm: bool,
        /// Boot this kernel of vm-tests/kernels.toml (`cargo xtask vm --list`)
        #[arg(long, value_name = "NAME", requires = "vm")]
        kernel: Option<String>,
    },
    /// Check form: formatting, lints, dependencies
    Lint(Choice),
    /// Check everything: set-up, lint, unit to integration tests, fuzzing, other kernels in virtual machines
    Test {
        #[command(flatten)]
        choice: Choice,
        /// Leave out the other kernels, which are a third of the time
        #[arg(long)]
        no_vm: bool,
    },
    /// Look for inputs that break a parser
    Fuzz {
        /// What to fuzz [default: everything]
        target: Option<fuzz::Target>,
        /// For how long, each
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Measure what the gate costs, beside the same without it (needs root); --help tells more
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
    /// Write the kernels in README.md, and the table of docs/verifier.md
    Docs,
}

#[derive(Args)]
struct Choice {
    /// Run this step only; may be repeated
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
                return demo::perform(&tidegate);
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
