//! `cargo xtask demo --vm`: the demonstration in a virtual machine, for users without root. The machine runs this program,
//! in the same way as the network namespace of `cargo xtask demo`.

use std::{env, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{
    boot::Machine,
    console::ConsoleEvent,
    fetch,
    image::{self, Task},
    matrix::Matrix,
    programs::{self, Built},
    test_run,
    tree::Tree,
};
use crate::{
    compile::{self, Binary},
    demo,
    setup::{self, Purpose},
};

/// Name of the program on the console.
const NAME: &str = "demo";

/// Time limit; it takes about ten seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the demonstration on a kernel of the matrix, by default on `demo_kernel` of kernels.toml.
///
/// # Errors
/// When the demonstration fails or the machine cannot be started.
pub(crate) fn run(kernel: Option<&str>) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "virtual machines need an x86_64 machine: run `cargo xtask demo`, which needs root"
    );
    let matrix = Matrix::read()?;
    let name = kernel.unwrap_or(&matrix.demo_kernel).to_owned();
    let kernel = *matrix
        .select(&[name])?
        .first()
        .context("kernels.toml has no kernel for the demonstration")?;
    setup::ensure(&[Purpose::Build, Purpose::Demo, Purpose::Vm])?;
    let tidegate = compile::build(false)?;
    let target = compile::target_directory()?;
    let init = programs::init(&target)?;
    let directory = target.join("vm");
    fs::create_dir_all(directory.join("logs")).context("cannot create the directory of console logs")?;
    let fetched = fetch::fetch(kernel, &directory, false)?;

    let own = env::current_exe().context("cannot find the path of this program")?;
    let built = Built {
        programs: Vec::new(),
        others: vec![own.clone()],
    };
    let policy = |tree: &mut Tree| tree.copy(&demo::policy());
    let base = image::base(&directory, "demo-base", &init, tidegate.path(), &built, policy)?;
    let tasks = [Task {
        name: NAME,
        path: &own,
        arguments: vec!["demo"],
    }];
    let orders = |_modules: &[String]| {
        image::orders(
            &[],
            &variables(&tidegate),
            Path::new("/root"),
            LIMIT.as_secs(),
            &tasks,
        )
    };
    let image = image::with_orders(&base, NAME, &directory, &fetched, orders, &[])?;
    let log = directory.join("logs").join(format!("{NAME}.log"));
    let machine = Machine {
        kernel,
        fetched: &fetched,
        image: &image,
        log: &log,
        processors: 1,
        limit: LIMIT,
        silence: LIMIT,
    };
    println!(
        "\nbooting Linux {} in a virtual machine: {}",
        kernel.name, kernel.about
    );
    let mut code = None;
    let console = machine.run(|event| match event {
        ConsoleEvent::Output(line) => println!("{line}"),
        ConsoleEvent::ProgramExited(_, _, exit) => code = Some(exit.clone()),
        ConsoleEvent::ProgramStarted(_) | ConsoleEvent::TestFinished(..) => {}
    })?;
    ensure!(
        console.errors.is_empty(),
        "the virtual machine failed: {}; see its console in {}",
        console.errors.join("; "),
        log.display()
    );
    match code.as_deref() {
        Some("0") => {}
        _ => bail!("the demonstration failed; see the console in {}", log.display()),
    }
    for file in [&base, &image, &log] {
        fs::remove_file(file).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn variables(tidegate: &Binary) -> Vec<(&'static str, String)> {
    let mut variables = test_run::variables(tidegate.path());
    variables.push((demo::INSIDE, tidegate.path().display().to_string()));
    variables
}
