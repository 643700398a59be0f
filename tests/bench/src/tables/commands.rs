//! The start-up cost of `tidegate exec` for a command that does nothing, compared with another sandbox and with none.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use serde_json::json;

use super::{ms, ms_spread, progress, since};
use crate::{
    datapath,
    fixture::Fixture,
    report::{Budget, Line, Section},
    statistics::Spread,
};

const NOTHING: &str = "/bin/true";

/// Runs the commands alternately. Without bwrap its line is skipped.
pub(crate) fn measure(fixture: &Fixture<'_>, skipped: &mut Vec<String>) -> Result<Section> {
    progress("exec: /bin/true");
    let tidegate = datapath::binary()?.display().to_string();
    ensure!(
        std::path::Path::new(&tidegate).is_file(),
        "tidegate is not built: run `cargo xtask bench`, or set TIDEGATE_BIN"
    );
    let mut timings: Vec<(&str, Vec<&str>, Option<Budget>)> = vec![
        ("fork and exec", vec![NOTHING], None),
        (
            "tidegate exec --default allow",
            vec![&tidegate, "exec", "--quiet", "--default", "allow", "--", NOTHING],
            Some(Budget::Milliseconds(60.0)),
        ),
    ];
    let bwrap = vec!["bwrap", "--ro-bind", "/", "/", NOTHING];
    match run(&bwrap) {
        Ok(()) => timings.push(("bwrap --ro-bind / /", bwrap, None)),
        Err(error) => skipped.push(format!("exec: bwrap: {error:#} (Debian package bubblewrap)")),
    }
    let mut took: Vec<Vec<f64>> = vec![Vec::new(); timings.len()];
    let mut worked = took.clone();
    for time in 0..=fixture.samples.times(60, 15) {
        for (i, (_, args, _)) in timings.iter().enumerate() {
            let (start, before) = (Instant::now(), cpu_of_children()?);
            run(args)?;
            // The first run only warms the caches.
            if time > 0 {
                took[i].push(since(start));
                worked[i].push(cpu_of_children()? - before);
            }
        }
    }
    let spreads: Vec<(Spread, Spread)> = took
        .into_iter()
        .zip(worked)
        .map(|(took, worked)| (Spread::of(took), Spread::of(worked)))
        .collect();
    let bare = spreads[0].0.median;
    let lines = timings
        .iter()
        .zip(&spreads)
        .map(|((name, _, budget), (spread, cpu))| {
            let added = spread.median - bare;
            Line {
                name: (*name).to_owned(),
                cells: vec![ms(spread.median), ms_spread(*spread), ms(added), ms(cpu.median)],
                values: json!({"ms": spread.json(), "added_ms": added, "cpu_ms": cpu.json()}),
                budget_result: budget.map(|budget| budget.check(added)),
            }
        });
    Ok(Section {
        key: "exec",
        title: "Time to run /bin/true",
        note: "Milliseconds from start to exit, with alternating commands, and the CPU time of all threads. The budget is for the \
               added time.",
        head: vec!["ms", "p10..p90", "added ms", "CPU ms"],
        lines: lines.collect(),
    })
}

/// CPU time of all reaped child processes, in milliseconds.
fn cpu_of_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let total = usage.user_time() + usage.system_time();
    Ok(total.num_microseconds() as f64 / 1000.0)
}

fn run(args: &[&str]) -> Result<()> {
    let output = Command::new(args[0])
        .args(&args[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {}", args[0]))?;
    ensure!(
        output.status.success(),
        "{} failed: {}: {}",
        args[0],
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
