//! A suite of the Debian archive, read with apt's tools and separate package lists and state: it needs no root and changes
//! nothing on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::matrix;
use crate::command::{stdout_of, succeeds};

/// The keys that sign Debian's archive.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of the archive, with apt state of its own.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    name: String,
    state: PathBuf,
}

/// A version of a package.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Its name.
    pub(crate) package: String,
    version: String,
    /// The suite that has it.
    pub(crate) suite: Suite,
}

impl Candidate {
    /// Whether its version is newer.
    pub(crate) fn is_newer_than(&self, other: &Candidate) -> bool {
        succeeds(Command::new("dpkg").args(["--compare-versions", &self.version, "gt", &other.version]))
    }
}

impl Suite {
    /// Downloads its package lists.
    ///
    /// # Errors
    /// When they cannot be downloaded.
    pub(crate) fn open(name: &str, mirror: &str, directory: &Path) -> Result<Suite> {
        ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is missing: run `cargo xtask setup`"
        );
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

    /// The packages whose names match a pattern; `*` matches any text.
    ///
    /// # Errors
    /// When apt cannot read its lists.
    pub(crate) fn candidates(&self, pattern: &str) -> Result<Vec<Candidate>> {
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

    /// Downloads packages.
    ///
    /// # Errors
    /// When they cannot be downloaded.
    pub(crate) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        run_quiet(
            self.apt("apt-get")
                .args(["--quiet=2", "download"])
                .args(packages)
                .current_dir(into),
            &format!("{} of {}", packages.join(", "), self.name),
        )
    }

    /// Downloads packages with everything that they depend on, as if nothing were installed.
    ///
    /// # Errors
    /// When they cannot be downloaded.
    pub(crate) fn download_with_dependencies(&self, packages: &[&str], into: &Path) -> Result<()> {
        let archives = into.join("partial");
        fs::create_dir_all(&archives).with_context(|| archives.display().to_string())?;
        run_quiet(
            self.apt("apt-get")
                .arg("-o")
                .arg(format!("Dir::Cache::archives={}", into.display()))
                .args(["--quiet=2", "--yes", "--no-install-recommends", "--download-only"])
                .arg("install")
                .args(packages),
            &format!("{} of {} with dependencies", packages.join(", "), self.name),
        )
    }
}

/// Unpacks the packages in a directory into a tree and removes them. Their scripts are not run.
///
/// # Errors
/// When a package cannot be unpacked.
pub(crate) fn unpack(packages: &Path, tree: &Path) -> Result<()> {
    let mut files = Vec::new();
    for file in fs::read_dir(packages)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            files.push(file);
        }
    }
    eprintln!("    dpkg-deb: {} packages", files.len());
    for file in files {
        let unpacked = Command::new("dpkg-deb").arg("-x").arg(&file).arg(tree).output();
        let unpacked = unpacked.context("cannot run dpkg-deb")?;
        let stderr = String::from_utf8_lossy(&unpacked.stderr);
        ensure!(
            unpacked.status.success(),
            "dpkg-deb: {}: {}",
            file.display(),
            stderr.trim()
        );
        fs::remove_file(&file)?;
    }
    Ok(())
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
