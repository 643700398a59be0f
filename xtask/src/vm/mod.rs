//! `cargo xtask vm`: the integration tests on the kernels of `vm-tests/kernels.toml`, each in a virtual
//! machine of its own.
//!
//! ```text
//! kernels.toml -> fetch (Debian's kernels) -> image (tests, clients, init) -> boot -> console -> verdict
//! ```

mod boot;
mod clients;
mod console;
mod cpio;
mod egress_paths;
mod fetch;
mod image;
mod matrix;
mod modules;
mod programs;
pub(crate) mod qemu;
mod report;
mod tree;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use self::{
    boot::Machine,
    fetch::Fetched,
    image::Task,
    matrix::{Kernel, Matrix, Rule},
    programs::Built,
    report::Progress,
    verdict::Row,
};
use crate::compile;
use crate::setup::{self, Purpose};
use crate::step::Outcome;

/// What `cargo xtask vm` takes.
#[derive(Args, Default)]
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
    /// Keep console logs and file systems of kernels that hold, too
    #[arg(long)]
    keep: bool,
    /// Look for newer kernels than those that were fetched before
    #[arg(long)]
    update: bool,
    /// Run only `tidegate selftest`, and write docs/egress-paths.md of what became of each way
    #[arg(long, conflicts_with_all = ["test", "all"])]
    selftest: bool,
    /// How the result is shown
    #[arg(long, value_enum, default_value_t)]
    output: Output,
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
    if options.selftest {
        return egress_paths::write(options, &matrix);
    }
    let rows = rows(options, &matrix)?;
    match options.output {
        Output::Text => print!("\n{}", report::table(&rows)),
        Output::Json => println!("{}", serde_json::to_string(&rows)?),
    }
    settled(&rows)
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

fn rows(options: &Options, matrix: &Matrix) -> Result<Vec<Row>> {
    let kernels = matrix.chosen(&options.kernel)?;
    setup::ensure(&[Purpose::Build, Purpose::Demo, Purpose::Vm])?;
    let stage = Stage::set(options, matrix)?;
    let mut rows = Vec::new();
    for kernel in kernels {
        // One that cannot be had does not keep the others from being run.
        let row = match fetch::fetch(kernel, &stage.folder, options.update) {
            Ok(fetched) => stage
                .perform(kernel, &fetched)
                .unwrap_or_else(|error| Row::without_start(kernel, true, format!("{error:#}"))),
            Err(error) => Row::without_start(kernel, false, format!("{error:#}")),
        };
        if options.output == Output::Text {
            println!("    {}", report::line(&row));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What all kernels share.
struct Stage<'a> {
    options: &'a Options,
    matrix: &'a Matrix,
    folder: PathBuf,
    base: PathBuf,
    tidegate: PathBuf,
    built: Built,
}

impl Stage<'_> {
    fn set<'a>(options: &'a Options, matrix: &'a Matrix) -> Result<Stage<'a>> {
        let tidegate = compile::build(false)?.path().to_owned();
        let built = programs::build()?;
        matrix.meant(&options.test, &built.names())?;
        let target = compile::target_folder()?;
        let init = programs::init(&target)?;
        let folder = target.join("vm");
        let logs = folder.join("logs");
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        Ok(Stage {
            base: image::base(&folder, &init, &tidegate, &built)?,
            options,
            matrix,
            folder,
            tidegate,
            built,
        })
    }

    fn perform(&self, kernel: &Kernel, fetched: &Fetched) -> Result<Row> {
        let (tasks, left_out) = self.tasks(kernel);
        let expected: Vec<String> = tasks
            .iter()
            .flat_map(|task| task.tests.iter().map(|test| format!("{}::{test}", task.name)))
            .collect();
        let image = image::whole(
            &self.base,
            &kernel.name,
            &self.folder,
            &fetched.modules,
            |modules| {
                // Anywhere that is there: tests ask only where they are.
                let folder = Path::new("/root");
                let seconds = self.matrix.program_seconds;
                image::orders(modules, &self.variables(), folder, seconds, &tasks)
            },
            self.matrix,
        )?;
        let log = self.folder.join("logs").join(format!("{}.log", kernel.name));
        let machine = Machine {
            kernel,
            fetched,
            image: &image,
            log: &log,
            limit: Duration::from_secs(self.matrix.kernel_seconds),
        };
        let quiet = self.options.output == Output::Json;
        let mut progress = Progress::of(&kernel.name, expected.len(), quiet);
        let start = Instant::now();
        let console = machine.run(|news| progress.tell(news))?;
        progress.end();
        let mut row = Row::of(kernel, console, &expected, left_out, start.elapsed());
        if row.holds() && !self.options.keep {
            // Large, and made again in a moment.
            fs::remove_file(&image)?;
            fs::remove_file(&log)?;
        } else {
            row.log = Some(log.display().to_string());
        }
        Ok(row)
    }

    /// What each program is to run on this kernel, and how many tests are not.
    fn tasks(&self, kernel: &Kernel) -> (Vec<Task<'_>>, usize) {
        let mut left_out = 0;
        let mut tasks = Vec::new();
        for program in &self.built.programs {
            let mut tests = Vec::new();
            for test in &program.tests {
                let name = format!("{}::{test}", program.name);
                let asked = &self.options.test;
                if !asked.is_empty() && !asked.iter().any(|glob| matrix::matches(glob, &name)) {
                    continue;
                }
                let slow: &[Rule] = if self.options.all || !asked.is_empty() {
                    &[]
                } else {
                    &self.matrix.slow
                };
                let rules = [&self.matrix.left_out, &kernel.left_out, slow];
                if rules.iter().any(|rules| matrix::reason(rules, &name).is_some()) {
                    left_out += 1;
                } else {
                    tests.push(test.as_str());
                }
            }
            if !tests.is_empty() {
                tasks.push(Task {
                    name: &program.name,
                    path: &program.path,
                    tests,
                });
            }
        }
        (tasks, left_out)
    }

    fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("PATH", "/usr/bin:/usr/sbin:/bin:/sbin".to_owned()),
            ("HOME", "/root".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TIDEGATE_BIN", self.tidegate.display().to_string()),
            ("TIDEGATE_REQUIRE_ROOT", "1".to_owned()),
            // What is attached for the whole machine disturbs nobody there.
            ("TIDEGATE_OWN_MACHINE", "1".to_owned()),
        ]
    }
}
