//! `cargo xtask vm`: the integration tests on the kernels of `vm-tests/kernels.toml`, each in a virtual
//! machine of its own.
//!
//! ```text
//! kernels.toml -> fetch (Debian's kernels) -> image (tests, clients, init) -> boot -> console -> verdict
//! ```

mod boot;
mod clients;
mod console;
pub(crate) mod demonstration;
mod egress_paths;
pub(crate) mod fetch;
mod image;
mod matrix;
mod mirrors;
mod modules;
mod pool;
mod programs;
mod progress;
pub(crate) mod qemu;
mod report;
mod stage;
mod tree;
mod verdict;

use std::{collections::BTreeSet, fmt::Write as _, num::NonZero, thread};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::{matrix::Matrix, progress::Progress, stage::Stage, verdict::Row};
use crate::compile;
use crate::setup::{self, Purpose};
use crate::step::Outcome;
use crate::verifier::Record;

/// What `cargo xtask vm` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Run this kernel only; may be repeated
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Run these tests only (program::test, `*` for anything); may be repeated
    #[arg(long, value_name = "GLOB")]
    test: Vec<String>,
    /// Run the slow tests too; without this only those asked for by --test
    #[arg(long)]
    all: bool,
    /// List the kernels
    #[arg(long)]
    list: bool,
    /// Download the kernels and stop
    #[arg(long, conflicts_with_all = ["test", "all", "keep", "selftest", "record_verifier", "output"])]
    fetch: bool,
    /// Keep console logs and file systems of kernels that hold, too
    #[arg(long)]
    keep: bool,
    /// Look for newer kernels than those that were fetched before
    #[arg(long)]
    update: bool,
    /// Run only `tidegate selftest`, and write docs/egress-paths.md of what became of each way
    #[arg(long, conflicts_with_all = ["test", "all"])]
    selftest: bool,
    /// Count what the verifier does for each program instead, and write docs/verifier.md and .json
    #[arg(long, conflicts_with_all = ["test", "all"])]
    record_verifier: bool,
    /// Run so many machines at a time [default: three for each processor of this machine, as memory allows]
    #[arg(long, value_name = "N")]
    machines: Option<NonZero<usize>>,
    /// Give each machine so many processors; two machines of one are faster than one of two
    #[arg(long, value_name = "N", default_value = "1")]
    processors: NonZero<u8>,
    /// How the result is shown
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Default for Options {
    /// What `cargo xtask vm` without any options takes.
    fn default() -> Options {
        Options {
            kernel: Vec::new(),
            test: Vec::new(),
            all: false,
            list: false,
            fetch: false,
            keep: false,
            update: false,
            selftest: false,
            record_verifier: false,
            machines: None,
            processors: NonZero::<u8>::MIN,
            output: Output::Text,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs: everything, test by test
    Json,
}

/// Runs what was asked for.
///
/// # Errors
/// When something that must hold on a kernel does not.
pub(crate) fn run(options: &Options) -> Result<()> {
    let matrix = Matrix::read()?;
    if options.list {
        for kernel in &matrix.kernels {
            println!("{:<16} {}", kernel.name, kernel.about);
        }
        return Ok(());
    }
    if options.fetch {
        return download(options, &matrix);
    }
    if options.selftest {
        return egress_paths::write(options, &matrix);
    }
    let rows = rows(options, &matrix)?;
    if options.record_verifier {
        settled(&rows)?;
        return record(&rows);
    }
    match options.output {
        Output::Text => print!("\n{}", report::table(&rows)),
        Output::Json => println!("{}", serde_json::to_string(&rows)?),
    }
    settled(&rows)
}

/// Downloads the kernels that are not cached, and prints where each one is.
fn download(options: &Options, matrix: &Matrix) -> Result<()> {
    let directory = compile::target_folder()?.join("vm");
    for kernel in matrix.chosen(&options.kernel)? {
        let fetched = fetch::fetch(kernel, &directory, options.update)?;
        println!("{:<16} {}", kernel.name, fetched.image.display());
    }
    Ok(())
}

/// Writes down what the verifier did; rows of kernels that were not run stay.
fn record(rows: &[Row]) -> Result<()> {
    let mut record = Record::read()?;
    let mut taken = BTreeSet::new();
    for row in rows {
        let release = row.release.as_deref().unwrap_or(&row.kernel);
        record.take(release, row.said.iter().map(String::as_str), &mut taken)?;
    }
    record.write()
}

/// The kernels as README.md tells of them: a table.
///
/// # Errors
/// When kernels.toml cannot be read.
pub(crate) fn kernels_in_words() -> Result<String> {
    let mut text = "| Linux | what it is | what is different there |\n|---|---|---|\n".to_owned();
    for kernel in Matrix::read()?.kernels {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            kernel.name, kernel.about, kernel.differs
        );
    }
    Ok(text)
}

/// The step of `cargo xtask test`: all kernels. One that cannot be fetched is left out, loudly: a network's
/// fault is not the tree's.
///
/// # Errors
/// As [`run`].
pub(crate) fn step() -> Result<Outcome> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Outcome::left_out("the kernels of the matrix are for x86_64"));
    }
    if let Err(error) = setup::ensure(&[Purpose::Vm]) {
        return Ok(Outcome::left_out(format!("the kernel matrix: {error:#}")));
    }
    let rows = rows(&Options::default(), &Matrix::read()?)?;
    print!("\n{}", report::table(&rows));
    let (rows, absent): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.fetched);
    settled(&rows)?;
    if absent.is_empty() {
        return Ok(Outcome::Passed);
    }
    let reason = |row: &Row| format!("kernel {}: {}", row.kernel, row.troubles.join("; "));
    Ok(Outcome::LeftOut(absent.iter().map(reason).collect()))
}

fn settled(rows: &[Row]) -> Result<()> {
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| !row.holds())
        .map(|row| row.kernel.as_str())
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not all holds that must, on {}", failed.join(", "));
}

/// Three for each processor, since much of its time a machine waits for grace periods of its kernel; fewer where there is
/// no memory for them.
fn machines_at_a_time() -> usize {
    /// What one comes to take, KiB: half as much again as was seen.
    const EACH: usize = 1792 * 1024;
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    let room = available.map_or(usize::MAX, |available| available / EACH);
    (3 * processors).min(room).max(1)
}

fn rows(options: &Options, matrix: &Matrix) -> Result<Vec<Row>> {
    let kernels = matrix.chosen(&options.kernel)?;
    setup::ensure(&[Purpose::Build, Purpose::Demo, Purpose::Vm])?;
    let stage = Stage::set(options, matrix)?;
    // All of them first: what apt says would stand in the midst of the progress.
    let fetched = kernels.iter().map(|kernel| stage.fetch(kernel)).collect();
    let at_a_time = options.machines.map_or_else(machines_at_a_time, NonZero::get);
    let mut progress = Progress::of(kernels.len(), options.output == Output::Json);
    Ok(pool::run(&stage, &kernels, fetched, at_a_time, &mut progress))
}
