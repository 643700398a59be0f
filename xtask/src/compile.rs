//! `cargo xtask build`: the binary, kernel programs inside.

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
    /// Where it is, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Builds `tidegate`, after seeing to it that the eBPF toolchain is there.
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
    let path = target_folder()?
        .join(if release { "release" } else { "debug" })
        .join("tidegate");
    if !path.is_file() {
        bail!("cargo built no {}", path.display());
    }
    Ok(Binary { path })
}

/// Cargo's target folder: this program lies in its subfolder for a profile.
///
/// # Errors
/// When this program does not lie where cargo puts programs.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program cannot find itself")?;
    let folder = own.parent().and_then(Path::parent);
    Ok(folder
        .with_context(|| format!("{} lies in no target folder", own.display()))?
        .to_owned())
}
