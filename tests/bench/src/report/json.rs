//! For programs.

use serde_json::{Value, json};

use super::{Report, Section};

pub(super) fn json(report: &Report) -> Value {
    json!({
        "version": 1,
        "date": report.machine.date,
        "kernel": report.machine.kernel,
        "cpu": report.machine.cpu,
        "cores": report.machine.cores,
        "quick": report.quick,
        "sections": report.sections.iter().map(section).collect::<Vec<_>>(),
        "left_out": report.left_out,
    })
}

fn section(section: &Section) -> Value {
    let lines = section.lines.iter().map(|line| {
        json!({
            "name": line.name,
            "values": line.values,
            "budget": line.judged.map(|judged| json!({
                "text": judged.budget.to_string(),
                "met": judged.met,
            })),
        })
    });
    json!({
        "key": section.key,
        "title": section.title,
        "rows": lines.collect::<Vec<_>>(),
    })
}
