//! The integration tests on one kernel: selects the tests, boots, and evaluates the results. Builds once for all kernels.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Options,
    boot::Machine,
    console::{Console, ConsoleEvent},
    fetch::{self, Fetched},
    image::{self, Task},
    matrix::{self, Kernel, Matrix},
    programs::{self, Built, Program},
    verdict::Row,
};
use crate::{compile, verifier};

/// Seconds without console output beyond the time limit of a program; booting takes less.
const PATIENCE: u64 = 60;

/// Programs and files for all kernels.
pub(crate) struct TestRun<'a> {
    options: &'a Options,
    matrix: &'a Matrix,
    directory: PathBuf,
    base: PathBuf,
    tidegate: PathBuf,
    built: Built,
}

impl TestRun<'_> {
    /// Builds everything.
    ///
    /// # Errors
    /// When a build fails, or a pattern matches no test.
    pub(crate) fn prepare<'a>(options: &'a Options, matrix: &'a Matrix) -> Result<TestRun<'a>> {
        let tidegate = compile::build(false)?.path().to_owned();
        let built = programs::build()?;
        matrix.check_patterns(&options.test, &built.names())?;
        let target = compile::target_directory()?;
        let init = programs::init(&target)?;
        let directory = target.join("vm");
        let logs = directory.join("logs");
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        Ok(TestRun {
            base: image::base(&directory, "base", &init, &tidegate, &built, |_| Ok(()))?,
            options,
            matrix,
            directory,
            tidegate,
            built,
        })
    }

    /// Downloads a kernel unless it is cached.
    ///
    /// # Errors
    /// When it cannot be downloaded.
    pub(crate) fn fetch(&self, kernel: &Kernel) -> Result<Fetched> {
        fetch::fetch(kernel, &self.directory, self.options.update)
    }

    /// Number of tests to run on a kernel.
    pub(crate) fn expected(&self, kernel: &Kernel) -> usize {
        self.selected(kernel)
            .0
            .iter()
            .map(|selected| selected.tests.len())
            .sum()
    }

    /// Runs the selected tests on a kernel. A machine that is aborted is started a second time, after a call of `on_retry` with
    /// the reason; a failed test is not repeated.
    ///
    /// # Errors
    /// When the image cannot be written or the machine cannot be started.
    pub(crate) fn run_kernel(
        &self,
        kernel: &Kernel,
        fetched: &Fetched,
        mut on_event: impl FnMut(&ConsoleEvent),
        on_retry: impl FnOnce(&str),
    ) -> Result<Row> {
        let (selected, excluded) = self.selected(kernel);
        let expected: Vec<String> = selected.iter().flat_map(Selected::names).collect();
        let tasks: Vec<Task<'_>> = selected.iter().map(Selected::task).collect();
        let image = image::with_orders(
            &self.base,
            &kernel.name,
            &self.directory,
            fetched,
            |modules| {
                // Any existing directory.
                let directory = Path::new("/root");
                let seconds = self.matrix.program_seconds;
                image::orders(modules, &self.variables(), directory, seconds, &tasks)
            },
            &self.matrix.modules,
        )?;
        let log = |suffix: &str| {
            self.directory
                .join("logs")
                .join(format!("{}{suffix}.log", kernel.name))
        };
        let mut boot = |log: &Path| -> Result<(Console, Duration)> {
            let start = Instant::now();
            let machine = Machine {
                kernel,
                fetched,
                image: &image,
                log,
                processors: self.options.processors.get(),
                limit: Duration::from_secs(self.matrix.kernel_seconds),
                silence: Duration::from_secs(self.matrix.program_seconds + PATIENCE),
            };
            Ok((machine.run(&mut on_event)?, start.elapsed()))
        };
        let (mut console, mut took) = boot(&log(""))?;
        let mut first_attempt = None;
        if console.is_aborted() {
            // Keep its console log also if the second attempt passes.
            fs::rename(log(""), log("-first-attempt"))?;
            let why = format!(
                "{} ({})",
                console.errors.join("; "),
                log("-first-attempt").display()
            );
            on_retry(&why);
            first_attempt = Some(why);
            (console, took) = boot(&log(""))?;
        }
        let mut row = Row::of(kernel, console, &expected, excluded, took);
        row.first_attempt = first_attempt;
        if row.passes() && !self.options.keep {
            // Large, and quickly written again.
            fs::remove_file(&image)?;
            fs::remove_file(log(""))?;
        } else {
            row.log = Some(log("").display().to_string());
        }
        Ok(row)
    }

    /// The tests to run on this kernel, and the number of others.
    fn selected(&self, kernel: &Kernel) -> (Vec<Selected<'_>>, usize) {
        let mut excluded = 0;
        let mut all = Vec::new();
        for program in &self.built.programs {
            let mut tests = Vec::new();
            for test in &program.tests {
                let name = format!("{}::{test}", program.name);
                if self.options.record_verifier && name != verifier::TEST {
                    continue;
                }
                let patterns = &self.options.test;
                if !patterns.is_empty() && !patterns.iter().any(|glob| matrix::matches(glob, &name)) {
                    continue;
                }
                let with_slow = self.options.all || !patterns.is_empty();
                if self.matrix.runs(kernel, &name, with_slow) {
                    tests.push(test.as_str());
                } else {
                    excluded += 1;
                }
            }
            if !tests.is_empty() {
                all.push(Selected { program, tests });
            }
        }
        (all, excluded)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = variables(&self.tidegate);
        variables.push(("TIDEGATE_REQUIRE_ROOT", "1".to_owned()));
        // Tests may attach global programs there.
        variables.push(("TIDEGATE_OWN_MACHINE", "1".to_owned()));
        if self.options.record_verifier {
            variables.push((verifier::RECORDING, "1".to_owned()));
        }
        variables
    }
}

/// A program and the tests to run of it.
struct Selected<'a> {
    program: &'a Program,
    tests: Vec<&'a str>,
}

impl Selected<'_> {
    fn names(&self) -> impl Iterator<Item = String> {
        self.tests
            .iter()
            .map(|test| format!("{}::{test}", self.program.name))
    }

    fn task(&self) -> Task<'_> {
        let mut words = vec!["--show-output", "--exact"];
        words.extend(&self.tests);
        Task {
            name: &self.program.name,
            path: &self.program.path,
            arguments: words,
        }
    }
}

/// The environment of programs in a virtual machine.
pub(crate) fn variables(tidegate: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("PATH", "/usr/bin:/usr/sbin:/bin:/sbin".to_owned()),
        ("HOME", "/root".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TIDEGATE_BIN", tidegate.display().to_string()),
    ]
}
