//! What `tidegate exec` adds to a command that does nothing, beside another sandbox and nothing at all.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{ms, ms_spread, progress, since};
use crate::{
    gate,
    laboratory::Laboratory,
    report::{Budget, Line, Section},
    statistics::Spread,
};

const NOTHING: &str = "/bin/true";

/// Runs them in turns. Without bwrap its line is left out.
pub(crate) fn measure(laboratory: &Laboratory<'_>, left_out: &mut Vec<String>) -> Result<Section> {
    progress("exec: /bin/true");
    let tidegate = gate::binary()?.display().to_string();
    ensure!(
        std::path::Path::new(&tidegate).is_file(),
        "no tidegate beside the benchmark: run it by `cargo xtask bench`, or name one by TIDEGATE_BIN"
    );
    let mut ways: Vec<(&str, Vec<&str>, Option<Budget>)> = vec![
        ("fork and exec", vec![NOTHING], None),
        (
            "tidegate exec --default allow",
            vec![&tidegate, "exec", "--quiet", "--default", "allow", "--", NOTHING],
            Some(Budget::Milliseconds(60.0)),
        ),
    ];
    let bwrap = vec!["bwrap", "--ro-bind", "/", "/", NOTHING];
    match run(&bwrap) {
        Ok(()) => ways.push(("bwrap --ro-bind / /", bwrap, None)),
        Err(error) => left_out.push(format!("exec: bwrap: {error:#} (Debian package bubblewrap)")),
    }
    let mut took: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for time in 0..=laboratory.effort.times(60, 15) {
        for ((_, words, _), took) in ways.iter().zip(&mut took) {
            let start = Instant::now();
            run(words)?;
            // The first run fills caches.
            if time > 0 {
                took.push(since(start));
            }
        }
    }
    let spreads: Vec<Spread> = took.into_iter().map(Spread::of).collect();
    let bare = spreads[0].median;
    let lines = ways.iter().zip(&spreads).map(|((name, _, budget), spread)| {
        let added = spread.median - bare;
        Line {
            name: (*name).to_owned(),
            cells: vec![ms(spread.median), ms_spread(*spread), ms(added)],
            values: json!({"ms": spread.json(), "added_ms": added}),
            judged: budget.map(|budget| budget.judge(added)),
        }
    });
    Ok(Section {
        key: "exec",
        title: "What it takes to run /bin/true",
        note: "Milliseconds from before the start to after the end, in turns. The budget is for what is added.",
        head: vec!["ms", "p10..p90", "added ms"],
        lines: lines.collect(),
    })
}

fn run(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} does not start", words[0]))?;
    ensure!(
        output.status.success(),
        "{} failed: {}: {}",
        words[0],
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
