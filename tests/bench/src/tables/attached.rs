//! Many policies on as many cgroups.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::{compiling::memory_kib, ms, progress, since};
use crate::{
    address::Family,
    datapath::{LoadedDatapath, image_of},
    fixture::Fixture,
    policies::Shape,
    report::{Budget, Line, Section},
};

/// Number of policies and cgroups.
const MANY: usize = 1000;

/// Attaches [`MANY`] policies of ten rules to one cgroup each.
pub(crate) fn measure(fixture: &mut Fixture<'_>) -> Result<Section> {
    progress("attach: 1,000 policies on 1,000 cgroups");
    let text = fixture.policies.text(&Shape::allowing(10, Family::V4, 10))?;
    let cgroups: Result<Vec<_>> = (0..MANY).map(|_| fixture.cgroup()).collect();
    let cgroups = cgroups?;
    let datapath = LoadedDatapath::load(None)?;

    let start = Instant::now();
    let mut images = Vec::new();
    for _ in 0..MANY {
        images.push(image_of(&fixture.policies.parse(&text)?)?);
    }
    let compile = since(start);
    let start = Instant::now();
    let slots = datapath.install_all(&images)?;
    let install = since(start);
    let start = Instant::now();
    let mut attached = Vec::new();
    for (cgroup, slot) in cgroups.iter().zip(slots) {
        attached.push(datapath.attach(cgroup, &[slot])?);
    }
    let attach = since(start);
    let total = compile + install + attach;
    let kib = memory_kib(&images[0])?;
    let start = Instant::now();
    drop(attached);
    let detach = since(start);

    let budget = Budget::TimeAndMemory(5000.0, 100.0);
    Ok(Section {
        key: "attach",
        title: "Many policies on as many cgroups",
        note: "Milliseconds in total, measured once. Memory is what the kernel accounts for the map of one policy.",
        head: vec![
            "compile ms",
            "install ms",
            "attach ms",
            "total ms",
            "detach ms",
            "KiB each",
        ],
        lines: vec![Line {
            name: "1,000 policies of 10 rules".to_owned(),
            cells: vec![
                ms(compile),
                ms(install),
                ms(attach),
                ms(total),
                ms(detach),
                format!("{kib:.0}"),
            ],
            values: json!({
                "policies": MANY,
                "compile_ms": compile,
                "install_ms": install,
                "attach_ms": attach,
                "total_ms": total,
                "detach_ms": detach,
                "kernel_kib_each": kib,
            }),
            budget_result: Some(budget.check(total).and(kib <= 100.0)),
        }],
    })
}
