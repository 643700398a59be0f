//! The steps of `cargo xtask lint`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, run, shown};
use crate::setup::{self, Purpose};
use crate::step::{Outcome, Step};

/// All of them.
pub(crate) const STEPS: [Step; 5] = [
    Step {
        name: "fmt",
        about: "every file is formatted",
        run: fmt,
    },
    Step {
        name: "clippy",
        about: "no warnings in user space",
        run: clippy,
    },
    Step {
        name: "kernel",
        about: "the kernel programs build without warnings",
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

/// engine-ebpf is an empty program on the host: the next step compiles it for its own target.
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

/// The build script of `tidegate` passes the compiler's warnings on, and cargo repeats them at each build.
fn kernel() -> Result<Outcome> {
    setup::ensure(&[Purpose::Build])?;
    let mut check = cargo(["check", "--package", "tidegate"]);
    println!("    $ {}", shown(&check));
    let output = check
        .stdout(Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    eprint!("{said}");
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(&check), output.status);
    }
    if said.lines().any(|line| line.starts_with("warning: tidegate@")) {
        bail!("the kernel programs build with warnings: see above");
    }
    Ok(Outcome::Passed)
}

/// Both workspaces.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

fn deny() -> Result<Outcome> {
    setup::ensure(&[Purpose::Lint])?;
    for manifest in MANIFESTS {
        run(deny_on(manifest).args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    }
    Ok(Outcome::Passed)
}

/// Left out, loudly, where the database cannot be fetched: a network's fault is not the tree's.
fn advisories() -> Result<Outcome> {
    setup::ensure(&[Purpose::Lint])?;
    let mut fetch = deny_on(MANIFESTS[0]);
    fetch.args(["fetch", "db"]);
    println!("    $ {}", shown(&fetch));
    let output = fetch.output().context("cargo does not start")?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Ok(Outcome::left_out(
            "advisories: the advisory database cannot be reached",
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
