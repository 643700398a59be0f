//! `cargo xtask fuzz`: libFuzzer with the stable compiler.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::command::{cargo, run, workspace};
use crate::setup::{self, Purpose};
use crate::step::Outcome;
use crate::test::host_target;

/// A fuzz target; each is a program in fuzz/fuzz_targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The text of a policy file.
    Policy,
    /// The bytes of an event.
    Event,
}

impl Target {
    const fn as_str(self) -> &'static str {
        match self {
            Target::Policy => "policy",
            Target::Event => "event",
        }
    }

    /// Directories with the initial corpus, relative to the workspace.
    const fn seeds(self) -> &'static [&'static str] {
        match self {
            Target::Policy => &["policies", "engine/core/tests/corpus"],
            Target::Event => &["fuzz/seeds/event"],
        }
    }
}

/// Flags for coverage instrumentation. The pass is part of LLVM, so the stable compiler has it. `link-dead-code`
/// stops the linker from dropping counter sections that other sections refer to.
const INSTRUMENTATION: [&str; 11] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Cdebuginfo=1",
    "-Clink-dead-code",
];

/// Seconds for each target in `cargo xtask test`.
const BRIEF: u32 = 10;

/// The step of `cargo xtask test`: each target for [`BRIEF`] seconds.
///
/// # Errors
/// As [`fuzz`].
pub(crate) fn step() -> Result<Outcome> {
    fuzz(Target::value_variants(), BRIEF)?;
    Ok(Outcome::Passed)
}

/// Runs the targets one after the other, `seconds` each. The corpus in fuzz/corpus starts with files of the
/// repository.
///
/// # Errors
/// When they do not build, or one finds an input that crashes it; the input is written to fuzz/artifacts.
pub(crate) fn fuzz(targets: &[Target], seconds: u32) -> Result<()> {
    setup::ensure(&[Purpose::Build, Purpose::Fuzz])?;
    let directory = workspace().join("fuzz");
    let host = host_target()?;
    // With --target the flags apply only to the fuzzed code, not to build scripts and macros.
    let mut build = cargo([
        "build",
        "--release",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target",
        &host,
    ]);
    build.arg("--target-dir").arg(directory.join("target"));
    build
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\x1f"));
    run(&mut build)?;
    for target in targets {
        fuzz_one(
            *target,
            &directory,
            &directory.join("target").join(&host).join("release"),
            seconds,
        )?;
    }
    Ok(())
}

fn fuzz_one(target: Target, directory: &Path, programs: &Path, seconds: u32) -> Result<()> {
    let name = target.as_str();
    let corpus = create(directory.join("corpus").join(name))?;
    let artifacts = create(directory.join("artifacts").join(name))?;
    let seeded = seed(target, &corpus)?;
    println!("    {name}: {seeded} seeds");

    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(artifacts.join(""));
    let mut program = std::process::Command::new(programs.join(name));
    program.current_dir(directory).arg(prefix).arg(&corpus).args([
        format!("-max_total_time={seconds}").as_str(),
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=65536",
        "-print_final_stats=1",
        // Print progress only in long runs.
        if seconds > BRIEF {
            "-verbosity=1"
        } else {
            "-verbosity=0"
        },
    ]);
    run(&mut program).with_context(|| format!("fuzzing {name}: see the input in fuzz/artifacts/{name}"))
}

/// Copies the seed files of the target to the corpus. Their names are their paths, so a second run overwrites
/// them.
fn seed(target: Target, corpus: &Path) -> Result<usize> {
    let mut files = Vec::new();
    for directory in target.seeds() {
        collect(&workspace().join(directory), &mut files)?;
    }
    if files.is_empty() {
        bail!("no seed files in {}", target.seeds().join(" or "));
    }
    for file in &files {
        let name = file
            .strip_prefix(workspace())
            .unwrap_or(file)
            .to_string_lossy()
            .replace('/', "-");
        fs::copy(file, corpus.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(files.len())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read {}", directory.display()))?
            .path();
        let seed = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "bin");
        if path.is_dir() {
            collect(&path, files)?;
        } else if seed {
            files.push(path);
        }
    }
    Ok(())
}

fn create(directory: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}
