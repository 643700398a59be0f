//! Downloads kernels from the Debian archive, with apt's tools and separate package lists and state: it needs no root and
//! changes nothing on this machine. Downloaded kernels are cached.

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
use crate::command::{stdout_of, succeeds};

/// The keys that sign Debian's archive.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The files of an unpacked kernel.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The kernel image.
    pub(crate) image: PathBuf,
    /// The directory of its modules.
    pub(crate) modules: PathBuf,
}

/// Returns the cached kernel of a row, or downloads the newest one of its suites.
///
/// # Errors
/// When it is not cached and cannot be downloaded.
pub(crate) fn fetch(kernel: &Kernel, directory: &Path, update: bool) -> Result<Fetched> {
    let cached = directory.join("kernels").join(kernel.package.replace('*', "N"));
    if !update && let Ok(kernel) = find_kernel(&cached) {
        return Ok(kernel);
    }
    let mirrors = Mirrors::detect(&directory.join("apt/own-sources"))?;
    let mut newest: Option<Candidate> = None;
    for suite in &kernel.suites {
        let suite = Suite::open(suite, mirrors.uri(suite)?, directory)?;
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
    let (head, tail) = kernel.package.split_once('*').context("the pattern has no `*`")?;
    let version = newest
        .package
        .strip_prefix(head)
        .and_then(|rest| rest.strip_suffix(tail));
    let version = version.context("the package does not match its pattern")?;
    let mut packages = vec![newest.package.clone()];
    packages.extend(kernel.with.iter().map(|name| name.replace('*', version)));

    // Unpacked beside its place and then renamed: a cached kernel is complete.
    let partial = cached.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let tree = partial.join("tree");
    fs::create_dir_all(&tree).with_context(|| tree.display().to_string())?;
    newest.suite.download(&packages, &partial)?;
    for file in fs::read_dir(&partial)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            run_quiet(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&tree), &name)?;
            fs::remove_file(&file)?;
        }
    }
    find_kernel(&partial)?;
    let _ = fs::remove_dir_all(&cached);
    fs::rename(&partial, &cached).with_context(|| cached.display().to_string())?;
    find_kernel(&cached)
}

/// Runs a command that prints nothing on success; prints `about` first.
fn run_quiet(command: &mut Command, about: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    eprintln!("    {program}: {about}");
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {about}: {}", stderr.trim());
    Ok(())
}

/// Finds the kernel image and the modules in an unpacked package.
fn find_kernel(unpacked: &Path) -> Result<Fetched> {
    for modules in ["tree/usr/lib/modules", "tree/lib/modules"] {
        let Ok(releases) = fs::read_dir(unpacked.join(modules)) else {
            continue;
        };
        for modules in releases {
            let modules = modules?.path();
            let release = modules.file_name().context("directory without a name")?;
            let release = release.to_string_lossy().into_owned();
            let places = [
                modules.join("vmlinuz"),
                unpacked.join("tree/boot").join(format!("vmlinuz-{release}")),
            ];
            if let Some(image) = places.into_iter().find(|image| image.is_file()) {
                return Ok(Fetched { image, modules });
            }
        }
    }
    bail!("no kernel in {}", unpacked.display())
}

/// A suite of the archive, with apt state of its own.
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
    /// Downloads its package lists.
    fn open(name: &str, mirror: &str, directory: &Path) -> Result<Suite> {
        let suite = Suite {
            name: name.to_owned(),
            state: directory.join("apt").join(name),
        };
        for inner in ["lists/partial", "cache/archives/partial"] {
            let path = suite.state.join(inner);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        // Package lists only, without translations and icons.
        let sources =
            format!("deb [signed-by={KEYRING} arch=amd64 target=Packages lang=none] {mirror} {name} main\n");
        fs::write(suite.state.join("sources.list"), sources)?;
        fs::write(suite.state.join("status"), "")?;
        run_quiet(
            suite.apt("apt-get").args(["--quiet=2", "update"]),
            &format!("the package lists of {name}"),
        )?;
        Ok(suite)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        for (option, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State", ""),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            apt.arg("-o");
            apt.arg(format!("{option}={}", self.state.join(path).display()));
        }
        // Another user could not write here.
        for option in ["Dir::Etc::sourceparts=/dev/null", "APT::Sandbox::User="] {
            apt.args(["-o", option]);
        }
        // Hooks of the system's package lists do not apply.
        apt.args(["-o", "APT::Update::Post-Invoke-Success="]);
        apt
    }

    fn candidates(&self, pattern: &str) -> Result<Vec<Candidate>> {
        let available = stdout_of(self.apt("apt-cache").arg("dumpavail"));
        let available = available.with_context(|| format!("apt-cache failed for {}", self.name))?;
        let field = |paragraph: &str, name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
        };
        Ok(available
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
        ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is missing: run `cargo xtask setup`"
        );
        run_quiet(
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
    fn a_kernel_in_boot_is_found() {
        let directory = std::env::temp_dir().join(format!("tidegate-xtask-fetch-{}", std::process::id()));
        assert!(find_kernel(&directory).is_err());
        let modules = directory.join("tree/lib/modules/5.10.0-1");
        fs::create_dir_all(&modules).unwrap();
        assert!(find_kernel(&directory).is_err(), "modules without a kernel");
        fs::create_dir_all(directory.join("tree/boot")).unwrap();
        fs::write(directory.join("tree/boot/vmlinuz-5.10.0-1"), "").unwrap();
        let found = find_kernel(&directory).unwrap();
        assert_eq!(found.modules, modules);
        assert!(found.image.is_file());
        fs::remove_dir_all(&directory).unwrap();
    }
}
