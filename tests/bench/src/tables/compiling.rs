//! From the text of a policy to its being live, and what it weighs.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;
use tidegate::{compile::Image, datapath::Slot};

use super::{ms, ms_spread, progress, since};
use crate::{
    address::Family,
    bpf,
    datapath::image_of,
    fixture::Laboratory,
    policies::Shape,
    report::{Budget, Line, Section},
    statistics::Spread,
};

/// Bytes of a page of an image: an element of the table.
const PAGE: u64 = 4096;

/// What one way from text to live took, milliseconds.
struct Way {
    parse: f64,
    compile: f64,
    live: f64,
}

impl Way {
    fn total(&self) -> f64 {
        self.parse + self.compile + self.live
    }
}

/// Measures all sizes.
pub(crate) fn measure(laboratory: &mut Laboratory<'_>) -> Result<Section> {
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
        let times = laboratory.effort.times(many, few);
        progress(&format!("compile: {name}"));
        let text = laboratory.policies.text(&shape)?;
        let (image, ways) = measure_text(laboratory, &text, times)?;
        lines.push(line(name, &image, &ways, budget)?);
    }
    lines.push(one_rule_changed(laboratory)?);
    Ok(Section {
        key: "compile",
        title: "From the text of a policy to its being live",
        note: "Milliseconds, medians. Parsing includes reading the address files; live is filling the tables and the one \
               update by which the new version takes the place of the old. Memory is what the kernel accounts for the \
               policy's table (memlock).",
        head: vec![
            "parse ms",
            "compile ms",
            "live ms",
            "total ms",
            "p10..p90",
            "kernel KiB",
        ],
        lines,
    })
}

fn measure_text(laboratory: &mut Laboratory<'_>, text: &str, times: usize) -> Result<(Image, Vec<Way>)> {
    let first = image_of(&laboratory.policies.parse(text)?)?;
    let slot = laboratory.datapath()?.install(&first)?;
    let mut ways = Vec::new();
    for _ in 0..times {
        ways.push(go_live(laboratory, text, slot)?);
    }
    Ok((first, ways))
}

fn go_live(laboratory: &mut Laboratory<'_>, text: &str, slot: Slot) -> Result<Way> {
    let start = Instant::now();
    let policy = laboratory.policies.parse(text)?;
    let parse = since(start);
    let start = Instant::now();
    let image = image_of(&policy)?;
    let compile = since(start);
    let start = Instant::now();
    laboratory.datapath()?.replace(slot, &image)?;
    Ok(Way {
        parse,
        compile,
        live: since(start),
    })
}

/// A rule beside a set of nearly a million networks (that many are the most) changes its action.
fn one_rule_changed(laboratory: &mut Laboratory<'_>) -> Result<Line> {
    progress("compile: one rule changed at 1m networks");
    let text = laboratory
        .policies
        .text(&Shape::allowing(1, Family::V4, 999_999))?;
    let with = |action: &str| {
        let rule = format!("  rules:\n    - {{name: changed, action: {action}, to: [\"198.51.100.7\"]}}\n");
        text.replacen("  rules:\n", &rule, 1)
    };
    let texts = [with("block"), with("audit")];
    let image = image_of(&laboratory.policies.parse(&texts[0])?)?;
    let slot = laboratory.datapath()?.install(&image)?;
    let mut ways = Vec::new();
    for time in 0..laboratory.effort.times(5, 1) {
        ways.push(go_live(laboratory, &texts[(time + 1) % 2], slot)?);
    }
    let budget = Budget::TimeAndMemory(2000.0, 65_536.0);
    line("one rule changed at 1m networks", &image, &ways, Some(budget))
}

fn line(name: &str, image: &Image, ways: &[Way], budget: Option<Budget>) -> Result<Line> {
    let over = |part: &dyn Fn(&Way) -> f64| Spread::of(ways.iter().map(part));
    let (parse, compile, live) = (
        over(&|way| way.parse),
        over(&|way| way.compile),
        over(&|way| way.live),
    );
    let total = over(&Way::total);
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
            ms(live.median),
            ms(total.median),
            ms_spread(total),
            format!("{kib:.0}"),
        ],
        values: json!({
            "parse_ms": parse.json(),
            "compile_ms": compile.json(),
            "live_ms": live.json(),
            "total_ms": total.json(),
            "kernel_kib": kib,
        }),
        judged: budget.map(|budget| budget.judge(total.median).and(fits)),
    })
}

/// What the kernel accounts for an image that is live.
pub(super) fn memory_kib(image: &Image) -> Result<f64> {
    let bytes = bpf::memory_of_newest(PAGE, image.pages().len() as u64)?;
    Ok(bytes.context("the policy's table is not found")? as f64 / 1024.0)
}
