//! What this kernel and this process can do, found by doing it: each hook, helper and table that the
//! gate could use is tried, what happened is told in words, and what follows for a policy's actions is
//! the plan. Leaves nothing behind.
//!
//! ```text
//! Surroundings::look -> datapath::trial (tried, by exercise seen called) -> Finding -> Plan
//! ```

mod destroy;
mod exercise;
mod finding;
mod hooks;
mod plan;
mod remedy;
mod surroundings;

use serde::Serialize;

use crate::instance::Disabled;

pub use self::{
    finding::{Answer, Finding},
    plan::{Enforcement, Kill, KillTime, Plan},
    surroundings::Kernel,
};
use self::{hooks::Bench, surroundings::Surroundings};

/// What may be done to find out.
#[derive(Clone, Debug)]
pub struct Options {
    /// What programs may be attached to.
    pub attach: Attach,
    /// What works and is not to be used.
    pub disabled: Disabled,
}

/// What trial programs may be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attach {
    /// To every hook, also those that the whole machine calls.
    Everything,
    /// To a cgroup of our own; what is for the whole machine is only loaded.
    OwnCgroup,
    /// To nothing, and nothing else is changed: no cgroup is made, no socket is cut.
    Nothing,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel.
    pub kernel: Kernel,
    /// What programs were attached to; the others were only loaded.
    pub attached: Attach,
    /// Mounts, capabilities, namespaces.
    pub surroundings: Vec<Finding>,
    /// Hooks.
    pub hooks: Vec<Finding>,
    /// Helpers.
    pub helpers: Vec<Finding>,
    /// Tables, and whatever else the gate uses.
    pub tables: Vec<Finding>,
    /// What follows.
    pub plan: Plan,
}

impl Report {
    /// Everything that was found, in its order.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        [&self.surroundings, &self.hooks, &self.helpers, &self.tables]
            .into_iter()
            .flatten()
    }

    /// What could be changed, and what each change would give.
    pub fn advice(&self) -> Vec<(&str, Vec<&str>)> {
        let mut advice: Vec<(&str, Vec<&str>)> = Vec::new();
        for finding in self.findings() {
            let Some(remedy) = finding.remedy.as_deref() else {
                continue;
            };
            match advice.iter_mut().find(|(known, _)| *known == remedy) {
                Some((_, names)) => names.push(finding.name),
                None => advice.push((remedy, vec![finding.name])),
            }
        }
        advice
    }
}

/// Tries everything.
pub fn probe(options: Options) -> Report {
    let surroundings = Surroundings::look();
    let bench = Bench::set(&surroundings, &options);
    let hooks = bench.hooks();
    let helpers = bench.helpers();
    let mut tables = bench.tables();
    tables.extend(destroy::findings(
        &surroundings,
        options.attach != Attach::Nothing,
    ));
    drop(bench);
    let mut report = Report {
        kernel: surroundings.kernel.clone(),
        attached: options.attach,
        surroundings: surroundings.findings(),
        hooks,
        helpers,
        tables,
        plan: Plan::default(),
    };
    report.plan = Plan::of(&report);
    report
}
