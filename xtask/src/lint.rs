//! The steps of `cargo xtask lint`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command_line, run};
use crate::setup::{self, Purpose};
use crate::step::{Outcome, Step};

/// All of them.
pub(crate) const STEPS: [Step; 5] = [
    Step {
        name: "fmt",
        about: "formatting",
        run: fmt,
    },
    Step {
        name: "clippy",
        about: "lints of user space",
        run: clippy,
    },
    Step {
        name: "kernel",
        about: "warnings of the kernel programs",
        run: kernel,
    },
    Step {
        name: "deny",
        about: "dependencies: bans, licences, sources",
        run: deny,
    },
    Step {
        name: "advisories",
        about: "dependencies: security advisories",
        run: advisories,
    },
];

fn fmt() -> Result<Outcome> {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    run(&mut cargo([
        "fmt",
        "--all",
        "--check",
        "--manifest-path",
        "fuzz/Cargo.toml",
    ]))?;
    Ok(Outcome::Passed)
}

/// engine-ebpf is an empty program on the host; the next step compiles it for its target.
fn clippy() -> Result<Outcome> {
    setup::ensure(&[Purpose::Build, Purpose::Lint])?;
    run(&mut cargo([
        "clippy",
        "--workspace",
        "--exclude",
        "engine-ebpf",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))?;
    Ok(Outcome::Passed)
}

/// The build script prints the compiler's warnings, and cargo repeats them in each build.
fn kernel() -> Result<Outcome> {
    setup::ensure(&[Purpose::Build])?;
    let mut check = cargo(["check", "--package", "tidegate"]);
    println!("    $ {}", command_line(&check));
    let output = check
        .stdout(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    eprint!("{stderr}");
    if !output.status.success() {
        bail!("`{}` failed: {}", command_line(&check), output.status);
    }
    if stderr.lines().any(|line| line.starts_with("warning: tidegate@")) {
        bail!("the kernel programs build with warnings: see above");
    }
    Ok(Outcome::Passed)
}

/// The manifests of both workspaces.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

fn deny() -> Result<Outcome> {
    setup::ensure(&[Purpose::Lint])?;
    for manifest in MANIFESTS {
        run(deny_on(manifest).args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    }
    Ok(Outcome::Passed)
}

/// Skipped when the advisory database cannot be downloaded: that is not an error of this repository.
fn advisories() -> Result<Outcome> {
    setup::ensure(&[Purpose::Lint])?;
    let mut fetch = deny_on(MANIFESTS[0]);
    fetch.args(["fetch", "db"]);
    println!("    $ {}", command_line(&fetch));
    let output = fetch.output().context("cannot run cargo")?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Ok(Outcome::skipped(
            "advisories: cannot download the advisory database",
        ));
    }
    for manifest in MANIFESTS {
        run(deny_on(manifest).args(["check", "--disable-fetch", "advisories"]))?;
    }
    Ok(Outcome::Passed)
}

fn deny_on(manifest: &str) -> Command {
    cargo(["deny", "--manifest-path", manifest, "--config", "deny.toml"])
}
