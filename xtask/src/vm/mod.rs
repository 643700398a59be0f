//! `cargo xtask vm`: runs the integration tests on the kernels of `vm-tests/kernels.toml`, each in a virtual machine.
//!
//! ```text
//! kernels.toml -> fetch (Debian's kernels) -> image (tests, clients, init) -> boot -> console -> verdict
//! ```

mod boot;
mod clients;
mod console;
pub(crate) mod demonstration;
mod egress_paths;
mod fetch;
mod image;
mod matrix;
mod mirrors;
mod modules;
mod pool;
mod programs;
mod progress;
pub(crate) mod qemu;
mod report;
pub(crate) mod suite;
mod systemd;
mod test_run;
mod tree;
mod verdict;

use std::{collections::BTreeSet, fmt::Write as _, num::NonZero, thread};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use self::{matrix::Matrix, progress::Progress, test_run::TestRun, verdict::Row};
use crate::compile;
use crate::setup::{self, Purpose};
use crate::step::Outcome;
use crate::verifier::Record;

/// Options of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only this kernel; repeatable
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Run only these tests (program::test, `*` matches any text); repeatable
    #[arg(long, value_name = "GLOB")]
    test: Vec<String>,
    /// Also run the slow tests, which otherwise run only when --test selects them
    #[arg(long)]
    all: bool,
    /// List the kernels
    #[arg(long)]
    list: bool,
    /// Download the kernels and stop
    #[arg(long, conflicts_with_all = ["test", "all", "keep", "selftest", "record_verifier", "output"])]
    fetch: bool,
    /// Keep the console logs and file systems of kernels that pass
    #[arg(long)]
    keep: bool,
    /// Look for newer kernels than the downloaded ones
    #[arg(long)]
    update: bool,
    /// Run only `tidegate selftest`, and write docs/egress-paths.md
    #[arg(long, conflicts_with_all = ["test", "all"])]
    selftest: bool,
    /// Only count the verifier's instructions, and write docs/verifier.md and .json
    #[arg(long, conflicts_with_all = ["test", "all"])]
    record_verifier: bool,
    /// Number of machines to run at the same time [default: three for each processor, limited by memory]
    #[arg(long, value_name = "N")]
    machines: Option<NonZero<usize>>,
    /// Number of processors of each machine; two machines with one are faster than one with two
    #[arg(long, value_name = "N", default_value = "1")]
    processors: NonZero<u8>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Default for Options {
    /// The options of `cargo xtask vm` without arguments.
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
    /// A table
    #[default]
    Text,
    /// All results, test by test
    Json,
}

/// Runs the command.
///
/// # Errors
/// When a test fails that must pass on a kernel.
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
        require_pass(&rows)?;
        return record(&rows);
    }
    match options.output {
        Output::Text => print!("\n{}", report::table(&rows)),
        Output::Json => println!("{}", serde_json::to_string(&rows)?),
    }
    require_pass(&rows)
}

/// Downloads the kernels that are not cached, and prints where each one is.
fn download(options: &Options, matrix: &Matrix) -> Result<()> {
    let directory = compile::target_directory()?.join("vm");
    for kernel in matrix.select(&options.kernel)? {
        let fetched = fetch::fetch(kernel, &directory, options.update)?;
        println!("{:<16} {}", kernel.name, fetched.image.display());
    }
    Ok(())
}

/// Records the verifier's counts; kernels that were not run keep theirs.
fn record(rows: &[Row]) -> Result<()> {
    let mut record = Record::read()?;
    let mut taken = BTreeSet::new();
    for row in rows {
        let release = row.release.as_deref().unwrap_or(&row.kernel);
        record.take(release, row.output.iter().map(String::as_str), &mut taken)?;
    }
    record.write()
}

/// The table of kernels in README.md.
///
/// # Errors
/// When kernels.toml cannot be read.
pub(crate) fn kernel_table() -> Result<String> {
    let mut text =
        "| Linux | description | what does not work, or works differently |\n|---|---|---|\n".to_owned();
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

/// The step of `cargo xtask test`: all kernels. A kernel that cannot be downloaded is skipped: that is not an error of this
/// repository.
///
/// # Errors
/// As [`run`].
pub(crate) fn step() -> Result<Outcome> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Outcome::skipped("the kernel matrix: it needs an x86_64 machine"));
    }
    if let Err(error) = setup::ensure(&[Purpose::Vm]) {
        return Ok(Outcome::skipped(format!("the kernel matrix: {error:#}")));
    }
    let rows = rows(&Options::default(), &Matrix::read()?)?;
    print!("\n{}", report::table(&rows));
    let (rows, absent): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.fetched);
    require_pass(&rows)?;
    if absent.is_empty() {
        return Ok(Outcome::Passed);
    }
    let reason = |row: &Row| format!("kernel {}: {}", row.kernel, row.errors.join("; "));
    Ok(Outcome::Skipped(absent.iter().map(reason).collect()))
}

fn require_pass(rows: &[Row]) -> Result<()> {
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| !row.passes())
        .map(|row| row.kernel.as_str())
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("tests failed on {}", failed.join(", "));
}

/// Three for each processor, because a machine often waits for RCU grace periods; fewer if memory is short.
fn default_machines() -> usize {
    /// Memory for each machine, in KiB: 1.5 times the measured maximum.
    const EACH: usize = 1792 * 1024;
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    let fitting = available.map_or(usize::MAX, |available| available / EACH);
    (3 * processors).min(fitting).max(1)
}

fn rows(options: &Options, matrix: &Matrix) -> Result<Vec<Row>> {
    let mut kernels = matrix.select(&options.kernel)?;
    setup::ensure(&[Purpose::Build, Purpose::Demo, Purpose::Vm])?;
    let test_run = TestRun::prepare(options, matrix)?;
    kernels.retain(|kernel| test_run.expected(kernel) > 0);
    ensure!(
        !kernels.is_empty(),
        "the selected kernels run none of the selected tests"
    );
    // All of them first: the output of apt would break the progress line.
    let fetched = kernels.iter().map(|kernel| test_run.fetch(kernel)).collect();
    let machines = options.machines.map_or_else(default_machines, NonZero::get);
    let mut progress = Progress::new(kernels.len(), options.output == Output::Json);
    Ok(pool::run(&test_run, &kernels, fetched, machines, &mut progress))
}
