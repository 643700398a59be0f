//! Builds the integration tests and the init of the virtual machines.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::command::{cargo, command_line, stdout_of};

/// A test program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: String,
    /// Its path.
    pub(crate) path: PathBuf,
    /// Names of the tests in it.
    pub(crate) tests: Vec<String>,
}

/// The built programs.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Test programs.
    pub(crate) programs: Vec<Program>,
    /// Programs that tests run, by the paths that are compiled into the tests.
    pub(crate) others: Vec<PathBuf>,
}

impl Built {
    /// All tests, as `program::test`.
    pub(crate) fn names(&self) -> Vec<String> {
        let of = |program: &Program| {
            let name = program.name.clone();
            let tests = program.tests.clone();
            tests.into_iter().map(move |test| format!("{name}::{test}"))
        };
        self.programs.iter().flat_map(of).collect()
    }
}

/// A line of cargo's messages.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds the integration tests.
///
/// # Errors
/// When they do not build.
pub(crate) fn build() -> Result<Built> {
    let mut build = cargo(["test", "--package", "integration", "--no-run"]);
    build.args(["--message-format", "json-render-diagnostics"]);
    eprintln!("    $ {}", command_line(&build));
    let output = build
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the integration tests do not build");
    let mut built = Built {
        programs: Vec::new(),
        others: Vec::new(),
    };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Message = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let Message {
            reason,
            executable: Some(path),
            target: Some(target),
            profile: Some(profile),
        } = message
        else {
            continue;
        };
        if reason != "compiler-artifact" {
            continue;
        }
        if profile.test {
            let tests = tests(&path)?;
            built.programs.push(Program {
                name: target.name,
                path,
                tests,
            });
        } else {
            built.others.push(path);
        }
    }
    built.programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

fn tests(program: &Path) -> Result<Vec<String>> {
    let listed = stdout_of(Command::new(program).args(["--list", "--format", "terse"]));
    let listed = listed.with_context(|| format!("`{} --list` failed", program.display()))?;
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Copies a program without its debug information, which is most of its size; keeps a copy that is newer than the program.
///
/// # Errors
/// When `strip` fails.
pub(crate) fn stripped(program: &Path, directory: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("program without a name")?;
    let copy = directory.join(name);
    let age = |path: &Path| fs::metadata(path).and_then(|about| about.modified());
    if let (Ok(copied), Ok(source)) = (age(&copy), age(program))
        && copied > source
    {
        return Ok(copy);
    }
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&copy).arg(program);
    let status = strip
        .status()
        .context("cannot run strip (Debian package binutils)")?;
    ensure!(status.success(), "strip failed for {}", program.display());
    Ok(copy)
}

/// Builds init, linked statically, so that it can report missing libraries.
///
/// # Errors
/// When it does not build.
pub(crate) fn init(target_directory: &Path) -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let mut build = cargo(["build", "--package", "vm-init", "--target", TARGET]);
    build.env(
        "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        "-C target-feature=+crt-static",
    );
    crate::command::run(&mut build)?;
    let path = target_directory.join(TARGET).join("debug/vm-init");
    ensure!(path.is_file(), "cargo did not build {}", path.display());
    Ok(path)
}
