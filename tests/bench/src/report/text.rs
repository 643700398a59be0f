//! The report as text for a terminal.

use comfy_table::{Table, presets};

use super::Report;

pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}\n", report.setting());
    for section in &report.sections {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(section.heads());
        for line in &section.lines {
            table.add_row(section.cells(line));
        }
        text += &format!(
            "\n{}\n{}\n{}\n",
            section.title,
            section.note,
            trimmed(&table.to_string())
        );
    }
    text += &format!("\n{}\n", report.budgets());
    for reason in &report.skipped {
        text += &format!("SKIPPED: {reason}\n");
    }
    text
}

fn trimmed(table: &str) -> String {
    let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    lines.join("\n")
}
