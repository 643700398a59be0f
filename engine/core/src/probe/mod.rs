//! What this kernel and this process support, found by trying it: each hook, helper and map that Tidegate could use is
//! loaded, attached and called. The plan is what follows for the actions of a policy. Leaves nothing behind.
//!
//! ```text
//! HostEnvironment::detect -> datapath::trial (with SelfCalls) -> Finding -> Plan
//! ```

mod environment;
mod finding;
mod hooks;
mod plan;
mod refused;
mod socket_destroy;
mod test_calls;

use serde::Serialize;

use crate::instance::Disabled;

use self::{environment::HostEnvironment, hooks::Fixture};
pub use self::{
    environment::Kernel,
    finding::{Finding, Reached, Support},
    plan::{BlockErrno, Enforcement, Kill, KillTime, Plan, SignalSender},
};

/// Version of [`Report`] as a JSON document.
const SCHEMA_VERSION: u32 = 1;

/// What the probe may do.
#[derive(Clone, Debug)]
pub struct Options {
    /// What programs may be attached to.
    pub attach: AttachScope,
    /// Features and program groups that are not to be used.
    pub disabled: Disabled,
}

/// What trial programs may be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachScope {
    /// Every hook, also those that see all processes of the system.
    System,
    /// A cgroup made for the probe. System-wide programs are only loaded.
    OwnCgroup,
    /// Nothing. No cgroup is made and no socket is destroyed either.
    None,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the document.
    pub schema_version: u32,
    /// The running kernel.
    pub kernel: Kernel,
    /// What programs were attached to; the others were only loaded.
    pub attach_scope: AttachScope,
    /// Mounts, capabilities, namespaces, security modules.
    pub environment: Vec<Finding>,
    /// Program types and attach points.
    pub hooks: Vec<Finding>,
    /// BPF helpers.
    pub helpers: Vec<Finding>,
    /// Map types.
    pub maps: Vec<Finding>,
    /// Operations on existing sockets.
    pub sockets: Vec<Finding>,
    /// How policies can be enforced here.
    pub plan: Plan,
}

impl Report {
    /// All findings, in the order of the report.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        [
            &self.environment,
            &self.hooks,
            &self.helpers,
            &self.maps,
            &self.sockets,
        ]
        .into_iter()
        .flatten()
    }

    /// The hints, each with the names of the features that it would make available.
    pub fn hints(&self) -> Vec<(&str, Vec<&str>)> {
        let mut hints: Vec<(&str, Vec<&str>)> = Vec::new();
        for finding in self.findings() {
            let Some(hint) = finding.hint.as_deref() else {
                continue;
            };
            match hints.iter_mut().find(|(known, _)| *known == hint) {
                Some((_, names)) => names.push(finding.name),
                None => hints.push((hint, vec![finding.name])),
            }
        }
        hints
    }
}

/// Tries every feature.
pub fn probe(options: Options) -> Report {
    let environment = HostEnvironment::detect();
    let fixture = Fixture::new(&environment, &options);
    let hooks = fixture.hooks();
    let helpers = fixture.helpers();
    let maps = fixture.maps();
    drop(fixture);
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        kernel: environment.kernel.clone(),
        attach_scope: options.attach,
        environment: environment.findings(),
        hooks,
        helpers,
        maps,
        sockets: socket_destroy::findings(&environment, options.attach != AttachScope::None),
        plan: Plan::default(),
    };
    report.plan = Plan::new(&report);
    report
}
