//! Time from the text of a policy to its activation, and its memory.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;
use tidegate_core::{compile::Image, datapath::Slot};

use super::{ms, ms_spread, progress, since};
use crate::{
    address::Family,
    bpf,
    datapath::image_of,
    fixture::Fixture,
    policies::Shape,
    report::{Budget, Line, Section},
    statistics::Spread,
};

/// Bytes of an image page, which is one map entry.
const PAGE: u64 = 4096;

/// Milliseconds of each step of an update.
struct Timing {
    parse: f64,
    compile: f64,
    install: f64,
}

impl Timing {
    fn total(&self) -> f64 {
        self.parse + self.compile + self.install
    }
}

/// Measures all sizes.
pub(crate) fn measure(fixture: &mut Fixture<'_>) -> Result<Section> {
    let mut lines = Vec::new();
    let ten = Shape::allowing(10, Family::V4, 10);
    let sizes = [
        (
            "10 rules, 10 networks",
            ten,
            Some(Budget::Milliseconds(5.0)),
            50,
            10,
        ),
        (
            "1 rule, 1k networks",
            Shape::allowing(1, Family::V4, 1000),
            None,
            20,
            5,
        ),
        (
            "256 rules, 100k networks",
            Shape::allowing(256, Family::V4, 100_000),
            None,
            7,
            2,
        ),
        (
            "1 rule, 1m networks",
            Shape::allowing(1, Family::V4, 1_000_000),
            Some(Budget::TimeAndMemory(2000.0, 65_536.0)),
            5,
            2,
        ),
    ];
    for (name, shape, budget, many, few) in sizes {
        let times = fixture.samples.times(many, few);
        progress(&format!("compile: {name}"));
        let text = fixture.policies.text(&shape)?;
        let (image, timings) = measure_text(fixture, &text, times)?;
        lines.push(line(name, &image, &timings, budget)?);
    }
    lines.push(one_changed_rule(fixture)?);
    Ok(Section {
        key: "compile",
        title: "Time from the text of a policy to its activation",
        note: "Milliseconds, medians. `parse` includes reading the address files; `install` fills the map and swaps it with \
               the old version atomically. Memory is what the kernel accounts for the map of the policy (memlock).",
        head: vec![
            "parse ms",
            "compile ms",
            "install ms",
            "total ms",
            "p10..p90",
            "kernel KiB",
        ],
        lines,
    })
}

fn measure_text(fixture: &mut Fixture<'_>, text: &str, times: usize) -> Result<(Image, Vec<Timing>)> {
    let first = image_of(&fixture.policies.parse(text)?)?;
    let slot = fixture.datapath()?.install(&first)?;
    let mut timings = Vec::new();
    for _ in 0..times {
        timings.push(measure_update(fixture, text, slot)?);
    }
    Ok((first, timings))
}

fn measure_update(fixture: &mut Fixture<'_>, text: &str, slot: Slot) -> Result<Timing> {
    let start = Instant::now();
    let policy = fixture.policies.parse(text)?;
    let parse = since(start);
    let start = Instant::now();
    let image = image_of(&policy)?;
    let compile = since(start);
    let start = Instant::now();
    fixture.datapath()?.replace(slot, &image)?;
    Ok(Timing {
        parse,
        compile,
        install: since(start),
    })
}

/// One rule changes its action, next to a set of nearly a million networks (the maximum).
fn one_changed_rule(fixture: &mut Fixture<'_>) -> Result<Line> {
    progress("compile: one rule changed at 1m networks");
    let text = fixture.policies.text(&Shape::allowing(1, Family::V4, 999_999))?;
    let with = |action: &str| {
        let rule = format!("  rules:\n    - {{name: changed, action: {action}, to: [\"198.51.100.7\"]}}\n");
        text.replacen("  rules:\n", &rule, 1)
    };
    let texts = [with("block"), with("audit")];
    let image = image_of(&fixture.policies.parse(&texts[0])?)?;
    let slot = fixture.datapath()?.install(&image)?;
    let mut timings = Vec::new();
    for time in 0..fixture.samples.times(5, 1) {
        timings.push(measure_update(fixture, &texts[(time + 1) % 2], slot)?);
    }
    let budget = Budget::TimeAndMemory(2000.0, 65_536.0);
    line("one rule changed at 1m networks", &image, &timings, Some(budget))
}

fn line(name: &str, image: &Image, timings: &[Timing], budget: Option<Budget>) -> Result<Line> {
    let over = |part: &dyn Fn(&Timing) -> f64| Spread::of(timings.iter().map(part));
    let (parse, compile, install) = (
        over(&|timing| timing.parse),
        over(&|timing| timing.compile),
        over(&|timing| timing.install),
    );
    let total = over(&Timing::total);
    let kib = memory_kib(image)?;
    let fits = match budget {
        Some(Budget::TimeAndMemory(_, most)) => kib <= most,
        _ => true,
    };
    Ok(Line {
        name: name.to_owned(),
        cells: vec![
            ms(parse.median),
            ms(compile.median),
            ms(install.median),
            ms(total.median),
            ms_spread(total),
            format!("{kib:.0}"),
        ],
        values: json!({
            "parse_ms": parse.json(),
            "compile_ms": compile.json(),
            "install_ms": install.json(),
            "total_ms": total.json(),
            "kernel_kib": kib,
        }),
        budget_result: budget.map(|budget| budget.check(total.median).and(fits)),
    })
}

/// The kernel memory of an installed image.
pub(super) fn memory_kib(image: &Image) -> Result<f64> {
    let bytes = bpf::memory_of_newest(PAGE, image.pages().len() as u64)?;
    Ok(bytes.context("the map of the policy was not found")? as f64 / 1024.0)
}
