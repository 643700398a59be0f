//! The results, independent of the output format.

mod budget;
mod json;
mod machine;
mod markdown;
mod save;
mod text;

pub(crate) use budget::{Budget, BudgetResult};
pub(crate) use machine::Machine;
pub(crate) use save::save;

use serde_json::Value;

/// A table.
pub(crate) struct Section {
    /// Name in JSON.
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// How to read the table.
    pub(crate) note: &'static str,
    /// Column headers after the name; the budget and its result follow.
    pub(crate) head: Vec<&'static str>,
    pub(crate) lines: Vec<Line>,
}

/// A row of a table.
pub(crate) struct Line {
    pub(crate) name: String,
    /// Text of the cells.
    pub(crate) cells: Vec<String>,
    /// Values in JSON.
    pub(crate) values: Value,
    /// The budget and whether it is met.
    pub(crate) budget_result: Option<BudgetResult>,
}

/// All results.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Whether fewer samples were taken.
    pub(crate) quick: bool,
    pub(crate) sections: Vec<Section>,
    /// What was not measured, with the reason.
    pub(crate) skipped: Vec<String>,
}

impl Report {
    /// The report as text for a terminal.
    pub(crate) fn text(&self) -> String {
        text::text(self)
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> Value {
        json::json(self)
    }

    /// The report as Markdown for docs/benchmarks.
    pub(crate) fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// How many budgets are met, and which are missed.
    fn budgets(&self) -> String {
        let lines = self.sections.iter().flat_map(|section| &section.lines);
        let budget_result = lines.filter_map(|line| Some((line, line.budget_result?)));
        let (met, missed): (Vec<_>, Vec<_>) = budget_result.partition(|(_, budget_result)| budget_result.met);
        let names: Vec<&str> = missed.iter().map(|(line, _)| line.name.as_str()).collect();
        match (met.len(), names.len()) {
            (0, 0) => "No budget is set for what was measured.".to_owned(),
            (met, 0) => format!("All {met} budgets are met."),
            (met, missed) => format!("Budgets: {met} met, {missed} missed: {}.", names.join(", ")),
        }
    }

    /// Kernel, CPU and date in one line.
    fn setting(&self) -> String {
        format!(
            "Linux {}, {} ({} cores), {}{}",
            self.machine.kernel,
            self.machine.cpu,
            self.machine.cores,
            self.machine.date,
            if self.quick { ", few samples (--quick)" } else { "" }
        )
    }
}

impl Section {
    /// All column headers; those of budgets only if a line has one.
    fn heads(&self) -> Vec<&'static str> {
        let mut heads = vec![""];
        heads.extend(&self.head);
        if self.has_budgets() {
            heads.extend(["budget", ""]);
        }
        heads
    }

    /// The cells of a line.
    fn cells(&self, line: &Line) -> Vec<String> {
        let mut cells = vec![line.name.clone()];
        cells.extend(line.cells.iter().cloned());
        if self.has_budgets() {
            let (budget, verdict) = match &line.budget_result {
                Some(budget_result) => (
                    budget_result.budget.to_string(),
                    budget_result.verdict().to_owned(),
                ),
                None => (String::new(), String::new()),
            };
            cells.extend([budget, verdict]);
        }
        cells
    }

    fn has_budgets(&self) -> bool {
        self.lines.iter().any(|line| line.budget_result.is_some())
    }
}
