//! What all kernels share, and one kernel's run on it: its tests chosen, booted, judged.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Options,
    boot::Machine,
    console::{Console, News},
    fetch::{self, Fetched},
    image::{self, Task},
    matrix::{self, Kernel, Matrix},
    programs::{self, Built, Program},
    verdict::Row,
};
use crate::{compile, verifier};

/// What a program may be silent beyond the time that it has, seconds: booting takes less.
const PATIENCE: u64 = 60;

/// Programs and files, made once for all kernels.
pub(crate) struct Stage<'a> {
    options: &'a Options,
    matrix: &'a Matrix,
    folder: PathBuf,
    base: PathBuf,
    tidegate: PathBuf,
    built: Built,
}

impl Stage<'_> {
    /// Builds everything.
    ///
    /// # Errors
    /// When something does not build, or a pattern means no test.
    pub(crate) fn set<'a>(options: &'a Options, matrix: &'a Matrix) -> Result<Stage<'a>> {
        let tidegate = compile::build(false)?.path().to_owned();
        let built = programs::build()?;
        matrix.meant(&options.test, &built.names())?;
        let target = compile::target_folder()?;
        let init = programs::init(&target)?;
        let folder = target.join("vm");
        let logs = folder.join("logs");
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        Ok(Stage {
            base: image::base(&folder, "base", &init, &tidegate, &built, |_| Ok(()))?,
            options,
            matrix,
            folder,
            tidegate,
            built,
        })
    }

    /// Makes sure that a kernel is there.
    ///
    /// # Errors
    /// When it is not and cannot be fetched.
    pub(crate) fn fetch(&self, kernel: &Kernel) -> Result<Fetched> {
        fetch::fetch(kernel, &self.folder, self.options.update)
    }

    /// How many tests are to run on a kernel.
    pub(crate) fn expected(&self, kernel: &Kernel) -> usize {
        self.chosen(kernel)
            .0
            .iter()
            .map(|chosen| chosen.tests.len())
            .sum()
    }

    /// Runs what is to run on a kernel. A machine that breaks off is tried a second time, once: `again` is
    /// told so. A test that fails is not.
    ///
    /// # Errors
    /// When the machine cannot be made or started.
    pub(crate) fn perform(
        &self,
        kernel: &Kernel,
        fetched: &Fetched,
        mut tell: impl FnMut(&News),
        again: impl FnOnce(&str),
    ) -> Result<Row> {
        let (chosen, left_out) = self.chosen(kernel);
        let expected: Vec<String> = chosen.iter().flat_map(Chosen::names).collect();
        let tasks: Vec<Task<'_>> = chosen.iter().map(Chosen::task).collect();
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
            &self.matrix.modules,
        )?;
        let log = |suffix: &str| {
            self.folder
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
            Ok((machine.run(&mut tell)?, start.elapsed()))
        };
        let (mut console, mut took) = boot(&log(""))?;
        let mut first_try = None;
        if console.is_broken_off() {
            // The console of the first try is what tells about it: it is kept, whatever comes.
            fs::rename(log(""), log("-first-try"))?;
            let why = format!(
                "{} ({})",
                console.troubles.join("; "),
                log("-first-try").display()
            );
            again(&why);
            first_try = Some(why);
            (console, took) = boot(&log(""))?;
        }
        let mut row = Row::of(kernel, console, &expected, left_out, took);
        row.first_try = first_try;
        if row.holds() && !self.options.keep {
            // Large, and made again in a moment.
            fs::remove_file(&image)?;
            fs::remove_file(log(""))?;
        } else {
            row.log = Some(log("").display().to_string());
        }
        Ok(row)
    }

    /// The tests to run on this kernel, and how many are not.
    fn chosen(&self, kernel: &Kernel) -> (Vec<Chosen<'_>>, usize) {
        let mut left_out = 0;
        let mut all = Vec::new();
        for program in &self.built.programs {
            let mut tests = Vec::new();
            for test in &program.tests {
                let name = format!("{}::{test}", program.name);
                if self.options.record_verifier && name != verifier::TEST {
                    continue;
                }
                let asked = &self.options.test;
                if !asked.is_empty() && !asked.iter().any(|glob| matrix::matches(glob, &name)) {
                    continue;
                }
                let mut rules = vec![&self.matrix.left_out, &kernel.left_out];
                if !self.options.all && asked.is_empty() {
                    rules.extend([&self.matrix.slow, &kernel.slow]);
                }
                if rules.iter().any(|rules| matrix::reason(rules, &name).is_some()) {
                    left_out += 1;
                } else {
                    tests.push(test.as_str());
                }
            }
            if !tests.is_empty() {
                all.push(Chosen { program, tests });
            }
        }
        (all, left_out)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = variables(&self.tidegate);
        variables.push(("TIDEGATE_REQUIRE_ROOT", "1".to_owned()));
        // What is attached for the whole machine disturbs nobody there.
        variables.push(("TIDEGATE_OWN_MACHINE", "1".to_owned()));
        if self.options.record_verifier {
            variables.push((verifier::RECORDING, "1".to_owned()));
        }
        variables
    }
}

/// A program, and the tests that it is to run.
struct Chosen<'a> {
    program: &'a Program,
    tests: Vec<&'a str>,
}

impl Chosen<'_> {
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
            words,
        }
    }
}

/// The environment of what runs in a machine.
pub(crate) fn variables(tidegate: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("PATH", "/usr/bin:/usr/sbin:/bin:/sbin".to_owned()),
        ("HOME", "/root".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TIDEGATE_BIN", tidegate.display().to_string()),
    ]
}
