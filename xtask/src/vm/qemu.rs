//! The emulator: the machine's own, or Debian's packages of it unpacked beside the kernels. That needs no
//! root, and does not disturb a machine whose own packages leave no room for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command::{on_path, run};
use crate::compile::target_folder;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Where the emulator is, if it is anywhere.
pub(crate) fn found() -> Option<PathBuf> {
    on_path(PROGRAM).or_else(|| {
        let unpacked = folder().ok()?.join("usr/bin").join(PROGRAM);
        unpacked.is_file().then_some(unpacked)
    })
}

/// The emulator, to be given its arguments.
///
/// # Errors
/// When there is none.
pub(crate) fn command() -> Result<Command> {
    let program = found().with_context(|| format!("{PROGRAM} is not there: run `cargo xtask setup`"))?;
    let folder = folder()?;
    let mut qemu = Command::new(&program);
    if program.starts_with(&folder) {
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|place| folder.join(place));
        qemu.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(folder.join(firmware));
        }
    }
    Ok(qemu)
}

/// Downloads the packages that apt would install, and unpacks them.
///
/// # Errors
/// When apt does not know them or they cannot be fetched.
pub(crate) fn unpack() -> Result<()> {
    let folder = folder()?;
    let simulated = Command::new("apt-get")
        .args(["--simulate", "install", "--no-install-recommends", PACKAGE])
        .output()
        .context("apt-get does not start")?;
    let plan = String::from_utf8_lossy(&simulated.stdout);
    let names = new_packages(&plan);
    if names.is_empty() {
        bail!("apt-get has no plan for {PACKAGE}");
    }
    let debs = folder.with_extension("debs");
    fs::create_dir_all(&debs).with_context(|| debs.display().to_string())?;
    run(Command::new("apt-get")
        .args(["--quiet", "download"])
        .args(names)
        .current_dir(&debs))?;
    // Unpacked aside and moved there whole: what is there is complete.
    let draft = folder.with_extension("draft");
    if draft.is_dir() {
        fs::remove_dir_all(&draft)?;
    }
    for deb in fs::read_dir(&debs)? {
        let deb = deb?.path();
        let unpacked = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&draft).status();
        if !unpacked.context("dpkg-deb does not start")?.success() {
            bail!("{} cannot be unpacked", deb.display());
        }
    }
    fs::rename(&draft, &folder).with_context(|| folder.display().to_string())?;
    fs::remove_dir_all(&debs)?;
    Ok(())
}

/// The packages that a simulated installation would bring.
fn new_packages(plan: &str) -> Vec<&str> {
    let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|line| line.split(' ').next()).collect()
}

fn folder() -> Result<PathBuf> {
    Ok(target_folder()?.join(Path::new("vm/qemu")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_packages() {
        let plan = "Reading package lists...\nRemv qemu-utils [1]\nInst libpmem1 (1.12 Debian:12 [amd64])\n\
                    Inst qemu-system-x86 (1:7.2 Debian:12 [amd64])\nConf libpmem1 (1.12 Debian:12 [amd64])\n";
        assert_eq!(new_packages(plan), ["libpmem1", "qemu-system-x86"]);
    }
}
