//! What was measured, in a form that all outputs are made from.

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
    /// Name for programs.
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// What one must know to read it.
    pub(crate) note: &'static str,
    /// Heads of the columns after the name; budget and judgement follow.
    pub(crate) head: Vec<&'static str>,
    pub(crate) lines: Vec<Line>,
}

/// A row of a table.
pub(crate) struct Line {
    pub(crate) name: String,
    /// For people.
    pub(crate) cells: Vec<String>,
    /// For programs.
    pub(crate) values: Value,
    /// What it was to be, and whether it is.
    pub(crate) budget_result: Option<BudgetResult>,
}

/// Everything.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Whether fewer samples were taken.
    pub(crate) quick: bool,
    pub(crate) sections: Vec<Section>,
    /// What was not measured, and why.
    pub(crate) skipped: Vec<String>,
}

impl Report {
    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        text::text(self)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json::json(self)
    }

    /// For readers of docs/benchmarks.
    pub(crate) fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// How many budgets are met, and which are not.
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

    /// In one line.
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
    /// Heads of all columns; the last two only where a line has a budget.
    fn heads(&self) -> Vec<&'static str> {
        let mut heads = vec![""];
        heads.extend(&self.head);
        if self.has_budgets() {
            heads.extend(["budget", ""]);
        }
        heads
    }

    /// A line's cells below them.
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
