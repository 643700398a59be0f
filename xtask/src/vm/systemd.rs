//! Debian's systemd and D-Bus as PID 1 and system bus of a virtual machine: the packages, unpacked without their scripts, and
//! the configuration in vm-tests/systemd, with which systemd starts nothing but the bus and the tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    mirrors::Mirrors,
    suite::{Suite, unpack},
    tree::{Entry, Tree},
};
use crate::command::{stdout_of, workspace};

const PACKAGES: [&str; 2] = ["systemd", "dbus"];

/// The directories that the machine needs.
const DIRECTORIES: [&str; 4] = ["usr/bin", "usr/lib", "usr/lib64", "usr/share/dbus-1"];

/// Parts of them that it does not need. Without the links in `*.wants` systemd starts only what
/// vm-tests/systemd lists.
const WITHOUT: [&str; 3] = ["gconv", "*.wants", "*-generators"];

/// The loader of programs, which prints the version of the C library.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// The kernel's parameters that start it. With another TERM it would send control sequences to the console.
pub(crate) const COMMAND_LINE: &str = "rdinit=/usr/lib/systemd/systemd TERM=dumb";

/// The unpacked packages.
#[derive(Clone, Debug)]
pub(crate) struct Systemd {
    root: PathBuf,
}

impl Systemd {
    /// Returns the cached packages of a suite, or downloads them.
    ///
    /// # Errors
    /// When they are not cached and cannot be downloaded, or programs of this machine cannot run with their C library.
    pub(crate) fn fetch(suite: &str, directory: &Path, update: bool) -> Result<Systemd> {
        let cached = directory.join("systemd").join(suite);
        if update || !cached.is_dir() {
            // Unpacked beside its place and then renamed: a cached tree is complete.
            let partial = cached.with_extension("partial");
            let _ = fs::remove_dir_all(&partial);
            let (packages, tree) = (partial.join("packages"), partial.join("tree"));
            fs::create_dir_all(&tree).with_context(|| tree.display().to_string())?;
            let mirrors = Mirrors::detect(directory)?;
            let suite = Suite::open(suite, mirrors.uri(suite)?, directory)?;
            suite.download_with_dependencies(&PACKAGES, &packages)?;
            unpack(&packages, &tree)?;
            let _ = fs::remove_dir_all(&cached);
            fs::rename(&tree, &cached).with_context(|| cached.display().to_string())?;
            fs::remove_dir_all(&partial)?;
        }
        let (own, theirs) = (
            c_library(&Path::new("/").join(LOADER))?,
            c_library(&cached.join("usr").join(LOADER))?,
        );
        ensure!(
            theirs >= own,
            "{suite} has glibc {}.{}, and programs of this machine need its own, {}.{}",
            theirs.0,
            theirs.1,
            own.0,
            own.1
        );
        Ok(Systemd { root: cached })
    }

    /// Adds systemd, the bus, and their configuration. Files of the same name are replaced: programs of this machine run
    /// with the libraries of the suite.
    ///
    /// # Errors
    /// When a file is missing.
    pub(crate) fn add_to(&self, tree: &mut Tree) -> Result<()> {
        for directory in DIRECTORIES {
            tree.directory(&self.root, Path::new(directory), &WITHOUT)?;
        }
        // Clients look for the bus there.
        tree.put(Path::new("/var/run"), Entry::Link("/run".into()));
        let configuration = workspace().join("vm-tests/systemd");
        tree.directory(&configuration, Path::new("etc"), &[])
    }
}

/// The version of the C library that a loader belongs to.
fn c_library(loader: &Path) -> Result<(u32, u32)> {
    // `ld.so (Debian GLIBC 2.41-12) stable release version 2.41.`
    let output = stdout_of(Command::new(loader).arg("--version"));
    let output = output.with_context(|| format!("cannot run {}", loader.display()))?;
    version(&output).with_context(|| format!("{} does not print its version", loader.display()))
}

fn version(output: &str) -> Option<(u32, u32)> {
    let first = output.lines().next()?;
    let (major, minor) = first.rsplit(' ').next()?.trim_end_matches('.').split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_c_library_are_numbers() {
        let output =
            "ld.so (Debian GLIBC 2.41-12+deb13u5) stable release version 2.41.\nCopyright (C) 2025\n";
        assert_eq!(version(output), Some((2, 41)));
        assert_eq!(version("ld.so"), None);
        assert!(c_library(&Path::new("/").join(LOADER)).unwrap() > (2, 9));
    }
}
