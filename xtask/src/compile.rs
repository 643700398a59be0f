//! `cargo xtask build`: the binary with the embedded kernel programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, run};
use crate::setup::{self, Purpose};

/// A built `tidegate`.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    path: PathBuf,
}

impl Binary {
    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Builds `tidegate`. Installs a missing eBPF toolchain first.
///
/// # Errors
/// When the toolchain is missing and cannot be installed, or the build fails.
pub(crate) fn build(release: bool) -> Result<Binary> {
    setup::ensure(&[Purpose::Build])?;
    let mut build = cargo(["build", "--package", "tidegate"]);
    if release {
        build.arg("--release");
    }
    run(&mut build)?;
    let path = target_directory()?
        .join(if release { "release" } else { "debug" })
        .join("tidegate");
    if !path.is_file() {
        bail!("cargo did not build {}", path.display());
    }
    Ok(Binary { path })
}

/// Cargo's target directory, two levels above this program.
///
/// # Errors
/// When the path of this program is unknown.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the path of this program")?;
    let directory = own.parent().and_then(Path::parent);
    Ok(directory
        .with_context(|| format!("{} is not in a target directory", own.display()))?
        .to_owned())
}
