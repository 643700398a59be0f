//! `cargo xtask bench`: builds the benchmark and what it measures, and runs it as root.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, shown};
use crate::compile;
use crate::privilege::Privilege;
use crate::setup::{self, Purpose};

/// Runs it with these arguments. Standard output is the benchmark's alone.
///
/// # Errors
/// When it cannot be built, or does not run; what it measures is never an error.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    // What stands beside the gate may be missing: the benchmark says which rows it leaves out.
    if let Err(error) = setup::ensure(&[Purpose::Bench]) {
        eprintln!("    {error:#}");
    }
    setup::ensure(&[Purpose::Build])?;
    // In one go: on its own each would be built with other features of what they share.
    let packages = ["--package", "tidegate", "--package", "bench"];
    let mut build = cargo(["build", "--release"]);
    let built = build.args(packages).status().context("cargo does not start")?;
    if !built.success() {
        bail!("`{}` failed: {built}", shown(&build));
    }
    let folder = compile::target_folder()?.join("release");
    let program = folder.join("bench");
    let mut bench = match Privilege::of_this_process() {
        Privilege::Root => Command::new(program),
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", "--preserve-env"]).arg(program);
            sudo
        }
        Privilege::None => bail!("the benchmark needs root, or sudo that asks nothing: run `sudo -v` first"),
    };
    bench
        .args(arguments)
        .env("TIDEGATE_BIN", folder.join("tidegate"))
        .stdin(Stdio::null());
    let status = bench.status().context("the benchmark does not start")?;
    if !status.success() {
        bail!("the benchmark did not run to its end: {status}");
    }
    Ok(())
}
