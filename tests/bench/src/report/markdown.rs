//! For readers of docs/benchmarks.

use super::Report;

pub(super) fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# Benchmark of {}\n\n{}. Made by `cargo xtask bench --save`; figures are of one machine, compare ratios.\n\n{}\n",
        report.machine.date,
        report.setting(),
        report.budgets()
    );
    for section in &report.sections {
        text += &format!("\n## {}\n\n{}\n\n", section.title, section.note);
        let heads = section.heads();
        text += &row(heads.iter().copied());
        text += &row(heads
            .iter()
            .enumerate()
            .map(|(i, _)| if i == 0 { "---" } else { "---:" }));
        for line in &section.lines {
            text += &row(section.cells(line).iter().map(String::as_str));
        }
    }
    if !report.skipped.is_empty() {
        text += "\n## Left out\n\n";
    }
    for reason in &report.skipped {
        text += &format!("- {reason}\n");
    }
    text
}

fn row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    // `<=` would start a tag where Markdown is read as HTML.
    let cells: Vec<String> = cells.map(|cell| cell.replace('<', "&lt;")).collect();
    format!("| {} |\n", cells.join(" | "))
}
