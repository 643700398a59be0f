//! The emulator: the installed one, or Debian's packages unpacked in the target directory. Unpacking needs no root and does not
//! conflict with installed packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command::{find_on_path, run};
use crate::compile::target_directory;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The path of the emulator, if it is available.
pub(crate) fn found() -> Option<PathBuf> {
    find_on_path(PROGRAM).or_else(|| {
        let unpacked = directory().ok()?.join("usr/bin").join(PROGRAM);
        unpacked.is_file().then_some(unpacked)
    })
}

/// A command that runs the emulator, without arguments.
///
/// # Errors
/// When it is not available.
pub(crate) fn command() -> Result<Command> {
    let program = found().with_context(|| format!("{PROGRAM} is missing: run `cargo xtask setup`"))?;
    let directory = directory()?;
    let mut qemu = Command::new(&program);
    if program.starts_with(&directory) {
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|path| directory.join(path));
        qemu.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(directory.join(firmware));
        }
    }
    Ok(qemu)
}

/// Downloads the packages that apt would install, and unpacks them.
///
/// # Errors
/// When apt does not have them or they cannot be downloaded.
pub(crate) fn unpack() -> Result<()> {
    let directory = directory()?;
    let simulated = Command::new("apt-get")
        .args(["--simulate", "install", "--no-install-recommends", PACKAGE])
        .output()
        .context("cannot run apt-get")?;
    let plan = String::from_utf8_lossy(&simulated.stdout);
    let names = new_packages(&plan);
    if names.is_empty() {
        bail!("apt-get cannot install {PACKAGE}");
    }
    let debs = directory.with_extension("debs");
    fs::create_dir_all(&debs).with_context(|| debs.display().to_string())?;
    run(Command::new("apt-get")
        .args(["--quiet", "download"])
        .args(names)
        .current_dir(&debs))?;
    // Unpacked beside its place and then renamed: an existing directory is complete.
    let draft = directory.with_extension("draft");
    if draft.is_dir() {
        fs::remove_dir_all(&draft)?;
    }
    for deb in fs::read_dir(&debs)? {
        let deb = deb?.path();
        let unpacked = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&draft).status();
        if !unpacked.context("cannot run dpkg-deb")?.success() {
            bail!("cannot unpack {}", deb.display());
        }
    }
    fs::rename(&draft, &directory).with_context(|| directory.display().to_string())?;
    fs::remove_dir_all(&debs)?;
    Ok(())
}

/// The packages that a simulated installation lists.
fn new_packages(plan: &str) -> Vec<&str> {
    let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|line| line.split(' ').next()).collect()
}

fn directory() -> Result<PathBuf> {
    Ok(target_directory()?.join(Path::new("vm/qemu")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_packages_are_read_from_the_simulation() {
        let plan = "Reading package lists...\nRemv qemu-utils [1]\nInst libpmem1 (1.12 Debian:12 [amd64])\n\
                    Inst qemu-system-x86 (1:7.2 Debian:12 [amd64])\nConf libpmem1 (1.12 Debian:12 [amd64])\n";
        assert_eq!(new_packages(plan), ["libpmem1", "qemu-system-x86"]);
    }
}
