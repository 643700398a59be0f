//! Kernels from Debian's archive, with apt's own tools but lists and state of our own: needs no root,
//! installs nothing, changes nothing of this machine. What was fetched is kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    matrix::{self, Kernel},
    mirrors::Mirrors,
};
use crate::command::{answer, succeeds};

/// The keys that sign Debian's archive.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that lies unpacked on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// What is booted.
    pub(crate) image: PathBuf,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
}

/// The kernel of a row: the one that is there, or the newest of its suites.
///
/// # Errors
/// When it is not there and cannot be fetched.
pub(crate) fn fetch(kernel: &Kernel, folder: &Path, update: bool) -> Result<Fetched> {
    let place = folder.join("kernels").join(kernel.package.replace('*', "N"));
    if !update && let Ok(there) = unpacked(&place) {
        return Ok(there);
    }
    let mirrors = Mirrors::detect(&folder.join("apt/own-sources"))?;
    let mut newest: Option<Candidate> = None;
    for suite in &kernel.suites {
        let suite = Suite::open(suite, mirrors.uri(suite)?, folder)?;
        for candidate in suite.candidates(&kernel.package)? {
            if newest
                .as_ref()
                .is_none_or(|newest| candidate.is_newer_than(newest))
            {
                newest = Some(candidate);
            }
        }
    }
    let Some(newest) = newest else {
        bail!("no package {} in {}", kernel.package, kernel.suites.join(", "));
    };
    let (head, tail) = kernel.package.split_once('*').context("a pattern without `*`")?;
    let version = newest
        .package
        .strip_prefix(head)
        .and_then(|rest| rest.strip_suffix(tail));
    let version = version.context("a package that is not of its pattern")?;
    let mut packages = vec![newest.package.clone()];
    packages.extend(kernel.with.iter().map(|name| name.replace('*', version)));

    // Made whole beside its place and moved there, so that what is there is whole.
    let making = place.with_extension("partial");
    let _ = fs::remove_dir_all(&making);
    let tree = making.join("tree");
    fs::create_dir_all(&tree).with_context(|| tree.display().to_string())?;
    newest.suite.download(&packages, &making)?;
    for file in fs::read_dir(&making)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            done(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&tree), &name)?;
            fs::remove_file(&file)?;
        }
    }
    unpacked(&making)?;
    let _ = fs::remove_dir_all(&place);
    fs::rename(&making, &place).with_context(|| place.display().to_string())?;
    unpacked(&place)
}

/// Runs a command that says nothing when all is well; what it is about is said before.
fn done(command: &mut Command, about: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    eprintln!("    {program}: {about}");
    let output = command
        .output()
        .with_context(|| format!("{program} does not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {about}: {}", said.trim());
    Ok(())
}

/// Finds the kernel and its modules, wherever its packages put them.
fn unpacked(place: &Path) -> Result<Fetched> {
    for modules in ["tree/usr/lib/modules", "tree/lib/modules"] {
        let Ok(releases) = fs::read_dir(place.join(modules)) else {
            continue;
        };
        for modules in releases {
            let modules = modules?.path();
            let release = modules.file_name().context("a folder without a name")?;
            let release = release.to_string_lossy().into_owned();
            let places = [
                modules.join("vmlinuz"),
                place.join("tree/boot").join(format!("vmlinuz-{release}")),
            ];
            if let Some(image) = places.into_iter().find(|image| image.is_file()) {
                return Ok(Fetched { image, modules });
            }
        }
    }
    bail!("no kernel in {}", place.display())
}

/// A suite of the archive, as apt sees it when it has no other.
#[derive(Clone, Debug)]
struct Suite {
    name: String,
    state: PathBuf,
}

#[derive(Clone, Debug)]
struct Candidate {
    package: String,
    version: String,
    suite: Suite,
}

impl Candidate {
    fn is_newer_than(&self, other: &Candidate) -> bool {
        succeeds(Command::new("dpkg").args(["--compare-versions", &self.version, "gt", &other.version]))
    }
}

impl Suite {
    /// Fetches its lists.
    fn open(name: &str, mirror: &str, folder: &Path) -> Result<Suite> {
        let suite = Suite {
            name: name.to_owned(),
            state: folder.join("apt").join(name),
        };
        for inner in ["lists/partial", "cache/archives/partial"] {
            let path = suite.state.join(inner);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        // Lists of packages only: no translations, no pictures.
        let sources =
            format!("deb [signed-by={KEYRING} arch=amd64 target=Packages lang=none] {mirror} {name} main\n");
        fs::write(suite.state.join("sources.list"), sources)?;
        fs::write(suite.state.join("status"), "")?;
        done(
            suite.apt("apt-get").args(["--quiet=2", "update"]),
            &format!("the package lists of {name}"),
        )?;
        Ok(suite)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        for (option, place) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State", ""),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            apt.arg("-o");
            apt.arg(format!("{option}={}", self.state.join(place).display()));
        }
        // As whoever we are: another user could not write here.
        for option in ["Dir::Etc::sourceparts=/dev/null", "APT::Sandbox::User="] {
            apt.args(["-o", option]);
        }
        // Nobody is to be told of lists that are nobody else's.
        apt.args(["-o", "APT::Update::Post-Invoke-Success="]);
        apt
    }

    fn candidates(&self, pattern: &str) -> Result<Vec<Candidate>> {
        let known = answer(self.apt("apt-cache").arg("dumpavail"));
        let known = known.with_context(|| format!("apt-cache says nothing of {}", self.name))?;
        let field = |paragraph: &str, name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
        };
        Ok(known
            .split("\n\n")
            .filter_map(|paragraph| {
                let package = field(paragraph, "Package:").filter(|name| matrix::matches(pattern, name))?;
                Some(Candidate {
                    package,
                    version: field(paragraph, "Version:")?,
                    suite: self.clone(),
                })
            })
            .collect())
    }

    fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        ensure!(Path::new(KEYRING).is_file(), "{KEYRING} is not there");
        done(
            self.apt("apt-get")
                .args(["--quiet=2", "download"])
                .args(packages)
                .current_dir(into),
            &format!("{} of {}", packages.join(", "), self.name),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_found_where_its_packages_put_it() {
        let place = std::env::temp_dir().join(format!("tidegate-xtask-fetch-{}", std::process::id()));
        assert!(unpacked(&place).is_err());
        let modules = place.join("tree/lib/modules/5.10.0-1");
        fs::create_dir_all(&modules).unwrap();
        assert!(unpacked(&place).is_err(), "modules without a kernel");
        fs::create_dir_all(place.join("tree/boot")).unwrap();
        fs::write(place.join("tree/boot/vmlinuz-5.10.0-1"), "").unwrap();
        let found = unpacked(&place).unwrap();
        assert_eq!(found.modules, modules);
        assert!(found.image.is_file());
        fs::remove_dir_all(&place).unwrap();
    }
}
