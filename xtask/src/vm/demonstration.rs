//! `cargo xtask demo --vm`: the demonstration inside a machine, for those who are not root on theirs. What
//! runs in there is this very program, as it runs inside the namespace of `cargo xtask demo`.

use std::{env, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{
    boot::Machine,
    console::News,
    fetch,
    image::{self, Task},
    matrix::Matrix,
    programs::{self, Built},
    stage,
    tree::Tree,
};
use crate::{
    compile::{self, Binary},
    demo,
    setup::{self, Purpose},
};

/// What the one program of the machine is called on its console.
const NAME: &str = "demo";

/// How long it may take: it takes ten seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the demonstration on a kernel of the matrix, or on the one that kernels.toml has for it.
///
/// # Errors
/// When it does not go as told, or there is no machine.
pub(crate) fn run(kernel: Option<&str>) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machines are for x86_64: run `cargo xtask demo`, which needs root"
    );
    let matrix = Matrix::read()?;
    let name = kernel.unwrap_or(&matrix.demo_kernel).to_owned();
    let kernel = *matrix
        .chosen(&[name])?
        .first()
        .context("kernels.toml has no kernel for the demonstration")?;
    setup::ensure(&[Purpose::Build, Purpose::Demo, Purpose::Vm])?;
    let tidegate = compile::build(false)?;
    let target = compile::target_folder()?;
    let init = programs::init(&target)?;
    let folder = target.join("vm");
    fs::create_dir_all(folder.join("logs")).context("the folder of consoles")?;
    let fetched = fetch::fetch(kernel, &folder, false)?;

    let own = env::current_exe().context("this program cannot find itself")?;
    let built = Built {
        programs: Vec::new(),
        others: vec![own.clone()],
    };
    let policy = |tree: &mut Tree| tree.copy(&demo::policy());
    let base = image::base(&folder, "demo-base", &init, tidegate.path(), &built, policy)?;
    let tasks = [Task {
        name: NAME,
        path: &own,
        words: vec!["demo"],
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
    let image = image::whole(&base, NAME, &folder, &fetched.modules, orders, &[])?;
    let log = folder.join("logs").join(format!("{NAME}.log"));
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
        "\nLinux {} boots in a virtual machine: {}",
        kernel.name, kernel.about
    );
    let mut code = None;
    let console = machine.run(|news| match news {
        News::Says(line) => println!("{line}"),
        News::Ends(_, _, how) => code = Some(how.clone()),
        News::Begins(_) | News::Test(..) => {}
    })?;
    ensure!(
        console.troubles.is_empty(),
        "the machine had troubles: {}; its console: {}",
        console.troubles.join("; "),
        log.display()
    );
    match code.as_deref() {
        Some("0") => {}
        _ => bail!(
            "the demonstration failed; the machine's console: {}",
            log.display()
        ),
    }
    for file in [&base, &image, &log] {
        fs::remove_file(file).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn variables(tidegate: &Binary) -> Vec<(&'static str, String)> {
    let mut variables = stage::variables(tidegate.path());
    variables.push((demo::INSIDE, tidegate.path().display().to_string()));
    variables
}
