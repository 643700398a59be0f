//! The report as JSON.

use serde_json::{Value, json};

use super::{Report, Section};

pub(super) fn json(report: &Report) -> Value {
    json!({
        "schema_version": 2,
        "date": report.machine.date,
        "kernel": report.machine.kernel,
        "cpu": report.machine.cpu,
        "cores": report.machine.cores,
        "quick": report.quick,
        "sections": report.sections.iter().map(section).collect::<Vec<_>>(),
        "skipped": report.skipped,
    })
}

fn section(section: &Section) -> Value {
    let lines = section.lines.iter().map(|line| {
        json!({
            "name": line.name,
            "values": line.values,
            "budget": line.budget_result.map(|budget_result| json!({
                "text": budget_result.budget.to_string(),
                "met": budget_result.met,
            })),
        })
    });
    json!({
        "key": section.key,
        "title": section.title,
        "rows": lines.collect::<Vec<_>>(),
    })
}
