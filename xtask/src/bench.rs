//! `cargo xtask bench`: builds the benchmark and the binary, and runs the benchmark as root.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command_line};
use crate::compile;
use crate::privilege::Privilege;
use crate::setup::{self, Purpose};

/// Runs the benchmark with these arguments. Only the benchmark writes to standard output.
///
/// # Errors
/// When the benchmark cannot be built or does not finish; a slow result is not an error.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    // The tools to compare with are optional: the benchmark lists the rows that it skips.
    if let Err(error) = setup::ensure(&[Purpose::Bench]) {
        eprintln!("    {error:#}");
    }
    setup::ensure(&[Purpose::Build])?;
    // In one build: separate builds would select different features of shared dependencies.
    let packages = ["--package", "tidegate", "--package", "bench"];
    let mut build = cargo(["build", "--release"]);
    let built = build.args(packages).status().context("cannot run cargo")?;
    if !built.success() {
        bail!("`{}` failed: {built}", command_line(&build));
    }
    let directory = compile::target_directory()?.join("release");
    let program = directory.join("bench");
    let mut bench = match Privilege::detect() {
        Privilege::Root => Command::new(program),
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", "--preserve-env"]).arg(program);
            sudo
        }
        Privilege::None => {
            bail!("the benchmark needs root: run `sudo -v` first, so that sudo asks for no password")
        }
    };
    bench
        .args(arguments)
        .env("TIDEGATE_BIN", directory.join("tidegate"))
        .stdin(Stdio::null());
    let status = bench.status().context("cannot run the benchmark")?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}
